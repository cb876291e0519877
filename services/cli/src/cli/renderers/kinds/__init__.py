"""How each kind of event looks in each output: one module per kind, found by its field name.

A new kind is a module with a ``KIND`` and a line in `MODULES`. A kind without a module has the
general form of `base`: the name of the kind and its process.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module

from cli.renderers.kinds.base import Kind

# By the field of GetEventsResponse.event. Imported with the first event of the kind.
MODULES = {
    "process_exec": "cli.renderers.kinds.exec",
    "process_exit": "cli.renderers.kinds.exit",
    "process_kprobe": "cli.renderers.kinds.kprobe",
    "process_tracepoint": "cli.renderers.kinds.tracepoint",
    "process_loader": "cli.renderers.kinds.loader",
    "process_uprobe": "cli.renderers.kinds.uprobe",
    "process_usdt": "cli.renderers.kinds.usdt",
    "process_lsm": "cli.renderers.kinds.lsm",
    "process_throttle": "cli.renderers.kinds.throttle",
    "rate_limit_info": "cli.renderers.kinds.rate_limit",
    "test": "cli.renderers.kinds.selftest",
}

_GENERAL = Kind()


@cache
def kind_of(field: str | None) -> Kind:
    """Return the forms of the kind in ``field``; None is a kind that is newer than this client."""
    module = MODULES.get(field or "")
    if module is None:
        return _GENERAL
    kind: Kind = import_module(module).KIND
    return kind
