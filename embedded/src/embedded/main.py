"""``tetra-embedded``: the whole product as child processes of one terminal.

NATS starts first, then gateway and collector together, then ``tetra getevents``. They stop in the
reverse order, within two seconds.
"""

import asyncio
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from chassis import capabilities, signals
from chassis.errors import ServiceError
from chassis.folders import make_own, open_own
from chassis.scheduling import be_batch
from embedded import ports
from embedded.errors import EmbeddedError
from embedded.settings import Settings, load
from embedded.stack import COLLECTOR, Stack, farewell


def require_rights() -> None:
    """Raise `EmbeddedError` unless the collector has the capabilities that it needs."""
    missing = capabilities.missing(capabilities.effective())
    if missing:
        hint = "; try: sudo make run" if os.geteuid() else ", which root lacks in this container"
        raise EmbeddedError(f"rights: the collector needs {', '.join(missing)}{hint}")


def require_free_ports(settings: Settings) -> None:
    """Raise `EmbeddedError` that names a port in use and the process that uses it."""
    host, _, port = settings.listen_address.rpartition(":")
    ports.require_free("127.0.0.1", settings.nats_port, "TETRA_NATS_PORT")
    ports.require_free(host.strip("[]"), int(port), "TETRA_LISTEN_ADDRESS")


def require_good_policy(settings: Settings) -> None:
    """Raise `EmbeddedError` with every mistake of the policy that the user named."""
    if settings.tracing_policy is None:
        return
    command = (COLLECTOR, "--check-policy", settings.tracing_policy)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise EmbeddedError(
            f"policy: {settings.tracing_policy}: it cannot be loaded",
            details=done.stderr.splitlines(),
        )


@contextmanager
def locked(state_dir: Path) -> Iterator[None]:
    """Create the state folder if it is missing, and lock it for this process."""
    try:
        make_own(state_dir)
        lock = os.fdopen(open_own(state_dir / "lock", append=True), "a")
    except ServiceError as error:
        raise EmbeddedError(f"{error} (setting TETRA_STATE_DIR)") from None
    except OSError as error:
        cause = (error.strerror or str(error)).lower()
        raise EmbeddedError(
            f"state folder: {state_dir}: {cause} (setting TETRA_STATE_DIR)"
        ) from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = (state_dir / "lock").read_text().strip()
            raise EmbeddedError(
                f"state folder: {state_dir}: in use by pid {holder}, another tetra-embedded;"
                " stop it, or set TETRA_STATE_DIR, TETRA_NATS_PORT and TETRA_LISTEN_ADDRESS"
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
        if not stopping:  # a second Ctrl-C must not interrupt the shutdown
            stopping = True
            task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop)
    os.umask(0o077)
    with locked(settings.state_dir):
        require_free_ports(settings)
        require_good_policy(settings)
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
    # The banner has scrolled away behind the events.
    print(farewell(settings), flush=True)
    signals.ignore(loop)


def main() -> None:
    """Entry point of ``tetra-embedded``."""
    try:
        settings = load(sys.argv[1:])
        require_rights()
        be_batch()  # NATS and the client inherit it
        asyncio.run(run(settings))
    except EmbeddedError as error:
        for line in error.details:
            print(f"  {line}", file=sys.stderr)
        print(f"tetra-embedded: error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
