"""Receivers over HTTP and standard output: gone or frozen, the exporter killed, nothing missing."""

import asyncio
import fcntl
import json
import os
import signal
import struct
import termios
import threading
from collections import Counter

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from support.exporter import Exporter, away_and_killed
from support.receivers import HttpReceiver, LogsService
from support.waiting import eventually

WAIT_S = 60


def documents(text):
    """Yield the JSON documents of a text, one behind the other."""
    decoder = json.JSONDecoder()
    while text:
        one, end = decoder.raw_decode(text)
        yield one
        text = text[end:]


def number(text):
    return json.loads(text)["process_exec"]["process"]["pid"]


def of_otlp(body):
    service = LogsService()
    service.keep(ExportLogsServiceRequest.FromString(body))
    return [text for _, _, text in service.records]


def of_loki(body):
    return [text for one in json.loads(body)["streams"] for _, text in one["values"]]


def of_splunk(body):
    return [json.dumps(one["event"]) for one in documents(body.decode())]


def of_array(body):
    return [json.dumps(one) for one in json.loads(body)]


def of_lines(body):
    return body.decode().splitlines()


READERS = {
    "/v1/logs": of_otlp,
    "/loki/api/v1/push": of_loki,
    "/services/collector/event": of_splunk,
    "/array": of_array,
    "/lines": of_lines,
}


class Receivers:
    """One that closes its port, one that accepts and never answers; each has all paths."""

    def __init__(self):
        self._thawed = threading.Event()
        self._lock = threading.Lock()
        self.numbers = {path: {} for path in READERS}  # of events, to the texts that they had
        self.gone = HttpReceiver(self._keep)
        self.frozen = HttpReceiver(self._keep_thawed)
        self._thawed.set()
        self.frozen.start()

    def _keep(self, path, body):
        texts = READERS[path](body)
        with self._lock:
            for text in texts:
                self.numbers[path].setdefault(number(text), set()).add(text)
        return 200, b"" if path == "/v1/logs" else b"{}"

    def _keep_thawed(self, path, body):
        self._thawed.wait(120)
        return self._keep(path, body)

    def start(self):
        self.gone.start()
        self._thawed.set()

    def stop(self):
        self.gone.stop()
        self._thawed.clear()

    def end(self):
        self._thawed.set()
        self.gone.stop()
        self.frozen.stop()

    def everywhere(self):
        """Return the numbers of the events that every sink has."""
        with self._lock:
            return set.intersection(*[set(one) for one in self.numbers.values()])


async def test_receivers_over_http_have_every_event(gateway, feeder, nats_server, tmp_path):
    receivers = Receivers()
    gone, frozen = receivers.gone.url, receivers.frozen.url
    common = {"start": "oldest", "max_batch": 50, "timeout": 1}
    sinks = [{"name": "otlp", "type": "otlp", "protocol": "http", "endpoint": frozen, **common}]
    for name, url in [("loki", gone), ("splunk-hec", frozen), ("json-array", f"{gone}/array"),
                      ("json-lines", f"{frozen}/lines")]:  # fmt: skip
        sinks.append({"name": name, "type": "http", "preset": name, "url": url, **common})
    exporter = Exporter(tmp_path, nats_server.url, *sinks)
    receivers.start()
    try:
        published = await away_and_killed(feeder, exporter, receivers, receivers.everywhere)
    finally:
        await exporter.stop()
        receivers.end()
    for path, texts in receivers.numbers.items():
        assert sorted(texts) == published, path
        assert {len(one) for one in texts.values()} == {1}, f"{path}: a repeat differs"


class Pipe:
    """The reader of an exporter's standard output; it can be frozen."""

    def __init__(self):
        self.lines = []
        self._partial = b""
        self._read, self.write = os.pipe()
        os.set_blocking(self._read, False)

    def start(self):
        asyncio.get_running_loop().add_reader(self._read, self._take)

    def stop(self):
        asyncio.get_running_loop().remove_reader(self._read)

    def full(self):
        """Return whether there is less room than one write of the exporter needs."""
        size = struct.unpack("i", fcntl.ioctl(self._read, termios.FIONREAD, b"\0" * 4))[0]
        return size > 60_000

    def _take(self):
        data = os.read(self._read, 1 << 20)
        if not data:
            self.stop()
            return
        *complete, self._partial = (self._partial + data).split(b"\n")
        self.lines += complete

    def close(self):
        self.stop()
        os.close(self._read)


async def test_reader_of_standard_output_has_every_event(gateway, feeder, nats_server, tmp_path):
    sink = {"name": "out", "type": "stdout", "start": "oldest"}
    exporter = Exporter(tmp_path, nats_server.url, sink)
    pipes = []

    async def start():
        pipes.append(Pipe())
        pipes[-1].start()
        await exporter.start(stdout=pipes[-1].write)
        os.close(pipes[-1].write)  # the exporter has it

    def found():
        return Counter(number(line) for pipe in pipes for line in pipe.lines)

    await start()
    try:
        published = await feeder.publish(300)
        await eventually(lambda: len(found()) == 300, WAIT_S)
        pipes[0].stop()
        published += await feeder.publish(600)  # more than a pipe holds
        await eventually(pipes[0].full, WAIT_S)
        assert len(found()) == 300
        await exporter.stop(signal.SIGKILL)  # while it waits for room
        pipes[0].start()
        await start()
        await eventually(lambda: len(found()) == len(published), WAIT_S)
        pipes[1].stop()
        published += await feeder.publish(600)
        await eventually(pipes[1].full, WAIT_S)
        assert await exporter.stop(signal.SIGTERM) == 0  # a frozen reader does not hold it up
        pipes[1].start()
        await start()
        published += await feeder.publish(100)
        await eventually(lambda: len(found()) == len(published), WAIT_S)
        pipes[2].close()  # the reader is gone: an error, and the supervisor starts it again
        published += await feeder.publish(50)
        assert exporter.process
        assert await asyncio.wait_for(exporter.process.wait(), WAIT_S) == 2
        assert "standard output: Broken pipe" in exporter.log.read_text()
        await start()
        await eventually(lambda: len(found()) == len(published), WAIT_S)
    finally:
        await exporter.stop()
        for one in pipes[:2] + pipes[3:]:
            one.close()
    assert sorted(found()) == published
