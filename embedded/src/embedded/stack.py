"""The children: NATS, gateway, collector, client, maybe the exporter.

They are started, supervised and stopped in order.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from chassis.folders import write_own
from chassis.scheduling import NATS_TIMER_SLACK_NS, timer_slack
from embedded import nats_server, room
from embedded.child import Child
from embedded.health import free_port
from embedded.settings import Settings
from embedded.supervisor import Service, Supervisor

_READY_WITHIN_S = 60.0
_COMPILED_WITHIN_S = 180.0  # the collector compiles the probes, maybe on an emulated machine
_BIN = Path(sys.executable).parent
COLLECTOR = _BIN / "tetra-collector"
_CLIENT_STARTS_S = 0.1
COLUMNS = "columns"  # folder


class Stack:
    """The children and their settings."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._folder = settings.state_dir
        health = {name: free_port() for name in ("nats", "gateway", "exporter", "collector")}
        stream_bytes, self._limited = room.fit_stream(self._folder, os.environ)
        config, password_file = nats_server.write_config(
            self._folder, settings.nats_port, health["nats"]
        )
        self._env = _environment(settings, password_file, stream_bytes)
        self.exporter = self._exporter(stream_bytes) if settings.columns else None
        self._health = health
        # Together the limits for stopping are less than two seconds.
        self.nats = Child("nats", (_BIN / "nats-server", "-c", config), stop_within_s=0.3)
        self.gateway = Child("gateway", (_BIN / "tetra-gateway",), stop_within_s=0.4)
        self.collector = Child("collector", (COLLECTOR,), stop_within_s=0.8)
        self.cli = Child("tetra", (_BIN / "tetra", "getevents", "--reconnect"), stop_within_s=0.3)
        exporter = (self.exporter,) if self.exporter else ()
        self._children = (self.nats, self.gateway, *exporter, self.collector, self.cli)
        self._ready = {
            self.nats: ("Server is ready", _READY_WITHIN_S),
            self.gateway: ('"event": "serving"', _READY_WITHIN_S),
            self.collector: ('"event": "ready"', _COMPILED_WITHIN_S),
        }
        if self.exporter:
            self._ready[self.exporter] = ('"event": "ready"', _READY_WITHIN_S)

    def _exporter(self, stream_bytes: int) -> Child:
        sink = {
            "name": "columns",
            "type": "columns",
            "folder": str(self._folder / COLUMNS),
            "max_size": stream_bytes // 2,
        }
        sinks = self._folder / "sinks.yaml"  # JSON is YAML
        write_own(sinks, json.dumps({"sinks": [sink]}, indent=2))
        # It may be killed: it reads unfinished events again.
        command = (_BIN / "tetra-exporter", "--sinks-file", sinks)
        return Child("exporter", command, stop_within_s=0.1)

    async def start(self) -> None:
        """Start all children; raise `EmbeddedError` if one does not become ready."""
        if self._limited:
            print(f"{'disk':<10} {self._limited}", flush=True)
        await self._show_start(self.nats, f"127.0.0.1:{self._settings.nats_port}")
        # The collector keeps its events until the gateway has made the stream.
        collector = asyncio.create_task(self._timed_start(self.collector))
        try:
            await self._show_start(self.gateway, self._settings.listen_address)
            if self.exporter:
                await self._show_start(self.exporter, f"columns in {self._folder / COLUMNS}")
            ready = await self._show_start(self.collector, "probes of this kernel", collector)
        finally:
            collector.cancel()
            await asyncio.wait((collector,))
        # Every event after the banner is printed, even if the client connects later; the start of
        # the client itself is not.
        since = time.time() + _CLIENT_STARTS_S
        self.cli.add_arguments("--since", f"@{since:.6f}")
        await self.cli.start(self._env)
        await asyncio.sleep(since - time.time())
        # The collector reports the node name that it publishes events under.
        print(_banner(json.loads(ready), self._settings), flush=True)

    async def _show_start(
        self, child: Child, what: str, start: asyncio.Task[tuple[str, float]] | None = None
    ) -> str:
        print(f"{child.name:<10} {what} ", end="", flush=True)
        try:
            line, took_s = await (start or self._timed_start(child))
        except BaseException:
            print(flush=True)
            raise
        print(f"ready ({took_s:.1f} s)", flush=True)
        return line

    async def _timed_start(self, child: Child) -> tuple[str, float]:
        began = time.monotonic()
        line = await self._start(child)
        return line, time.monotonic() - began

    async def _start(self, child: Child) -> str:
        """Start a service; return the line that reports it ready."""
        env = dict(self._env)
        log = self._folder / f"{child.name}.log"
        if child is self.nats:
            with timer_slack(NATS_TIMER_SLACK_NS):
                await child.start(env, log)
        else:
            env["TETRA_METRICS_ADDRESS"] = f"127.0.0.1:{self._health[child.name]}"
            if child is self.exporter:
                env["TETRA_STATE_DIR"] = str(self._folder / "exporter")
            await child.start(env, log)
        phrase, within_s = self._ready[child]
        return await child.wait_for_line(phrase, within_s)

    async def wait(self) -> None:
        """Return when the client ends with 0; raise `ChildError` when another child gives up."""
        services = [child for child in self._children if child is not self.cli]
        supervisor = Supervisor(
            [Service(child, self._health[child.name], "/healthz") for child in services],
            self._start_again,
            lambda: room.free_bytes(room.stream_folder(self._folder)),
            lambda text: print(f"tetra-embedded: {text}", file=sys.stderr, flush=True),
        )
        watch = asyncio.create_task(supervisor.run())
        end = asyncio.create_task(self.cli.wait())
        try:
            await asyncio.wait((watch, end), return_when=asyncio.FIRST_COMPLETED)
            if watch.done():
                watch.result()
            if end.result() != 0:
                raise self.cli.death()
        finally:
            end.cancel()
            watch.cancel()
            await asyncio.wait((watch, end))

    async def _start_again(self, child: Child) -> None:
        await self._start(child)

    async def stop(self) -> None:
        """Stop the children that run, in the order that loses no event."""
        for child in reversed(self._children):
            await child.stop()


def _environment(settings: Settings, password_file: Path, stream_bytes: int) -> Mapping[str, str]:
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
        **_policies(settings),
        # Those of an earlier start are used also where none are written now.
        "TETRA_COLUMNS_DIR": str(settings.state_dir / COLUMNS),
        room.SETTING: str(stream_bytes),
    }


def _policies(settings: Settings) -> dict[str, str]:
    given = {
        "TETRA_TRACING_POLICY": settings.tracing_policy,
        "TETRA_TRACING_POLICY_DIR": settings.tracing_policy_dir,
    }
    paths = {name: str(path) for name, path in given.items() if path}
    return paths | {"TETRA_POLICIES": settings.policies}


def _banner(ready: Mapping[str, str], settings: Settings) -> str:
    node = ready.get("node", platform.node())
    kernel = ready.get("kernel", platform.release())
    tetra = _BIN / "tetra"
    if tetra.is_relative_to(Path.cwd()):
        tetra = tetra.relative_to(Path.cwd())
    return f"""
Tetragon-mini watches node {node} (Linux {kernel})
  gateway   {settings.listen_address}; in another terminal: {tetra} getevents
  state     {settings.state_dir} (events, logs)
  stop      Ctrl-C
"""


def farewell(settings: Settings) -> str:
    """Return the text that is printed after all children have stopped."""
    return f"""
Stopped
  gateway   was on {settings.listen_address}
  state     {settings.state_dir} (events, logs); the next start continues with it
"""
