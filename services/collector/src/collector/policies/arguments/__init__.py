"""Arguments of hooks: a module for each family of types, and the table of readers by type.

A new type is a row of `tracingpolicy.types`, a reader here, and a decoder in `records.tracing`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from collector.policies.arguments.base import Reader
from collector.policies.arguments.files import FileReader
from collector.policies.arguments.numbers import CapabilitiesReader, NumberReader
from collector.policies.arguments.texts import TextReader
from tracingpolicy.types import TYPES, ArgumentType, Family

_T = ArgumentType
_NUMBER, _CAPABILITIES, _TEXT, _FILE = (
    NumberReader(),
    CapabilitiesReader(),
    TextReader(),
    FileReader(),
)

_BY_FAMILY: dict[Family, Reader] = {
    Family.NUMBER: _NUMBER,
    Family.CAPABILITIES: _CAPABILITIES,
    Family.TEXT: _TEXT,
    Family.PATH: _FILE,
}
_BY_TYPE: dict[ArgumentType, Reader] = {}

READERS: Mapping[ArgumentType, Reader] = MappingProxyType(
    {
        kind: _BY_TYPE.get(kind) or _BY_FAMILY[info.family]
        for kind, info in TYPES.items()
        if kind in _BY_TYPE or info.family in _BY_FAMILY
    }
)
