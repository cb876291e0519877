"""From a plan to the C text of its programs, filters first, arguments when they are first needed.

`translate` is a pure function: the same plan on the same kernel gives the same text, whose digest
is the key of the compiled object. What is known only when the policy is loaded (numbers of policy
and hook) is left open, see `policies.numbers`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from collector.bpf.btf import Btf
from collector.bpf.rate import Rate
from collector.policies.arguments.base import Unit
from collector.policies.counters import Counters
from collector.policies.ctext import comment
from collector.policies.headers import expanded
from collector.policies.host import host_namespaces
from collector.policies.images import FUNCTIONS
from collector.policies.maps import SPARED, MapNumbers
from collector.policies.offsets import definitions
from collector.policies.plan import Mechanism, OverrideBy, Plan, PlannedHook, Target
from collector.policies.program import HookText
from collector.policies.program_enforcers import enforcer_text
from collector.policies.sources import Frame
from collector.policies.translation import DirectReads, Generated, Text, Translation
from tracingpolicy.model import OWN_API
from tracingpolicy.values import Namespace


@dataclass(frozen=True, slots=True)
class Kernel:
    """What the text depends on beside the plan."""

    btf: Btf
    cpus: int  # possible ones
    folder: Path  # bpf/
    direct: DirectReads | None = None  # None: kernel memory is read by helpers
    host_namespaces: Mapping[Namespace, int] = field(default_factory=host_namespaces)
    throttle: Rate | None = None
    cgroup_subsys: int | None = None  # of the hierarchy of cgroup v1 that has the containers


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
    headers = expanded(sorted(unit.headers), body, kernel.folder)
    constants = f"{counters.definitions()}\n"
    if plan.policy.api_version == OWN_API:
        constants += "#define OWN_API\n"
    constants += _constants(unit.maps, headers + body, kernel)
    shown = "".join(f'#include "{name}"\n' for name in sorted(unit.headers))
    return Translation(
        constants + headers + body, constants + shown + "\n" + body, tuple(programs),
        unit.maps.names(), tuple(unit.maps.own), counters,
        tuple(unit.lists), tuple(unit.groups), images_text(kernel) if unit.images else None,
        SPARED in unit.maps.names(), tuple(starts), kernel.direct,
    )  # fmt: skip


def images_text(kernel: Kernel) -> Text:
    """Return the programs of images.h: the same for all policies, so they are compiled once."""
    numbers = MapNumbers()
    numbers.images()
    headers = expanded(["images.h"], "", kernel.folder)
    return Text(_constants(numbers, headers, kernel) + headers, FUNCTIONS, numbers.names())


def _constants(numbers: MapNumbers, text: str, kernel: Kernel) -> str:
    constants = f"{numbers.definitions()}\n{definitions(text, kernel.btf)}\n"
    if kernel.throttle is not None:
        constants += kernel.throttle.definitions()
        if kernel.cgroup_subsys is not None:
            constants += f"#define CGROUP_SUBSYS {kernel.cgroup_subsys}\n"
    if kernel.direct is not None:
        constants += kernel.direct.definitions()
    return constants


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
                every_syscall=is_every_syscall(mechanism, first),
            )  # fmt: skip
            function = name + suffix
            generated = Generated(
                function, mechanism, tuple(t for _, t in group), tuple(i for i, _ in group),
                by_cookie=frame.by_cookie, sleepable=hook.sleepable,
                gate=None if frame.at_return else gate_of(hook.override),
                every_syscall=frame.every_syscall,
            )  # fmt: skip
            found.append((generated, text.function(function, frame)))
    return found


def is_every_syscall(mechanism: Mechanism, target: Target) -> bool:
    """Return whether a hook is the raw tracepoint that the dispatcher is attached to.

    A second program at a tracepoint costs as much again; behind the dispatcher it costs a jump.
    """
    return mechanism is Mechanism.RAW_TRACEPOINT and target.attach == "sys_enter"


def gate_of(override: OverrideBy | None) -> OverrideBy | None:
    """Return the kind of gate that an override needs; None if it needs none."""
    return override if override in (OverrideBy.FMOD_RET, OverrideBy.LSM) else None


def _groups(hook: PlannedHook, targets: list[tuple[int, Target]]) -> list[list[tuple[int, Target]]]:
    """Return the targets that one function can serve: same arguments, same calling convention."""
    groups: dict[object, list[tuple[int, Target]]] = {}
    for index, target in targets:
        compat = target.syscall is not None and target.syscall.compat
        parameters = target.parameters if Mechanism.FEXIT in (hook.entry, hook.exit) else 0
        groups.setdefault((target.args, compat, parameters), []).append((index, target))
    return list(groups.values())


def _title(plan: Plan) -> str:
    return comment(f"policy {plan.policy.name}")
