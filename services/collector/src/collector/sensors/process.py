"""The life of processes: exec, fork, exit."""

from __future__ import annotations

from collector.events import process as events
from collector.events.encoder import Encoder
from collector.metadata.enricher import Enricher
from collector.processes.table import KERNEL_KEY, Process, ProcessTable, forked_from
from collector.records import process as records
from collector.records.layouts import ExecRecord, ExitRecord, ForkRecord
from collector.records.process import FLAG_IN_INIT_TREE, ExecDecoder
from collector.sensors.base import Moment, RecordKind, Sensor

# enum loss of bpf/lib/values.h
LOST_EXEC, LOST_FORK, LOST_EXIT, LOST_DATA, LOST_PROCESS = range(5)


class ProcessSensor:
    """Follows processes in the table and makes their events."""

    def __init__(self, table: ProcessTable, enricher: Enricher, encoder: Encoder) -> None:
        self.table = table
        self.enricher = enricher
        self.encoder = encoder
        self._decoder = ExecDecoder()

    def sensor(self) -> Sensor:
        """Return the sensor that this is."""
        return Sensor(
            name="process",
            kinds=(
                RecordKind(
                    records.EXEC, "exec", self._decoder.decode, self._exec,
                    ready=self.enricher.ready, event="PROCESS_EXEC", operation="5",
                ),
                RecordKind(records.FORK, "fork", records.decode_fork, self._fork, operation="23"),
                RecordKind(
                    records.EXIT, "exit", records.decode_exit, self._exit,
                    event="PROCESS_EXIT", operation="7",
                ),
                RecordKind(records.DATA, "data", self._decoder.add_piece, _no_event),
                RecordKind(records.RETIRE, "retire", records.decode_exit, self._retire),
            ),
            losses={
                "kernel_exec": (LOST_EXEC, LOST_DATA),
                "kernel_fork": (LOST_FORK,),
                "kernel_exit": (LOST_EXIT,),
                "kernel_map": (LOST_PROCESS,),
            },
            unfinished=lambda: self._decoder.unfinished,
        )  # fmt: skip

    def _exec(self, record: ExecRecord, moment: Moment) -> bytes:
        image, flags = self.enricher.from_record(record)
        parent = self._parent(record.parent_pid, record.parent_ktime_ns)
        process = Process(  # by position: a call with this many names costs twice as much
            record.pid,
            record.ktime_ns,
            parent.key if parent else (record.parent_pid, record.parent_ktime_ns),
            flags,
            record.ktime_ns + moment.offset_ns,
            bool(flags & FLAG_IN_INIT_TREE),
            image,
            record.start_boottime_ns,
            record.nspid if image.docker else 0,
        )
        properties = b""
        if self.enricher.credentials and (record.secureexec or record.nlink == 0):
            properties = events.binary_properties(record)
        ancestors = self.table.reported_ancestors(process)
        event = events.exec_event(self.encoder, process, parent, ancestors, properties)
        self.table.exec(process, record.replaced_ktime_ns, moment.now_s)
        return event

    def _fork(self, record: ForkRecord, moment: Moment) -> None:
        parent = self._parent(record.parent_pid, record.parent_ktime_ns)
        if parent is None:
            return  # its record was lost and counted: the exit event will lack details
        child = forked_from(
            parent,
            pid=record.pid,
            ktime_ns=record.ktime_ns,
            flags=record.flags,
            start_time_ns=record.ktime_ns + moment.offset_ns,
            start_boottime_ns=record.start_boottime_ns,
            nspid=record.nspid,
        )
        self.table.fork(child, moment.now_s)

    def _exit(self, record: ExitRecord, moment: Moment) -> bytes:
        key = (record.pid, record.image_ktime_ns)
        process = self.table.get(key)
        parent = self.table.parent_of(process) if process else None
        ancestors = self.table.reported_ancestors(process) if process else ()
        event = events.exit_event(
            self.encoder, record, moment.offset_ns, process, parent, ancestors
        )
        self.table.exit(key, moment.now_s)
        return event

    def _retire(self, record: ExitRecord, moment: Moment) -> None:
        """End an image whose exit was withheld."""
        self.table.exit((record.pid, record.image_ktime_ns), moment.now_s)

    def _parent(self, pid: int, ktime_ns: int) -> Process | None:
        """Return the image with this key; if the kernel did not know it, the current one."""
        if pid == 0:
            return self.table.get(KERNEL_KEY)
        return self.table.get((pid, ktime_ns)) if ktime_ns else self.table.living(pid)


def _no_event(_record: object, _moment: Moment) -> None:
    """Handle nothing: a piece belongs to a later record."""
