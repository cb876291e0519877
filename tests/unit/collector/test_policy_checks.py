"""Mistakes that only the kernel shows, each with its line and column, beside those of the text."""

import dataclasses
from pathlib import Path

import pytest

from collector.policies import check_supported
from collector.policies.plan import Mechanism
from collector.policies.plan_policy import check_document, plan_policy
from support.policy_kernel import host, write_tracefs
from tracingpolicy import PolicyErrors, parse
from tracingpolicy.selectors import Selector

# A case is a line "== TITLE", a document, a line "--" and the mistakes.
_TEXT = (Path(__file__).parent / "policy_mistakes.txt").read_text()


def cases():
    for case in _TEXT.removeprefix("== ").split("\n== "):
        title, _, rest = case.partition("\n")
        document, _, expected = rest.partition("\n--\n")
        yield pytest.param(document + "\n", expected.split("\n"), id=title)


def found_in(document, kernel):
    with pytest.raises(PolicyErrors) as caught:
        check_document(document, "p", kernel)
    return [str(one).removeprefix("p:") for one in caught.value.mistakes]


@pytest.fixture
def kernel(tmp_path):
    return host(write_tracefs(tmp_path / "tracefs"))


@pytest.mark.parametrize(("document", "expected"), list(cases()))
def test_mistakes(document, expected, kernel):
    assert found_in(document, kernel) == [line for line in expected if line]


def document(spec):
    return f"kind: TracingPolicy\nmetadata: {{name: p}}\nspec:\n{spec}"


def test_no_mechanism_is_a_mistake_that_names_all_reasons():
    reasons = {one: f"no {one.value}" for one in Mechanism}
    text = document("  kprobes: [{call: tcp_connect, syscall: false}, {call: sys_read}]\n")
    assert found_in(text, host(refused=reasons)) == [
        "4:13: spec.kprobes[0]: tcp_connect cannot be hooked here: fentry: no fentry; "
        "kprobe.multi: no kprobe.multi; kprobe: no kprobe",
        "4:50: spec.kprobes[1]: __x64_sys_read cannot be hooked here: fentry: no fentry; "
        "kprobe.multi: no kprobe.multi; kprobe: no kprobe; "
        "raw_tracepoint sys_enter: no raw_tracepoint sys_enter",
    ]


def test_argument_on_the_stack_needs_fentry():
    text = document(
        "  kprobes: [{call: many, syscall: false, args: [{index: 5, type: int}, "
        "{index: 6, type: int}]}]\n"
    )
    assert plan_policy(parse(text), host()).hooks[0].entry is Mechanism.FENTRY
    refused = {Mechanism.FENTRY: "no", Mechanism.KPROBE_MULTI: "no"}
    assert found_in(text, host(refused=refused)) == [
        "4:80: spec.kprobes[0].args[1].index: argument 6 is on the stack, which a kprobe cannot "
        "read (allowed: 0 to 5)"
    ]


def test_without_tracefs_a_tracepoint_suggests_an_alternative():
    text = document("  tracepoints: [{subsystem: sched, event: sched_switch}]\n")
    (found,) = found_in(text, host())
    assert "tracefs is not mounted" in found
    assert "mount -t tracefs" in found


def test_bit_field_is_refused():
    text = document(
        """  kprobes:
  - call: fd_install
    syscall: false
    args: [{index: 0, type: uint32, resolve: b, btfType: bits}]
"""
    )
    assert found_in(text, host()) == [
        "7:46: spec.kprobes[0].args[0].resolve: fd_install, argument 0: b is a bit field of 5 bits "
        "(allowed: a whole member)"
    ]


def test_filters_without_a_translation_are_refused_by_name(monkeypatch):
    monkeypatch.setattr(check_supported, "PROCESS_FILTERS", ())
    text = document(
        """  kprobes:
  - call: sys_read
    selectors:
    - matchBinaries: [{operator: In, values: [/bin/sh]}]
      matchPIDs: [{operator: In, values: [1]}]
"""
    )
    assert found_in(text, host()) == [
        "7:22: spec.kprobes[0].selectors[0].matchBinaries: matchBinaries is not supported yet",
        "8:18: spec.kprobes[0].selectors[0].matchPIDs: matchPIDs is not supported yet",
    ]


def test_every_filter_on_the_process_has_its_key():
    fields = {one.name for one in dataclasses.fields(Selector)}
    others = {"args", "data", "return_args", "actions", "return_actions", "label", "place"}
    assert set(check_supported.PROCESS_KEYS) == fields - others
