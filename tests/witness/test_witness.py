"""strace beside the ready-made policies on real programs: both have seen the same acts.

Compared as multisets, act by act: opens for writing, and changes of names, permissions and owners
below the watched folder; TCP connections made and accepted, sockets that listen; changes of
credentials and of the host. What is no difference is named where the two sides are made alike.
"""

from __future__ import annotations

import posixpath
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import ParseDict

from cli.renderers.ready import act_of
from cli.renderers.ready.act import call_of
from eventfilters.accesses import files, peers
from support.net import free_port
from support.strace import Act, witnessed
from tetragon.events_pb2 import GetEventsResponse
from witness.programs import HEAD, PROGRAMS, Program

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(300)]

FILES = {"open", "denied", "remove", "create", "rename", "link", "chmod", "chown", "truncate"}


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_policies_report_what_strace_saw(recorder, program: Program, tmp_path):
    folder = Path(tempfile.mkdtemp(prefix=f"{program.name}-", dir=recorder.folder))
    folder.chmod(0o755)
    script = (HEAD + program.script).replace("PORT", str(free_port()))
    start = recorder.position()
    seen = witnessed(["bash", "-ec", script], tmp_path / "trace", cwd=folder)
    witness = Counter(one for one in seen.acts if is_watched(one, recorder.folder))
    for act in witness:
        if act.word == "listen":  # on a socket that listens already it changes nothing
            witness[act] = 1
    assert len(witness) > 20
    ours = Counter(act for event in recorder.of(seen.pids, start) for act in acts_of(event))
    missed, more = sorted((witness - ours).elements()), sorted((ours - witness).elements())
    assert not missed
    assert not more


def is_watched(act: Act, folder: Path) -> bool:
    """Return whether the parameters of the policies include an act."""
    below = f"{folder}/"
    return act.word not in FILES or any(one.startswith(below) for one in act.what.split(" -> "))


def acts_of(event: dict[str, Any]) -> Iterator[Act]:
    """Yield what one event reports, in the witness's form."""
    message = ParseDict(event, GetEventsResponse())
    body = getattr(message, message.WhichOneof("event"))
    pid, act = body.process.pid.value, act_of(body)
    assert act is not None
    # As the caller wrote it, so it may end in a slash.
    path = " -> ".join(posixpath.normpath(one) for one in files(body) if one)
    if body.policy_name == "files":
        if act.word == "open" or call_of(body) == "creat":
            if not act.what.startswith("to read "):
                yield Act(pid, "open", path)
        else:
            yield Act(pid, act.word, path, act.outcome)
    elif act.word == "connect":
        yield Act(pid, act.word, ":".join(map(str, peers(body)[-1])))
    elif act.word in ("accept", "listen"):
        yield Act(pid, act.word, act.what.removeprefix("tcp "))
    elif body.policy_name == "credentials":
        yield Act(pid, act.word, "", act.outcome)
    elif body.policy_name == "host":
        yield Act(pid, act.word, path if act.word in ("device", "setting") else "", act.outcome)
