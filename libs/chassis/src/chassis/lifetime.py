"""From start to exit code: settings, logging, event loop, signals.

SIGTERM and SIGINT cancel the service's coroutine, which drains in its ``finally`` blocks.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import structlog
import uvloop

from chassis import logging, signals
from chassis.errors import ServiceError
from chassis.scheduling import be_batch
from chassis.settings import ServiceSettings, load

S = TypeVar("S", bound=ServiceSettings)


def run(service: str, settings: type[S], main: Callable[[S], Coroutine[Any, Any, None]]) -> int:
    """Run ``main`` with its settings until it ends or a signal arrives; return the exit code.

    0 after a signal or a normal end; the code of a `ServiceError`, printed as one line; 1 with a
    traceback for any other exception.
    """
    try:
        loaded = load(settings, service)
        logging.configure(loaded.log_level, loaded.log_format)
        if loaded.scheduling == "batch":
            be_batch()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_until_signal(main(loaded)))
    except BaseException as error:
        fault = _find_service_error(error)
        if fault is not None:
            print(f"tetra-{service}: error: {fault}", file=sys.stderr)
            return fault.exit_code
        if not isinstance(error, Exception):
            raise
        structlog.get_logger().critical("service failed", exc_info=True)
        return 1
    return 0


def check(service: str, settings: type[S], ask: Callable[[S], int]) -> int:
    """Return what ``ask`` returns for the settings; print one line and return 2 if they are wrong.

    For health checks, which are run with the environment of the service and no flags.
    """
    try:
        return ask(load(settings, service, []))
    except ServiceError as error:
        print(f"tetra-{service}: error: {error}", file=sys.stderr)
        return error.exit_code


async def _until_signal(main: Coroutine[Any, Any, None]) -> None:
    task = asyncio.ensure_future(main)
    signalled = False

    def stop() -> None:
        nonlocal signalled
        if not signalled:  # a second Ctrl-C must not interrupt the drain
            signalled = True
            task.cancel()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    try:
        await task
    except asyncio.CancelledError:
        if not signalled:
            raise
    finally:
        signals.ignore(loop)


# A TaskGroup wraps what its tasks raise.
def _find_service_error(error: BaseException) -> ServiceError | None:
    if isinstance(error, ServiceError):
        return error
    if isinstance(error, BaseExceptionGroup):
        return next(filter(None, map(_find_service_error, error.exceptions)), None)
    return None
