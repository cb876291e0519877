"""The documents that ship with the product: their heads, parameters and hooks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from readymade.parameters import Parameter, ReadyError, parameter

# In the order in which they are listed.
NAMES = ("files", "network", "credentials", "host", "capabilities", "syscalls")
_TEXTS = ("title", "reports", "cost", "cost_brief", "kernels")


@dataclass(frozen=True, slots=True)
class Ready:
    """One document."""

    name: str
    path: Path
    title: str  # what it is for, in a few words
    reports: str
    misses: tuple[str, ...]  # each with the reason
    cost: str
    cost_brief: str  # the same for one line of a table, where functions cannot be hooked
    kernels: str
    parameters: Mapping[str, Parameter]
    spec: Mapping[str, Any]  # with the places of parameters


@cache
def load(name: str) -> Ready:
    """Return the document of that name; raise `ReadyError` if there is none."""
    if name not in NAMES:
        raise ReadyError(f'there is no ready-made policy "{name}" (allowed: {", ".join(NAMES)})')
    path = Path(str(files("readymade").joinpath("policies", f"{name}.yaml")))
    document = yaml.load(path.read_bytes(), Loader=yaml.CSafeLoader)
    texts = {key: " ".join(str(document[key]).split()) for key in _TEXTS}
    return Ready(
        name=name,
        path=path,
        misses=tuple(" ".join(str(one).split()) for one in document["misses"]),
        parameters={
            key: parameter(key, entry) for key, entry in (document.get("parameters") or {}).items()
        },
        spec=document["spec"],
        **texts,
    )
