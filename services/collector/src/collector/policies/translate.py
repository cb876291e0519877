"""From a plan to the C text of its programs, filters first, arguments when they are first needed.

`translate` is a pure function: the same plan on the same kernel gives the same text, whose digest
is the key of the compiled object. What is known only when the policy is loaded (numbers of policy
and hook) is left open, see `policies.numbers`.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from collector.bpf.btf import Btf
from collector.bpf.rate import Rate
from collector.policies.arguments.base import Unit
from collector.policies.counters import Counters
from collector.policies.ctext import comment
from collector.policies.direct_reads import DirectReads
from collector.policies.groups import Group
from collector.policies.images import FUNCTIONS, BinaryList
from collector.policies.maps import SPARED, MapNumbers, OwnMap
from collector.policies.offsets import definitions
from collector.policies.plan import Mechanism, OverrideBy, Plan, PlannedHook, Target
from collector.policies.program import HookText
from collector.policies.program_enforcers import enforcer_text
from collector.policies.sources import Frame
from tracingpolicy.model import OWN_API
from tracingpolicy.values import Namespace

_INCLUDE = re.compile(r'^#include "([\w.]+)"\n', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Kernel:
    """What the text depends on beside the plan."""

    btf: Btf
    cpus: int  # possible ones
    folder: Path  # bpf/
    direct: DirectReads | None = None  # None: kernel memory is read by helpers
    host_namespaces: Mapping[Namespace, int] = field(default_factory=lambda: host_namespaces())
    throttle: Rate | None = None
    cgroup_subsys: int | None = None  # of the hierarchy of cgroup v1 that has the containers


def host_namespaces(procfs: Path = Path("/proc")) -> dict[Namespace, int]:
    """Return the inode numbers of the first process's namespaces, what ``host_ns`` means.

    Where that process may not be looked at: those of the collector.
    """
    found = {}
    for namespace in Namespace:
        name = "".join(f"_{c.lower()}" if c.isupper() else c for c in namespace.value).lstrip("_")
        for process in ("self", "1"):
            with contextlib.suppress(OSError):  # not allowed, or a kernel without it
                found[namespace] = (procfs / process / "ns" / name).stat().st_ino
    return found


@dataclass(frozen=True, slots=True)
class Generated:
    """A function of the text, and what it is attached to.

    ``hooks`` are indexes of hooks in the record, one for each target. Where ``by_cookie``, one
    program serves all targets and the index is the attach cookie; else each target has a program
    with its own number.
    """

    function: str
    mechanism: Mechanism
    targets: tuple[Target, ...]
    hooks: tuple[int, ...]
    by_cookie: bool = False
    sleepable: bool = False
    gate: OverrideBy | None = None  # what has to stand behind it at each target


@dataclass(frozen=True, slots=True)
class Translation:
    """The C text of a policy."""

    text: str  # what the compiler gets
    shown: str  # without the headers: what a user reads
    programs: tuple[Generated, ...]
    maps: tuple[str, ...]  # names in the order of their numbers, the shared ones first
    own: tuple[OwnMap, ...]
    counters: Counters
    lists: tuple[BinaryList, ...]
    groups: tuple[Group, ...]
    images: bool  # the text has the programs of images.h
    acting: bool  # it uses the maps of `enforcement.Enforcement`
    selectors: tuple[int, ...]  # of each planned hook: the number of its first selector

    @property
    def functions(self) -> tuple[str, ...]:
        """The functions to compile."""
        return (*(one.function for one in self.programs), *(FUNCTIONS if self.images else ()))


def translate(plan: Plan, kernel: Kernel) -> Translation:
    """Return the programs of ``plan`` as C; raise `BtfError` if this kernel lacks a member."""
    unit = Unit(MapNumbers(), {"record.h", "context.h"}, [], kernel.host_namespaces)
    unit.throttled = kernel.throttle is not None
    programs: list[Generated] = []
    functions: list[str] = []
    first_hook, first_counter, starts = 0, 0, []
    for number, hook in enumerate(plan.hooks):
        for generated, text in _functions(plan, hook, number, first_hook, first_counter, unit):
            programs.append(generated)
            functions.append(text)
        starts.append(first_counter)
        first_hook += len(hook.targets)
        first_counter += max(1, len(hook.hook.selectors))
    for number, enforcer in enumerate(plan.enforcers):
        name = f"enforcer{number}"
        functions.append(enforcer_text(name, enforcer, unit))
        hooks = (0,) * len(enforcer.targets)  # their programs make no records
        programs.append(
            Generated(
                name, enforcer.entry, enforcer.targets, hooks, gate=gate_of(enforcer.override)
            )
        )
    body = "\n\n".join([_title(plan), *unit.functions, *functions]) + "\n"
    counters = Counters.of(first_counter, kernel.cpus)
    unit.maps.add("MAP_COUNTERS", counters.spec())
    headers = _expanded(sorted(unit.headers), kernel.folder)
    constants = f"{counters.definitions()}\n{unit.maps.definitions()}\n"
    if plan.policy.api_version == OWN_API:
        constants += "#define OWN_API\n"
    constants += definitions(headers + body, kernel.btf) + "\n"
    if kernel.throttle is not None:
        constants += kernel.throttle.definitions()
        if kernel.cgroup_subsys is not None:
            constants += f"#define CGROUP_SUBSYS {kernel.cgroup_subsys}\n"
    if kernel.direct is not None:
        constants += kernel.direct.definitions()
    shown = "".join(f'#include "{name}"\n' for name in sorted(unit.headers))
    return Translation(
        constants + headers + body, constants + shown + "\n" + body, tuple(programs),
        unit.maps.names(), tuple(unit.maps.own), counters,
        tuple(unit.lists), tuple(unit.groups), unit.images,
        SPARED in unit.maps.names(), tuple(starts),
    )  # fmt: skip


def _functions(
    plan: Plan, hook: PlannedHook, number: int, first_hook: int, first_counter: int, unit: Unit
) -> list[tuple[Generated, str]]:
    """Return the programs of one planned hook: entry, and exit where it has one."""
    found: list[tuple[Generated, str]] = []
    targets = list(enumerate(hook.targets, first_hook))
    for variant, group in enumerate(_groups(hook, targets)):
        first = group[0][1]
        name = f"hook{number}" + (f"_{variant}" if variant else "")
        text = HookText(plan, hook, first, first_counter, unit)
        for mechanism, suffix in ((hook.entry, ""), (hook.exit, "_return")):
            if mechanism is None:
                continue
            frame = Frame(
                mechanism, first.parameters, first.syscall is not None,
                first.syscall is not None and first.syscall.compat,
            )  # fmt: skip
            function = name + suffix
            generated = Generated(
                function, mechanism, tuple(t for _, t in group), tuple(i for i, _ in group),
                by_cookie=frame.by_cookie, sleepable=hook.sleepable,
                gate=None if frame.at_return else gate_of(hook.override),
            )  # fmt: skip
            found.append((generated, text.function(function, frame)))
    return found


def gate_of(override: OverrideBy | None) -> OverrideBy | None:
    """Return the kind of gate that an override needs; None if it needs none."""
    return override if override in (OverrideBy.FMOD_RET, OverrideBy.LSM) else None


def _groups(hook: PlannedHook, targets: list[tuple[int, Target]]) -> list[list[tuple[int, Target]]]:
    """Return the targets that one function can serve: same arguments, same calling convention."""
    groups: dict[object, list[tuple[int, Target]]] = {}
    for index, target in targets:
        compat = target.syscall is not None and target.syscall.compat
        parameters = target.parameters if hook.exit is Mechanism.FEXIT else 0
        groups.setdefault((target.args, compat, parameters), []).append((index, target))
    return list(groups.values())


def _title(plan: Plan) -> str:
    return comment(f"policy {plan.policy.name}")


def _expanded(names: list[str], folder: Path) -> str:
    """Return headers with the headers that they include, each once, behind #line."""
    done: set[str] = set()

    def expand(name: str) -> str:
        if name in done:
            return ""
        done.add(name)
        path = next(p for p in (folder / "tracing" / name, folder / "lib" / name) if p.exists())
        text = path.read_text().replace("#pragma once\n", "")
        inner = "".join(expand(one) for one in _INCLUDE.findall(text))
        return f'{inner}#line 1 "{path.parent.name}/{name}"\n{_INCLUDE.sub(chr(10), text)}\n'

    return "".join(expand(name) for name in names) + '#line 1 "policy.c"\n'
