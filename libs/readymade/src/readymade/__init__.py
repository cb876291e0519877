"""Ready-made tracing policies: a document each, with a head that people read and parameters.

`load` reads one, `render` fills its parameters in and returns a tracing policy as YAML.
`selection` reads the short form of settings: ``files paths=/etc,/srv; network``.
"""

from readymade.documents import NAMES, Ready, load
from readymade.parameters import Parameter, ReadyError
from readymade.rendering import TAG_PREFIX, render
from readymade.selecting import Choice, selection

__all__ = [
    "NAMES",
    "TAG_PREFIX",
    "Choice",
    "Parameter",
    "Ready",
    "ReadyError",
    "load",
    "render",
    "selection",
]
