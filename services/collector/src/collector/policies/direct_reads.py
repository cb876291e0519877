"""Reading kernel memory with plain loads in place of helper calls, where the kernel has it.

bpf_rdonly_cast() makes a pointer to any type of the kernel from an address ("bpf: Add kfunc
bpf_rdonly_cast()", v6.2). The verifier replaces the call by a move and lets the loads behind it
fail softly: an address that cannot be read gives 0. Before v6.9 the loops that walk paths are
too long for the verifier if they have loads of their own; there, helpers stay.
"""

from __future__ import annotations

import platform
import struct

from collector.bpf.btf import BtfKind
from collector.bpf.features import Features
from collector.bpf.programs import Kind
from collector.policies.translation import DirectReads

# A struct that begins with plain words, the longest of which a text reads at once.
_TYPES = {"x86_64": "pt_regs"}
_INSTRUCTION = struct.Struct("<BBhi")


def direct_reads(features: Features) -> DirectReads | None:
    """Return what plain loads need; None where this kernel does not allow them."""
    name = _TYPES.get(platform.machine())
    function = features.btf.find("bpf_rdonly_cast", BtfKind.FUNC)
    to = features.btf.find(name, BtfKind.STRUCT) if name else None
    if function is None or to is None:
        return None
    pack = _INSTRUCTION.pack
    load = b"".join(
        [
            pack(0x79, 0x11, 0, 0),  # r1 = the first word of the context
            pack(0xB7, 0x02, 0, to),  # r2 = the type
            pack(0x85, 0x20, 0, function),  # r0 = bpf_rdonly_cast(r1, r2)
            pack(0x79, 0x00, 8, 0),  # r0 = *(u64 *)(r0 + 8)
        ]
    )
    refused = features.why_not_code(Kind.RAW_TRACEPOINT, load)
    return None if refused else DirectReads(function, to)
