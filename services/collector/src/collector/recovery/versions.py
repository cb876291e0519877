"""The version of the records in the ring and in the journal."""

from __future__ import annotations

import hashlib
from functools import cache

from collector.bpf.base import bpf_folder
from collector.records import layouts

# Their structs are in the records of policies.
_TRACING = ("record.h",)


@cache
def records_version() -> str:
    """Return a version that differs if a record of the same kind can have another form."""
    digest = hashlib.sha256()
    for name in _TRACING:
        digest.update((bpf_folder() / "tracing" / name).read_bytes())
    return f"{layouts.version()}-{digest.hexdigest()[:12]}"
