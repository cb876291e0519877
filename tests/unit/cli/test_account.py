"""The account of a stream: what is missing, and what was withheld."""

import base64

from cli.account import Book
from cli.commands.verify import _text
from cli.resume import Batch
from tetra.v1.node_pb2 import LossCounters
from tetra.v1.stream_pb2 import LossNotice
from tetragon.events_pb2 import GetEventsResponse


def noticed(**counters):
    return Batch((), None, [LossNotice(node_name="n", lost=LossCounters(**counters))])


def test_withheld_events_are_listed_and_not_missing():
    book = Book()
    book.enter(noticed(withheld={"exec": 2, "policy:p": 5}))
    book.enter(noticed(withheld={"exec": 1}))
    assert book.is_complete
    assert book.lines() == ["withheld: node n: 3 exec, 5 of policy p, by throttling"]
    assert _text(book).endswith("complete: 0 events of 1 node, 0 gaps, 8 withheld\n")


def test_lost_events_beside_withheld_ones_are_missing():
    book = Book()
    book.enter(noticed(by_cause={"spool": 4}, withheld={"exit": 1}))
    assert not book.is_complete
    assert book.accounts["n"].lost == 4
    assert book.withheld == 1


def test_process_of_the_kernel_has_the_same_id_on_every_boot():
    def execs(key):
        event = GetEventsResponse(node_name="n")
        event.process_exec.process.exec_id = base64.b64encode(key).decode()
        return Batch((event, event), None)

    book = Book()
    book.enter(execs(b"n:1:0"))
    assert book.is_complete
    book.enter(execs(b"n:1:10"))
    assert book.accounts["n"].duplicates == 1
