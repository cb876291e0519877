"""``tetra tracingpolicy``: the commands about tracing policies, one module each."""

from __future__ import annotations

from cli.command import Group

_HERE = "cli.commands.tracingpolicy"
_MODULES = {"set-mode": "set_mode", "try": "try_"}
_NAMES = (
    "add",
    "delete",
    "enable",
    "disable",
    "set-mode",
    "configure",
    "list",
    "status",
    "check",
    "explain",
    "try",
    "diff",
    "show",
    "history",
    "rollback",
    "promote",
    "abort",
    "domains",
)

COMMAND = Group(
    "tracingpolicy",
    {name: f"{_HERE}.{_MODULES.get(name, name)}:COMMAND" for name in _NAMES},
    summary="check, load and watch tracing policies (tp)",
    text="""Tracing policies report what processes do: calls of kernel functions, system calls,
tracepoints, functions of programs. A policy that is added at a gateway is loaded on every node that
it selects, now and whenever a node joins.

examples:
  tetra tracingpolicy check policy.yaml        its mistakes, without a server
  tetra tracingpolicy add policy.yaml          load it on every node
  tetra tracingpolicy list
  tetra getevents --policy-names passwd-opened -o compact
  tetra tracingpolicy delete passwd-opened
""",
)
