"""``tetra tracingpolicy`` on a fleet of three nodes: real gateway, real NATS, no kernel."""

import asyncio
import json
import os
import signal
import sys
import threading
from functools import partial

import pytest

from support.fleet import document
from support.tcp_server import tcp_server
from support.waiting import eventually

LONG_S = 30


async def run_client(address, *arguments):
    """Start ``tetra`` against a server."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("TETRA_", "LC_"))}
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "cli.main", *arguments, "--server-address", address,
        env={**kept, "LANG": "C.UTF-8"}, stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip


@pytest.fixture
async def nodes(start_nodes):
    """Three nodes; one of them lacks a function."""
    return await start_nodes(
        "n1", "n2", "n3", options=lambda name: {"refused": {"missing"} if name == "n2" else set()}
    )


@pytest.fixture
def start(gateway):
    """Start ``tetra`` against the gateway in this process."""

    return partial(run_client, gateway.address)


@pytest.fixture
def tetra(start):
    """Run ``tetra`` to its end; returns exit code, stdout and stderr."""

    async def run(*arguments):
        process = await start(*arguments)
        async with asyncio.timeout(LONG_S * 2):
            out, err = await process.communicate()
        return process.returncode, out.decode(), err.decode()

    return run


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "p.yaml"
    path.write_text(document())
    return str(path)


def active(nodes):
    return {name: sorted(nodes.nodes[name].active()) for name in nodes.running}


def everywhere(*names):
    return {node: list(names) for node in ("n1", "n2", "n3")}


async def test_a_policy_lives_on_every_node(nodes, tetra, file):
    assert await tetra("tp", "add", file) == (
        0,
        f'tracing policy "{file}" added\n',
        "tetra: policy one: revision 1 on 3 nodes\n",
    )
    assert active(nodes) == everywhere("grpc:one")
    _, status, _ = await tetra("tp", "status", "one")
    assert "one: revision 1, enabled, " in status
    assert [line.split()[:2] for line in status.splitlines()[2:]] == [
        ["n1", "enabled"], ["n2", "enabled"], ["n3", "enabled"],
    ]  # fmt: skip

    code, _, error = await tetra("tp", "add", file)
    assert code == 1
    assert error.endswith("  to load this document in its place: --replace\n")

    assert (await tetra("tp", "disable", "one"))[1] == 'tracing policy "one" disabled\n'
    assert active(nodes) == everywhere()
    assert (await tetra("tp", "enable", "one"))[0] == 0
    assert (await tetra("tp", "configure", "one", "--node", "n1"))[0] == 0
    await eventually(lambda: active(nodes) == {"n1": ["grpc:one"], "n2": [], "n3": []}, LONG_S)
    code, out, error = await tetra("tp", "rollback", "one")
    assert (code, out) == (0, 'tracing policy "one" rolled back to revision 3\n')
    assert error == "tetra: policy one: revision 5 on 3 nodes; it is enabled\n"
    assert (await tetra("tp", "delete", "one"))[1] == 'tracing policy "one" deleted\n'
    assert active(nodes) == everywhere()
    _, history, _ = await tetra("tp", "history", "one", "-o", "json")
    actions = [json.loads(line)["origin"]["action"] for line in history.splitlines()]
    assert actions == [
        "ACTION_DELETE", "ACTION_ROLLBACK", "ACTION_CONFIGURE", "ACTION_ENABLE", "ACTION_DISABLE",
        "ACTION_ADD",
    ]  # fmt: skip
    _, audit, _ = await tetra("getevents", "--audit", "--no-follow", "--policy-names", "one")
    assert len([line for line in audit.splitlines() if " applied  " in line]) == len(actions)
    assert "add: grpc:one revision 1, by " in audit


async def test_one_node_that_cannot_load_it_keeps_it_from_all(nodes, tetra, tmp_path):
    (tmp_path / "m.yaml").write_text(document(call="missing"))
    code, out, error = await tetra("tp", "add", str(tmp_path / "m.yaml"))
    assert (code, out) == (1, "")
    assert error.splitlines() == [
        "tetra: error: failed to add tracing policy: policy grpc:one: not carried out",
        "  node n2: there is no function 'missing'",
        "  to load it where it can be loaded: --wherever-it-loads; to choose nodes: --node",
    ]
    assert active(nodes) == everywhere()
    code, _, error = await tetra("tp", "add", str(tmp_path / "m.yaml"), "--wherever-it-loads")
    assert code == 0
    assert error.splitlines() == [
        "tetra: policy one: revision 2 on 2 nodes; not on n2",
        "tetra: node n2: there is no function 'missing'",
    ]
    assert active(nodes) == {"n1": ["grpc:one"], "n2": [], "n3": ["grpc:one"]}
    code, shown, _ = await tetra("tp", "status", "one", "--until-loaded")
    assert code == 1
    assert "grpc:one n2 load_error: there is no function 'missing'" in shown


async def test_a_canary_is_promoted(nodes, tetra, file):
    code, _, error = await tetra("tp", "add", file, "--canary", "30%", "--max-hits", "9")
    assert code == 0
    assert "this is a canary" in error
    running = [name for name, policies in active(nodes).items() if policies]
    assert len(running) == 1
    _, status, _ = await tetra("tp", "status")
    assert status.splitlines()[1].split()[3] == "canary"
    assert (await tetra("tp", "add", file, "--promote"))[1] == 'tracing policy "one" promoted\n'
    assert active(nodes) == everywhere("grpc:one")


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
async def test_a_try_is_removed_when_its_client_ends(nodes, gateway, start, file, end):
    process = await start("tp", "try", file, "--for", "300s", "--node", "n1,n3")

    def tried():
        return {n: [p.partition(":")[0] for p in found] for n, found in active(nodes).items()}

    await eventually(lambda: tried() == {"n1": ["try"], "n2": [], "n3": ["try"]}, LONG_S)
    modes = [mode for found in nodes.nodes.values() for _, mode in found.active().values()]
    assert modes == ["monitor", "monitor"]
    await eventually(lambda: len(gateway.gateway.streams), LONG_S)  # it has its first answer
    process.send_signal(end)
    await eventually(lambda: active(nodes) == everywhere(), LONG_S)
    out, err = await process.communicate()
    if end == signal.SIGINT:
        assert process.returncode == 0
        assert out.decode().startswith("try one: monitor mode on ")
        assert err.decode().endswith("interrupted; the policy is removed\n")


async def test_a_try_that_is_interrupted_before_its_first_answer_says_what_happened(file):
    accepted = threading.Event()

    def answer_nothing(connection):
        accepted.set()
        while connection.recv(4096):
            pass

    with tcp_server(answer_nothing) as port:
        process = await run_client(f"127.0.0.1:{port}", "tp", "try", file, "--for", "300s")
        await eventually(accepted.is_set, LONG_S)
        process.send_signal(signal.SIGINT)
        out, err = await process.communicate()
    assert (process.returncode, out) == (0, b"")
    assert err.decode().splitlines()[-1] == "tetra: interrupted; the policy is removed"


async def test_a_ready_made_policy_keeps_what_was_set(nodes, tetra):
    async def enable(*settings):
        flags = [word for one in settings for word in ("--set", one)]
        code, out, error = await tetra("policies", "enable", "files", *flags)
        assert code == 0, error
        _, listed, _ = await tetra("policies", "-o", "json")
        files = json.loads(listed.splitlines()[0])
        assert (files["name"], files["state"]) == ("files", "enabled")
        return out, files["parameters"]

    added = 'policy "files" enabled'
    assert await enable("paths=/srv", "secrets=none") == (
        f"{added}\n", {"paths": "/srv", "secrets": "none"},
    )  # fmt: skip
    assert await enable() == (
        f"{added}, keeps paths=/srv secrets=none\n", {"paths": "/srv", "secrets": "none"},
    )  # fmt: skip
    assert await enable("paths=/opt") == (
        f"{added}, keeps secrets=none\n", {"paths": "/opt", "secrets": "none"},
    )  # fmt: skip
    assert await enable("paths=default") == (
        f"{added}, keeps secrets=none\n", {"secrets": "none"},
    )  # fmt: skip
    _, table, _ = await tetra("policies")
    assert table.splitlines()[-1] == "files: --set secrets=none"
    await tetra("policies", "disable", "files")
    assert await enable() == (f"{added}\n", {})


async def test_a_token_that_may_not_read_enables_and_adds(nodes, start_gateway, tmp_path, file):
    tokens, token = tmp_path / "tokens", tmp_path / "token"
    tokens.write_text("writer policies\n")
    token.write_text("writer")
    closed = await start_gateway(token_file=tokens)
    for words, out in (
        (("policies", "enable", "files"), 'policy "files" enabled\n'),
        (("tp", "add", file), f'tracing policy "{file}" added\n'),
    ):
        process = await run_client(closed.address, *words, "--token-file", str(token))
        async with asyncio.timeout(LONG_S * 2):
            printed, errors = await process.communicate()
        assert (process.returncode, printed.decode()) == (0, out), errors
        unread = b"parameters that --set does not name get their defaults" in errors
        assert unread is (words[0] == "policies")
    assert active(nodes) == everywhere("grpc:files", "grpc:one")
