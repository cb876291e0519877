"""The same flags on the same events: a gateway and the command on stdin choose alike."""

import asyncio
import sys

import pytest

from eventjson.encoder import JsonEncoder
from support.feeder import exec_event
from tetragon.events_pb2 import GetEventsResponse

TETRA = "import sys; from cli.main import main; sys.exit(main())"


def events():
    """Return four events that differ in name of container, letters of the binary, and labels."""
    made = [GetEventsResponse.FromString(exec_event(n)) for n in range(1, 5)]
    docker, pod, accents, plain = (event.process_exec.process for event in made)
    docker.container_info.name = "web-1"
    pod.pod.namespace, pod.pod.name, pod.pod.container.name = "shop", "web-0", "nginx"
    pod.pod.pod_labels["tier"] = "3"
    accents.binary = "/é"
    plain.binary = "/usr/bin/true"
    return made


CASES = [
    (["--containers", "^web"], {1}),
    (["--containers", "^nginx$"], {2}),
    (["--process", r"^/\pL$"], {3}),
    (["--process", r"true\z"], {1, 2, 4}),
    (["--labels", "tier>2"], {2}),
    (["--labels", "tier notin (3)"], set()),
    (["--cel-expression", "process_exec.process.pid == uint(4)"], {4}),
    (["--cel-expression", "process_exec.process.pod.name.startsWith('web')"], {2}),
]


async def tetra(*arguments, stdin=b""):
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", TETRA, "getevents", "--format", "{{pid}}", *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, errors = await process.communicate(stdin)
    assert process.returncode == 0, errors
    return {int(line) for line in out.split()}


@pytest.mark.parametrize(("flags", "chosen"), CASES, ids=lambda v: " ".join(map(str, v)))
async def test_gateway_and_stdin_choose_the_same_events(gateway, feeder, flags, chosen):
    made = events()
    await feeder.send(feeder.batch([event.SerializeToString() for event in made]))
    encoder = JsonEncoder(extensions=True)
    lines = "".join(encoder.encode(event) + "\n" for event in made).encode()
    assert await tetra(*flags, stdin=lines) == chosen
    served = await tetra(
        *flags, "--last", "100", "--no-follow", "--server-address", gateway.address
    )
    assert served == chosen
