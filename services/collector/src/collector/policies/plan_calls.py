"""Every system call at the kernel's functions instead of the tracepoint sys_enter.

A program at sys_enter makes each system call of the host slower, the kernel's own part of it too:
every thread leaves the fast path. Functions can be left out one by one, so ordinary calls that are
frequent cost nothing but samples, see `frequent`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from collector.policies.check import Host
from collector.policies.plan import (
    CallFunction,
    FunctionArgument,
    PlannedArgument,
    SyscallNumber,
    Target,
)
from collector.policies.syscalls import BARE
from tracingpolicy.ordinary import ORDINARY

# Serves all numbers that have no function, and cannot be hooked (arch/x86/entry is not traced).
_NOT_THERE = "ni_syscall"


def why_not(host: Host) -> str:
    """Return why the functions do not stand for the tracepoint here, or ""."""
    if host.machine != "x86_64":
        return "tried on x86-64 only"
    if host.misreads_code:
        return "QEMU emulates several processors here, and fails where code is replaced often"
    if _function(host, "read") not in host.functions:
        return f"this kernel has no function {_function(host, 'read')}"
    return ""


def at_functions(host: Host, target: Target) -> Target:
    """Return the target of the tracepoint with the functions of all calls."""
    sampled = tuple(_ordinary(host))
    once = {one.symbol for one in sampled}
    prefixes = (BARE, *(prefix for abi in host.syscalls.abis for prefix in abi.prefixes))
    rest = sorted(
        name
        for name in host.functions
        if name.startswith(prefixes)
        and name not in once
        and not name.endswith(_NOT_THERE)
        # Where it has parameters, it is called by the function that is hooked, or inlined.
        and (not name.startswith(BARE) or _function(host, name.removeprefix(BARE)) == name)
    )
    return replace(target, functions=tuple(rest), calls=sampled)


def of_functions(argument: PlannedArgument) -> PlannedArgument:
    """Return an argument of the tracepoint with its value where a function begins."""
    if argument.source == FunctionArgument(1):
        return replace(argument, source=SyscallNumber())
    return argument


def _function(host: Host, name: str) -> str:
    """Return the function of a 64-bit call, by the call's name without prefix."""
    symbol = host.syscalls.native.prefixes[0] + name
    bare = BARE + name
    return bare if symbol not in host.functions and bare in host.functions else symbol


def _ordinary(host: Host) -> Iterator[CallFunction]:
    native = host.syscalls.native
    for name in sorted(ORDINARY):
        call = host.syscalls.by_call(native, name)
        symbol = _function(host, call.name)
        if call.number >= 0 and symbol in host.functions:
            yield CallFunction(call.number, symbol)
