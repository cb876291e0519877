"""A policy with variants: the first that the kernel can serve is loaded, none of the others."""

import pytest

from collector.policies.plan import Mechanism
from collector.policies.plan_policy import check_document, plan_policy
from support.policy_kernel import host
from tracingpolicy import PolicyErrors, parse

DOCUMENT = """
apiVersion: tetra.io/v1
kind: TracingPolicy
metadata: {name: p}
spec:
  kprobes: [{call: sys_read}]
  variants:
  - kprobes: [{call: tcp_connect, syscall: false}]
  - kprobes: [{call: no_such_function, syscall: false}]
  - kprobes: [{call: sys_dup}]
"""
REFUSED = (Mechanism.FENTRY, Mechanism.KPROBE, Mechanism.KPROBE_MULTI)
NO_FUNCTIONS = dict.fromkeys(REFUSED, "not here")


def hooked(plan):
    return [target.name for hook in plan.hooks for target in hook.targets]


def test_first_variant_that_works_is_planned():
    assert hooked(check_document(DOCUMENT, "p", host())) == ["__x64_sys_read", "tcp_connect"]


def test_variant_that_the_kernel_cannot_serve_is_passed_over():
    plan = plan_policy(parse(DOCUMENT, "p"), host(refused=NO_FUNCTIONS))
    assert hooked(plan) == ["__x64_sys_read", "__x64_sys_dup"]
    assert [getattr(status.hook, "call", "") for status in plan.statuses] == ["sys_read", "sys_dup"]


def test_mistakes_of_the_last_variant_are_reported():
    document = DOCUMENT.replace("sys_dup", "sys_dupp")
    with pytest.raises(PolicyErrors) as caught:
        check_document(document, "p", host(refused=NO_FUNCTIONS))
    (mistake,) = caught.value.mistakes
    assert 'there is no system call "sys_dupp"' in mistake.message


def test_a_mistake_in_any_variant_refuses_the_document():
    with pytest.raises(PolicyErrors) as caught:
        check_document(DOCUMENT.replace("sys_dup}", "sys_dup, x: 1}"), "p", host())
    (mistake,) = caught.value.mistakes
    assert str(mistake).startswith("p:10:")


@pytest.mark.parametrize(
    "spec",
    [
        "{variants: [{kprobes: [{call: sys_read}]}]}",
        "{kprobes: [{call: sys_dup, args: [{index: 0, type: fd_sock}]}]}",
        "{kprobes: [{call: sys_read, args: [{index: 0, type: fd}], selectors: "
        "[{matchArgs: [{index: 0, operator: Below, values: [/etc]}]}]}]}",
    ],
)
def test_tetragons_api_version_refuses_our_extensions(spec):
    head = "apiVersion: VERSION\nkind: TracingPolicy\nmetadata: {name: p}\nspec: "
    parse((head + spec).replace("VERSION", "tetra.io/v1"), "p")
    with pytest.raises(PolicyErrors) as caught:
        parse((head + spec).replace("VERSION", "cilium.io/v1alpha1"), "p")
    (mistake,) = caught.value.mistakes
    assert "(allowed: apiVersion: tetra.io/v1)" in str(mistake)
