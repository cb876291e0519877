"""``process_lsm``: a process reached an LSM hook."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cli.renderers.kinds import calls
from cli.renderers.kinds.base import Kind, Line
from tetragon.events_pb2 import GetEventsResponse
from tetragon.tetragon_pb2 import ProcessLsm

if TYPE_CHECKING:
    from cli.renderers.pen import Pen

# Hooks whose events can carry an IMA hash, by the argument that names the file.
_BINPRM_HOOKS = frozenset(
    {
        "bprm_check_security",
        "bprm_committed_creds",
        "bprm_committing_creds",
        "bprm_creds_for_exec",
        "bprm_creds_from_file",
    }
)
_FILE_HOOKS = frozenset(
    {"file_ioctl", "file_lock", "file_open", "file_post_open", "file_receive", "mmap_file"}
)


def lifecycle(event: GetEventsResponse) -> Line:
    """Return ``🔒 lsm``, the process and the hook with its arguments."""
    body = event.process_lsm
    text = calls.call(body.function_name, body.args, policy=body.policy_name)
    return Line("🔒", "lsm", body.process, text, calls.outcome(body.action))


def compact(event: GetEventsResponse, pen: Pen) -> str:
    """Return ``🔒 LSM     SOURCE BINARY HOOK``, and a line with the file's IMA hash."""
    body = event.process_lsm
    line = pen.line(event, body.process, "🔒", "LSM", pen.plain(body.function_name))
    return line + _ima_hash(body, pen) if pen.options.ima_hash else line


def _ima_hash(body: ProcessLsm, pen: Pen) -> str:
    if not body.ima_hash or not body.args:
        return ""
    path = ""
    if body.function_name in _BINPRM_HOOKS:
        path = body.args[0].linux_binprm_arg.path
    elif body.function_name in _FILE_HOOKS:
        path = body.args[0].file_arg.path
    if not path:
        return ""
    return pen.green(f"   {pen.quote(path)}") + pen.blue(f" {pen.plain(body.ima_hash)}\n")


KIND = Kind(lifecycle, compact, words=calls.words(lambda body: str(body.function_name)))
