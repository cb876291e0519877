"""From a compiled object to attached programs.

`load_object` creates the object's maps, except those that are shared with programs loaded before,
writes the descriptors into the bytecode and loads it. Nothing runs until `Loaded.attach`. `Loaded`
owns what it created: programs, own maps, links; shared maps belong to the caller.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from struct import Struct

from collector.bpf import links, maps, programs
from collector.bpf.bytecode import Object, ProgramCode, relocate
from collector.bpf.links import Link
from collector.bpf.maps import BpfMap
from collector.bpf.programs import Kind, Program, ProgramSpec

_U32 = Struct("<I")
# Attached by the caller, which knows file and offset, or called by other programs.
_NOT_BY_NAME = frozenset(
    {Kind.UPROBE, Kind.URETPROBE, Kind.UPROBE_MULTI, Kind.URETPROBE_MULTI, Kind.TAIL_CALL}
)


@dataclass(slots=True)
class Loaded:
    """Programs in the kernel, with their own maps and links."""

    programs: dict[str, Program] = field(default_factory=dict)
    maps: dict[str, BpfMap] = field(default_factory=dict)  # those that it created
    links: dict[str, Link] = field(default_factory=dict)  # by program
    _targets: dict[str, str] = field(default_factory=dict)

    def attach(self) -> None:
        """Attach every program that has a kernel target, in order; raise `AttachError`.

        After an error the programs before it remain attached: `close` detaches them.
        """
        for name, target in self._targets.items():
            if name not in self.links:
                self.links[name] = links.attach(self.programs[name], target)

    def detach(self) -> None:
        """Close the links; blocks for up to 130 ms a hook."""
        for link in self.links.values():
            link.close()
        self.links = {}

    def close(self) -> None:
        """Detach, then close programs and own maps; a second call does nothing."""
        self.detach()
        for program in self.programs.values():
            program.close()
        for own in self.maps.values():
            own.close()
        self.programs, self.maps = {}, {}


def load_object(built: Object, shared: Mapping[str, int] | None = None) -> Loaded:
    """Return the loaded programs; ``shared``: descriptors of maps that exist, by name.

    Raises `ProbeError` (`VerifierError` for a program); then nothing of it is left.
    """
    loaded = Loaded()
    fds = dict(shared or {})
    try:
        for spec in built.maps:
            if spec.name not in fds:
                loaded.maps[spec.name] = created = maps.create(spec)
                fds[spec.name] = created.fd
        numbered = [fds[spec.name] for spec in built.maps]
        for code in built.programs:
            name = code.plan.name
            loaded.programs[name] = programs.load(_spec(code, numbered))
            if code.plan.kind not in _NOT_BY_NAME:
                loaded._targets[name] = code.plan.target
        for spec in built.maps:
            for slot, name in enumerate(spec.programs if spec.name in loaded.maps else ()):
                program = loaded.programs[name]
                loaded.maps[spec.name].update(_U32.pack(slot), _U32.pack(program.fd))
    except BaseException:
        loaded.close()
        raise
    return loaded


def _spec(code: ProgramCode, fds: list[int]) -> ProgramSpec:
    plan = code.plan
    return ProgramSpec(
        plan.name, plan.kind, relocate(code, fds), plan.attach_btf_id, sleepable=plan.sleepable
    )
