"""Policies that are ready to be loaded: plan, translation and bytecode, kept from start to start.

The key of a kept policy covers everything that determines it: the document, the code that plans and
translates, the C headers, this kernel, and the properties of the machine that allow a mechanism.
Policies whose plan depends on files (programs that are probed, modules, formats in tracefs) are
planned at each start.
"""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, is_dataclass
from enum import Enum
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

import structlog

import tracingpolicy
from collector.bpf import compiler
from collector.bpf.cache import BlobCache, key_of
from collector.bpf.maps import possible_cpus
from collector.policies.contents import contents
from collector.policies.host import host_namespaces, may_misread_code
from collector.policies.plan import HookState, Mechanism, Plan
from collector.policies.translation import Translation
from tracingpolicy.model import Policy

_FORM = "ready policy 2"
_CODE = (Path(__file__).parent, Path(tracingpolicy.__file__).parent, Path(compiler.__file__).parent)
# What decides which programs the kernel takes: rights, and the settings that limit them.
_LIMITS = (
    Path("/proc/sys/kernel/perf_event_paranoid"),
    Path("/proc/sys/kernel/unprivileged_bpf_disabled"),
    Path("/sys/kernel/security/lockdown"),
    Path("/sys/kernel/security/lsm"),
    Path("/sys/kernel/tracing/README"),
)
_SURROUNDINGS_MAX_AGE_S = 1.0
_STATUS = Path("/proc/self/status")
_OWN = ("collector.policies.", "collector.bpf.maps", "tracingpolicy.")
_ADDRESSES = {"IPv4Address", "IPv6Address", "IPv4Network", "IPv6Network"}

log = structlog.get_logger()


class Ready(NamedTuple):
    """All that loading needs; the translation's text is empty where it was kept."""

    plan: Plan
    translation: Translation
    codes: dict[str, bytes]  # by function


@dataclass(slots=True)
class ReadyPolicies:
    """Keeps policies that are ready.

    ``build``: of the kernel; ``folder``: of the C headers; ``settings``: those that plans heed.
    """

    blobs: BlobCache
    build: str
    folder: Path
    settings: tuple[str, ...] = ()
    _code: bytes = field(default=b"", init=False)
    _surroundings: tuple[float, list[str]] = field(default=(0.0, []), init=False)

    def read(self, policy: Policy) -> Ready | None:
        """Return a policy as it was kept under the same conditions, or None."""
        blob = self.blobs.read(self._key(policy))
        if blob is None:
            return None
        try:
            found = _Unpickler(io.BytesIO(blob), policy).load()
        except Exception as error:  # any error in the file: the policy is planned again
            log.warning("kept policy not used", policy=policy.name, error=repr(error))
            return None
        return found if isinstance(found, Ready) else None

    def write(self, policy: Policy, ready: Ready) -> None:
        """Keep a policy, unless its plan depends on what can change meanwhile."""
        if not _is_lasting(ready.plan):
            return
        short = ready._replace(translation=ready.translation.without_texts())
        out = io.BytesIO()
        try:
            _Pickler(out, policy).dump(short)
        except (pickle.PicklingError, TypeError, AttributeError) as error:
            log.warning("policy not kept", policy=policy.name, error=repr(error))
            return
        self.blobs.write(self._key(policy), out.getvalue())

    def _key(self, policy: Policy) -> bytes:
        if not self._code:
            self._code = _code_digest([*_CODE, self.folder])
        return key_of([
            _FORM, self.build, sys.version, compiler.identity(), self._code, *self._around(),
            *self.settings, "policy", *_identity(policy),
        ])  # fmt: skip

    def _around(self) -> list[str]:
        """Return the surroundings, read once for policies that are loaded together."""
        read_at, found = self._surroundings
        if not found or time.monotonic() - read_at > _SURROUNDINGS_MAX_AGE_S:
            found = _surroundings()
            self._surroundings = time.monotonic(), found
        return found


def _identity(policy: Policy) -> tuple[bytes, ...]:
    """Return what identifies a policy: its text, or all of it where it was changed."""
    if policy.digest:
        return policy.digest, os.fsencode(policy.file)
    return (pickle.dumps(policy, protocol=5),)


def _parts(policy: Policy) -> list[object]:
    """Return what plans take over from a policy: what is kept has their places in this list."""
    found = list[object]()
    for one in (policy, *policy.variants):
        found.append(one)
        for hook in one.hooks():
            found += [hook, *hook.args, *hook.data, *hook.selectors]
    return found


def _code_digest(folders: list[Path]) -> bytes:
    digest = hashlib.sha256()
    for folder in folders:
        for path in sorted(_code_files(str(folder))):
            digest.update(contents(path))
    return digest.digest()


def _code_files(folder: str) -> Iterator[str]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith((".py", ".h", ".json")):
                yield entry.path
            elif entry.is_dir() and entry.name != "__pycache__":
                yield from _code_files(entry.path)


def _surroundings() -> list[str]:
    """Return the conditions of a plan other than the document and the kernel's build."""
    found = [str(possible_cpus()), repr(sorted(host_namespaces().items(), key=str))]
    found.append(str(may_misread_code()))
    for path in _LIMITS:
        try:
            found.append(path.read_text() if path.name != "README" else str(path.exists()))
        except OSError as error:
            found.append(f"no {error.errno}")
    rights = [line for line in _STATUS.read_text().splitlines() if line.startswith("CapEff")]
    return [*found, *rights, str(os.geteuid())]


def _is_lasting(plan: Plan) -> bool:
    targets = [target for hook in plan.hooks for target in hook.targets]
    return (
        all(status.state is HookState.LOADED for status in plan.statuses)
        and all(hook.entry is not Mechanism.TRACEPOINT for hook in plan.hooks)
        and not any(target.module or target.path for target in targets)
    )


class _Pickler(pickle.Pickler):
    """Writes members of enums by their value: pickle's own form calls getattr()."""

    def __init__(self, out: io.BytesIO, policy: Policy) -> None:
        super().__init__(out, protocol=5)
        self._parts = _parts(policy)  # kept: ids are those of living objects
        self._places = {id(one): place for place, one in enumerate(self._parts)}

    def persistent_id(self, obj: Any) -> int | None:
        return self._places.get(id(obj))

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, Enum):
            return type(obj), (obj.value,)
        return (dict, (dict(obj),)) if isinstance(obj, MappingProxyType) else NotImplemented


class _Unpickler(pickle.Unpickler):
    """Makes values of the policies' own types, and calls nothing else."""

    _known: ClassVar[dict[tuple[str, str], Any]] = {}  # policies have the same ones

    def __init__(self, file: io.BytesIO, policy: Policy) -> None:
        super().__init__(file)
        self._parts = _parts(policy)

    def persistent_load(self, pid: Any) -> object:
        return self._parts[pid]

    def find_class(self, module: str, name: str) -> Any:
        known = self._known.get((module, name))
        if known is None:
            known = self._known[module, name] = self._find_class(module, name)
        return known

    def _find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("builtins", "dict") or (module == "ipaddress" and name in _ADDRESSES):
            return super().find_class(module, name)
        if module.startswith(_OWN):
            found = super().find_class(module, name)
            if isinstance(found, type) and (
                is_dataclass(found) or issubclass(found, (Enum, tuple))
            ):
                return found
        raise pickle.UnpicklingError(f"{module}.{name} is no part of a policy")
