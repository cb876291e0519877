"""From an exec record or /proc to an `Image` with the names of users and containers."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from collector.metadata import logins
from collector.metadata.cgroups import HOST, Cgroups, Place
from collector.metadata.containers import Containers, NoContainers
from collector.metadata.redaction import Redactor
from collector.metadata.users import Users
from collector.processes.procfs import NO_LOGIN_UID, ProcfsProcess
from collector.processes.table import Image
from collector.records import text
from collector.records.layouts import ExecRecord, Namespaces
from collector.records.process import (
    FLAG_ERROR_CWD,
    FLAG_IN_INIT_TREE,
    FLAG_NO_CWD,
    FLAG_PROCFS,
    FLAG_ROOT_CWD,
)

_EMPTY: frozenset[str] = frozenset()


@dataclass(slots=True)
class Enricher:
    """Builds images; which optional parts they have is fixed at construction."""

    host_namespaces: Namespaces  # pid 1's
    users: Users = field(default_factory=Users)
    redactor: Redactor = field(default_factory=Redactor)
    containers: Containers = field(default_factory=NoContainers)
    procfs: Path = Path("/proc")
    credentials: bool = False
    namespaces: bool = False
    environment: bool = False
    environment_names: frozenset[str] = _EMPTY
    show_user: bool = False
    argv: bool = False
    _cgroups: Cgroups = field(init=False)
    _placed: tuple[ExecRecord | None, Place] = (None, HOST)  # the last record, and its place

    def __post_init__(self) -> None:
        self._cgroups = Cgroups(self.procfs, self.users)

    def ready(self, record: ExecRecord) -> bool:
        """Return True if the container of an exec is known, or need not be waited for."""
        place = self._place(record)
        full_id = place.container_id
        return not full_id or place.is_monitor or self.containers.settled(full_id[:64])

    def from_record(self, record: ExecRecord) -> tuple[Image, int]:
        """Return the image of an exec and its flags."""
        args = text.skip_argv0(record.args)
        flags = record.flags | text.size_flags(record.filename, args)
        arguments, cwd = text.arguments(args, record.cwd, flags)
        image = Image(
            binary=text.binary(record.filename, cwd),
            arguments=arguments,
            cwd=cwd,
            uid=record.euid,
            auid=record.auid,
            arg_start=record.arg_start,
        )
        self._add_place(image, self._place(record), record.sessionid)
        self._add_user(image, record.ns_user, record.ns_mnt)
        if self.credentials:
            image.credentials = record.credentials
        if self.namespaces:
            image.namespaces = record.namespaces
        self._add_texts(image, record.args, record.envs)
        return image, flags

    def from_procfs(self, found: ProcfsProcess, *, in_init_tree: bool) -> tuple[Image, int]:
        """Return the image of a process found in /proc, and its flags."""
        flags = FLAG_PROCFS | (FLAG_IN_INIT_TREE if in_init_tree else 0)
        if not found.cmdline:  # a kernel thread or a zombie
            return Image(f"[{found.comm}]", auid=found.auid, arg_start=found.arg_start), FLAG_PROCFS
        if found.cwd is None:
            flags |= FLAG_ROOT_CWD | FLAG_ERROR_CWD
        elif found.cwd == b"/":
            flags |= FLAG_ROOT_CWD
        args = text.skip_argv0(found.cmdline)
        arguments, cwd = text.arguments(args, found.cwd or b"", flags & ~FLAG_NO_CWD)
        image = Image(
            binary=text.utf8(found.exe) or f"[{found.comm}]",
            arguments=arguments,
            cwd=cwd,
            uid=found.euid,
            auid=found.auid,
            arg_start=found.arg_start,
        )
        self._add_place(image, self._cgroups.of_procfs(found.cgroup), found.sessionid)
        self._add_user(image, found.namespaces.user, found.namespaces.mnt)
        if self.credentials:
            image.credentials = found.credentials
        if self.namespaces:
            image.namespaces = found.namespaces
        self._add_texts(image, found.cmdline, found.environ)
        return image, flags

    def _place(self, record: ExecRecord) -> Place:
        """Return the place of a record, the same for each question about it."""
        placed, place = self._placed
        if placed is not record:
            place = self._cgroups.of_record(
                record.cgroup_id, text.utf8(record.cgroup), record.pid, record.parent_pid
            )
            self._placed = record, place
        return place

    def _add_place(self, image: Image, place: Place, sessionid: int) -> None:
        image.unit = place.unit
        if not place.container_id and sessionid != NO_LOGIN_UID:
            image.unit = logins.in_session(place.unit, image.auid, sessionid, self.users)
        if place.container_id:
            image.docker = place.container_id[:31]
            if not place.is_monitor:
                image.container = self.containers.get(place.container_id[:64])

    def _add_user(self, image: Image, user_namespace: int, mount_namespace: int) -> None:
        # The host's passwd file does not apply to a process that has another one. Tetragon omits
        # the name in every other mount namespace, this collector only inside a container.
        if user_namespace != self.host_namespaces.user:
            return
        same_files = mount_namespace == self.host_namespaces.mnt
        if same_files or not image.docker:
            image.user = self.users.name(image.uid)
        image.show_user = self.show_user and same_files and bool(image.user)

    def _add_texts(self, image: Image, args: bytes, envs: bytes) -> None:
        argv = args.removesuffix(b"\0").split(b"\0") if self.argv and args else []
        if self.redactor:
            argv = self._redact(image, argv)
        image.argv = tuple(argv)
        if self.environment and envs:
            image.environment = self._variables(image.binary, envs)

    def _redact(self, image: Image, argv: list[bytes]) -> list[bytes]:
        """Redact ``image.arguments`` and return ``argv`` redacted.

        A secret may match only in the joined text ("--password hush"). Where the list would show
        what the text hides, the list is empty.
        """
        plain = image.arguments
        (image.arguments,) = self.redactor.redact(image.binary, [plain])
        texts = [text.utf8(a) for a in argv]
        redacted = self.redactor.redact(image.binary, texts)
        if (
            image.arguments != plain
            and text.join(redacted[1:]).rstrip() != image.arguments.rstrip()
        ):
            return []
        return [
            exact if new == old else new.encode()
            for exact, old, new in zip(argv, texts, redacted, strict=True)
        ]

    def _variables(self, binary: str, envs: bytes) -> tuple[tuple[str, str], ...]:
        entries = [text.utf8(entry) for entry in envs.removesuffix(b"\0").split(b"\0")]
        if self.environment_names:
            entries = [e for e in entries if e.partition("=")[0] in self.environment_names]
        if self.redactor:
            entries = self.redactor.redact(binary, entries)
        pairs = (entry.partition("=") for entry in entries)
        return tuple((key, value) if sep else ("invalid", key) for key, sep, value in pairs)
