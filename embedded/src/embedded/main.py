"""``tetra-embedded``: the whole product as child processes of one terminal.

Start is NATS, gateway, collector, ``tetra getevents``, each when the one before is ready; the end
is the other way round, within two seconds, whatever brought it.
"""

import asyncio
import fcntl
import json
import os
import platform
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from embedded import nats_server, ports
from embedded.child import Child
from embedded.errors import EmbeddedError
from embedded.settings import Settings, load

# What the collector needs, by its bit in CapEff (include/uapi/linux/capability.h).
_CAPABILITIES = {"CAP_DAC_READ_SEARCH": 2, "CAP_SYS_PTRACE": 19, "CAP_PERFMON": 38, "CAP_BPF": 39}

_READY_WITHIN_S = 60.0
_COMPILED_WITHIN_S = 180.0  # the collector compiles the probes, maybe on an emulated machine
_BIN = Path(sys.executable).parent
_CLIENT_STARTS_S = 0.1


class Stack:
    """The four children and what they are told."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        config, password_file = nats_server.write_config(settings.state_dir, settings.nats_port)
        self._env = _environment(settings, password_file)
        # The times to stop in add up to less than two seconds.
        self.nats = Child("nats", (_BIN / "nats-server", "-c", config), stop_within_s=0.3)
        self.gateway = Child("gateway", (_BIN / "tetra-gateway",), stop_within_s=0.4)
        self.collector = Child("collector", (_BIN / "tetra-collector",), stop_within_s=0.8)
        self.cli = Child("tetra", (_BIN / "tetra", "getevents"), stop_within_s=0.3)
        self._children = (self.nats, self.gateway, self.collector, self.cli)

    async def start(self) -> None:
        """Start all; raise `EmbeddedError` if one does not get ready."""
        nats_address = f"127.0.0.1:{self._settings.nats_port}"
        await self._start(self.nats, nats_address, "Server is ready")
        await self._start(self.gateway, self._settings.listen_address, '"event": "serving"')
        ready = await self._start(self.collector, "probes of this kernel", '"event": "ready"')
        # All that happens once the banner stands is told, also what comes before the client is
        # connected; its own start is not.
        told_from = time.time() + _CLIENT_STARTS_S
        self.cli.add_arguments("--since", f"@{told_from:.6f}")
        await self.cli.start(self._env)
        await asyncio.sleep(told_from - time.time())
        # The collector knows best under which name this node's events go out.
        print(_banner(json.loads(ready), self._settings), flush=True)

    async def _start(self, child: Child, what: str, phrase: str) -> str:
        print(f"{child.name:<10} {what} ", end="", flush=True)
        began = time.monotonic()
        try:
            await child.start(self._env, self._settings.state_dir / f"{child.name}.log")
            within_s = _COMPILED_WITHIN_S if child is self.collector else _READY_WITHIN_S
            line = await child.wait_for_line(phrase, within_s)
        except BaseException:
            print(flush=True)
            raise
        print(f"ready ({time.monotonic() - began:.1f} s)", flush=True)
        return line

    async def wait(self) -> None:
        """Return when the CLI ends well; raise `ChildError` when anything else ends."""
        ends = {asyncio.create_task(child.wait()): child for child in self._children}
        try:
            done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for end in ends:
                end.cancel()
        for end in done:
            if ends[end] is not self.cli or end.result() != 0:
                raise ends[end].death()

    async def stop(self) -> None:
        """End whoever runs, in the order that loses nothing."""
        for child in reversed(self._children):
            await child.stop()


def _environment(settings: Settings, password_file: Path) -> Mapping[str, str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("TETRA_NATS_")}
    host, _, port = settings.listen_address.rpartition(":")
    if host in ("0.0.0.0", "[::]"):
        host = "localhost"
    return env | {
        "PATH": f"{_BIN}:{env.get('PATH', os.defpath)}:/usr/sbin:/sbin",
        "TETRA_NATS_URL": f"nats://127.0.0.1:{settings.nats_port}",
        "TETRA_NATS_USER": nats_server.USER,
        "TETRA_NATS_PASSWORD_FILE": str(password_file),
        "TETRA_LISTEN_ADDRESS": settings.listen_address,
        "TETRA_SERVER_ADDRESS": f"{host}:{port}",
        "TETRA_STATE_DIR": str(settings.state_dir / "collector"),
        "TETRA_CACHE_DIR": env.get("TETRA_CACHE_DIR", str(settings.state_dir / "cache")),
        "TETRA_LOG_FORMAT": "json",
    }


def _banner(ready: Mapping[str, str], settings: Settings) -> str:
    node = ready.get("node", platform.node())
    kernel = ready.get("kernel", platform.release())
    tetra = _BIN / "tetra"
    if tetra.is_relative_to(Path.cwd()):
        tetra = tetra.relative_to(Path.cwd())
    return f"""
Tetragon-mini watches node {node} (Linux {kernel})
  gateway   {settings.listen_address}; from another terminal: {tetra} getevents
  state     {settings.state_dir} (events, logs)
  stop      Ctrl-C
"""


def require_rights() -> None:
    """Raise `EmbeddedError` unless the collector may do here what it has to."""
    status = Path("/proc/self/status").read_text()
    held = int(next(x for x in status.splitlines() if x.startswith("CapEff:")).split()[1], 16)
    missing = [name for name, bit in _CAPABILITIES.items() if not held >> bit & 1]
    if missing:
        hint = "; try: sudo make run" if os.geteuid() else ", which root lacks in this container"
        raise EmbeddedError(f"rights: the collector needs {', '.join(missing)}{hint}")


def require_free_ports(settings: Settings) -> None:
    """Raise `EmbeddedError` naming the port that is in use, and by whom."""
    host, _, port = settings.listen_address.rpartition(":")
    ports.require_free("127.0.0.1", settings.nats_port, "TETRA_NATS_PORT")
    ports.require_free(host.strip("[]"), int(port), "TETRA_LISTEN_ADDRESS")


@contextmanager
def locked(state_dir: Path) -> Iterator[None]:
    """Hold the state folder, made where missing, for ourselves alone."""
    try:
        state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = (state_dir / "lock").open("a+")
    except OSError as error:
        cause = (error.strerror or str(error)).lower()
        raise EmbeddedError(
            f"state folder: {state_dir}: {cause} (setting TETRA_STATE_DIR)"
        ) from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise EmbeddedError(
                f"state folder: {state_dir}: in use by pid {lock.read().strip()}, which runs this"
                " too; stop it, or set TETRA_STATE_DIR, TETRA_NATS_PORT and TETRA_LISTEN_ADDRESS"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


async def run(settings: Settings) -> None:
    """Run the stack until a signal comes, the CLI ends or a child fails."""
    task = asyncio.current_task()
    assert task
    loop = asyncio.get_running_loop()
    stopping = False

    def stop() -> None:
        nonlocal stopping
        if not stopping:  # a second Ctrl-C must not disturb the end
            stopping = True
            task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop)
    os.umask(0o077)
    with locked(settings.state_dir):
        require_free_ports(settings)
        stack = Stack(settings)
        try:
            await stack.start()
            await stack.wait()
        except asyncio.CancelledError:
            if not stopping:
                raise
        finally:
            stopping = True
            await stack.stop()


def main() -> None:
    """Entry point of ``tetra-embedded``."""
    try:
        settings = load(sys.argv[1:])
        require_rights()
        asyncio.run(run(settings))
    except EmbeddedError as error:
        for line in error.details:
            print(f"  {line}", file=sys.stderr)
        print(f"tetra-embedded: error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
