"""Any valid policy becomes C that compiles, and programs that this kernel's verifier accepts."""

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, note, settings

from collector.bpf import maps, programs
from collector.bpf.bytecode import ProgramCode, ProgramPlan, relocate, relocations
from collector.bpf.programs import Kind, ProgramSpec
from collector.policies.check import Host
from collector.policies.install import KINDS
from collector.policies.maps import image_specs
from collector.policies.numbers import GROUP, LIST, bind
from collector.policies.plan import Mechanism, Plan
from collector.policies.plan_policy import check_document
from collector.policies.translate import translate
from support.policies import btf, kernel
from support.random_policies import documents, text_of
from tracingpolicy import PolicyErrors

pytestmark = pytest.mark.kernel

# Loading is what the verifier sees: a kernel without kprobes loads such programs all the same, as
# uprobes have the same type; the context of an LSM program is that of a raw tracepoint.
_LOADABLE = {
    Mechanism.KPROBE, Mechanism.KRETPROBE, Mechanism.SYS_ENTER, Mechanism.SYS_EXIT,
    Mechanism.RAW_TRACEPOINT, Mechanism.UPROBE, Mechanism.URETPROBE, Mechanism.LSM,
}  # fmt: skip
_NUMBERS = dict.fromkeys((*range(5), *range(LIST, LIST + 64), *range(GROUP, GROUP + 64)), 1)


@pytest.fixture(scope="module")
def everything() -> Host:
    """This kernel, as if it could do all that its verifier can judge."""
    return Host(btf(), lambda mechanism, _: "" if mechanism in _LOADABLE else "not here")


def loadable(plan: Plan) -> Plan:
    hooks = tuple(
        replace(hook, entry=Mechanism.RAW_TRACEPOINT, sleepable=False)
        if hook.entry is Mechanism.LSM
        else hook
        for hook in plan.hooks
    )
    return replace(plan, hooks=hooks)


def _about_this_kernel(mistake: str) -> bool:
    """Whether a function or hook is missing here: the document may be right elsewhere."""
    return any(words in mistake for words in ("no function", "not found", "no LSM", "cannot be"))


def verify(policies, plan: Plan) -> None:
    """Load every program of the plan and close it again."""
    translation = translate(plan, kernel())
    note(translation.shown)
    codes = policies.compile(translation)
    own = {one.spec.name: maps.create(one.spec) for one in translation.own}
    if translation.images:
        own |= {spec.name: maps.create(spec) for spec in image_specs()}
    policies.shared.provide(translation.maps)
    try:
        fds = policies.shared.fds | {name: one.fd for name, one in own.items()}
        kinds = {one.function: KINDS[one.mechanism] for one in translation.programs}
        for name, numbered in (
            (name, [fds[one] for one in text.maps])
            for text in translation.texts
            for name in text.functions
        ):
            kind = kinds.get(name, Kind.RAW_TRACEPOINT)
            code = ProgramCode(
                ProgramPlan(name, kind), codes[name], relocations(codes[name], len(numbered))
            )
            bound = bind(relocate(code, numbered), _NUMBERS)
            programs.load(ProgramSpec(name, kind, bound)).close()
    finally:
        for one in own.values():
            one.close()


@settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(document=documents(programs=False))
def test_any_valid_policy_loads(policies, everything, document):
    text = text_of(document)
    try:
        plan = check_document(text, "random.yaml", everything)
    except PolicyErrors as errors:
        missing = [str(one) for one in errors.mistakes if not _about_this_kernel(str(one))]
        if missing:
            raise
        return
    verify(policies, loadable(plan))
