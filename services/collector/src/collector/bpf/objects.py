"""Compiled objects, each compiled once per kernel, sources and settings, then read from disk.

The key of an object is the hash of all that it was made from: C text and headers, flags, maps and
targets, the shim, the code that compiles, and this kernel's build, whose types are in it as
numbers. So an object never meets a kernel or sources that it does not fit. An object of another
compiler version is compiled again, unless no compiler is installed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import structlog

from collector.bpf import bytecode, compiler, header
from collector.bpf.bytecode import Object, ProgramPlan, assemble
from collector.bpf.cache import BlobCache, key_of
from collector.bpf.compiler import Source
from collector.bpf.maps import MapSpec
from collector.errors import CompileError

_FORM = "object 1"  # of what is kept

log = structlog.get_logger()


class Plan(NamedTuple):
    """All that an object is made from."""

    source: Source
    maps: tuple[MapSpec, ...]  # in the order of their numbers in the text
    programs: tuple[ProgramPlan, ...]


class Built(NamedTuple):
    """An object, and whether it was read from the cache."""

    object: Object
    cached: bool


@dataclass(slots=True)
class Objects:
    """Compiles what is not in the cache yet. ``folder`` is that of the C sources, with the shim."""

    cache: BlobCache
    build: str  # of the kernel: KernelInfo.build
    folder: Path
    _common: list[bytes | str] = field(default_factory=list, init=False)

    async def get(self, plan: Plan) -> Built:
        """Return the plan's object; raise `CompileError`."""
        return await self.get_by(plan_parts(plan), lambda: plan)

    async def get_all(self, plans: Sequence[Plan]) -> list[Built | CompileError]:
        """Return the object of each plan, those that are not in the cache from one compiler."""
        made_by = compiler.identity().encode()
        keys = [key_of([_FORM, self.build, *self._shared(), *plan_parts(plan)]) for plan in plans]
        found: dict[bytes, Built | CompileError] = {}
        missing: dict[bytes, Plan] = {}
        for key, plan in zip(keys, plans, strict=True):
            kept = self._read(key, made_by) if key not in missing else None
            if kept is not None:
                found[key] = Built(kept, cached=True)
            else:
                missing[key] = plan
        built = await compile_plans(list(missing.values()), self.folder / "shim")
        for key, one in zip(missing, built, strict=True):
            found[key] = one if isinstance(one, CompileError) else Built(one, cached=False)
            if not isinstance(one, CompileError):
                self.cache.write(key, made_by + b"\0" + bytecode.encode(one))
        return [found[key] for key in keys]

    async def get_by(
        self, parts: Sequence[bytes | str], plan: Callable[[], Plan], *, fresh: bool = False
    ) -> Built:
        """Return the object made from ``parts``, calling ``plan`` only if it is not in the cache.

        For plans that are costly to make; ``parts`` must contain everything that determines them.
        ``fresh``: compile anyway. Raises `CompileError`.
        """
        key = key_of([_FORM, self.build, *self._shared(), *parts])
        made_by = compiler.identity().encode()
        found = None if fresh else self._read(key, made_by)
        if found is not None:
            return Built(found, cached=True)
        built = await compile_plan(plan(), self.folder / "shim")
        self.cache.write(key, made_by + b"\0" + bytecode.encode(built))
        return Built(built, cached=False)

    def _shared(self) -> list[bytes | str]:
        """Return the common sources of all objects: the shim, and the code that makes the text."""
        if not self._common:
            files = [Path(compiler.__file__), Path(header.__file__)]
            files += sorted(path for path in (self.folder / "shim").rglob("*.h"))
            self._common = [path.read_bytes() for path in files]
        return self._common

    def _read(self, key: bytes, made_by: bytes) -> Object | None:
        blob = self.cache.read(key)
        if blob is None:
            return None
        compiled_by, _, content = blob.partition(b"\0")
        if made_by not in (b"", compiled_by):
            log.info(
                "cached object not used: another compiler",
                was=compiled_by.decode("utf-8", "replace"),
            )
            return None
        try:
            return bytecode.decode(content)
        except ValueError as error:
            log.warning("cached object not used", error=str(error))
            return None


def plan_parts(plan: Plan) -> list[bytes | str]:
    """Return everything that determines a plan's object, for its key."""
    source = plan.source
    parts: list[bytes | str] = [source.text, *source.programs, "flags", *source.flags, "headers"]
    for name, text in source.headers:
        parts += [name, text]
    return [*parts, *maps_parts(plan.maps), *(repr(program) for program in plan.programs)]


def maps_parts(maps: Sequence[MapSpec]) -> list[str]:
    """Return everything that determines the maps, for a key."""
    return [repr(spec) for spec in maps]


async def compile_plan(plan: Plan, shim: Path) -> Object:
    """Return what the compiler gives for a plan, without a cache; raise `CompileError`."""
    (built,) = await compile_plans([plan], shim)
    if isinstance(built, CompileError):
        raise built
    return built


async def compile_plans(plans: Sequence[Plan], shim: Path) -> list[Object | CompileError]:
    """Return the same for each of several plans that share their headers."""
    if not plans:
        return []
    results = await compiler.compile_sources([plan.source for plan in plans], shim)
    return [_assembled(plan, codes) for plan, codes in zip(plans, results, strict=True)]


def _assembled(plan: Plan, codes: dict[str, bytes] | CompileError) -> Object | CompileError:
    if isinstance(codes, CompileError):
        return codes
    try:
        return assemble(plan.maps, plan.programs, codes)
    except ValueError as error:
        return CompileError(f"compile: {error}")
