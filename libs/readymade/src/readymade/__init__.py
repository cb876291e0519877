"""Ready-made tracing policies: a document each, with a head that people read and parameters.

`load` reads one, `render` fills its parameters in and returns a tracing policy as YAML.
`selection` reads the short form of settings: ``files paths=/etc,/srv; network``.

Each is imported when it is first asked for: settings without policies need no YAML.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from readymade.documents import NAMES, Ready, load
    from readymade.parameters import Parameter, ReadyError
    from readymade.rendering import TAG_PREFIX, given_in, render
    from readymade.selecting import Choice, selection

__all__ = [
    "NAMES",
    "TAG_PREFIX",
    "Choice",
    "Parameter",
    "Ready",
    "ReadyError",
    "given_in",
    "load",
    "render",
    "selection",
]

_HOMES = {
    "NAMES": "documents",
    "Ready": "documents",
    "load": "documents",
    "Parameter": "parameters",
    "ReadyError": "parameters",
    "TAG_PREFIX": "rendering",
    "given_in": "rendering",
    "render": "rendering",
    "Choice": "selecting",
    "selection": "selecting",
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{home}"), name)
