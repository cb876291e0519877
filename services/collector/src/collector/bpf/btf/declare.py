"""Types as C declarations."""

from __future__ import annotations

from collector.bpf.btf.kinds import ENUMS, BtfKind
from collector.bpf.btf.table import TypeTable


def declaration(types: TypeTable, number: int, name: str = "") -> str:
    """Return the C declaration of ``name`` with this type; without a name, the type alone."""
    found = types.type(number)
    kind = found.kind
    if kind is BtfKind.PTR:
        inner = types.type(found.value)
        while inner.kind is BtfKind.TYPE_TAG:
            inner = types.type(inner.value)
        star = f"(*{name})" if inner.kind in (BtfKind.ARRAY, BtfKind.FUNC_PROTO) else f"*{name}"
        return declaration(types, inner.id, star)
    if kind is BtfKind.ARRAY:
        element, length = types.array(number)
        return declaration(types, element, f"{name}[{length}]")
    if kind in (BtfKind.CONST, BtfKind.VOLATILE, BtfKind.RESTRICT):
        word = kind.name.lower()
        if types.type(found.value).kind is BtfKind.PTR:
            return declaration(types, found.value, f"{word} {name}".strip())
        return f"{word} {declaration(types, found.value, name)}"
    if kind is BtfKind.TYPE_TAG:
        return declaration(types, found.value, name)
    if kind is BtfKind.FUNC_PROTO:
        params, result = types.prototype(number)
        inside = ", ".join(declaration(types, param.type, param.name) for param in params)
        return declaration(types, result, f"{name}({inside or 'void'})")
    word = {BtfKind.STRUCT: "struct ", BtfKind.UNION: "union "}.get(kind, "")
    if kind is BtfKind.FWD:
        word = "union " if found.flag else "struct "
    if kind in ENUMS:
        word = "enum "
    base = f"{word}{found.name or '{...}'}"
    return f"{base} {name}" if name and not name.startswith("[") else base + name
