"""Writes type information as compilers do, small enough to see by eye: for tests of the reader."""

import struct


class BtfBuilder:
    """Types are numbered from ``first`` on, in the order in which they are added."""

    def __init__(self, first: int = 1, text_base: int = 0) -> None:
        self.types: list[bytes] = []
        self.text = bytearray(b"\0")
        self._first = first
        self._text_base = text_base

    def name(self, name: str) -> int:
        """Return the offset of a string, entering it if it is new."""
        if not name:
            return 0
        at = self.text.find(b"\0" + name.encode() + b"\0")
        if at < 0:
            at = len(self.text) - 1
            self.text += name.encode() + b"\0"
        return self._text_base + at + 1

    def add(self, kind, name="", value=0, *, members=0, flag=False, extra=b"") -> int:
        """Add a type by its raw parts; return its id."""
        info = kind << 24 | members | flag << 31
        self.types.append(struct.pack("<III", self.name(name), info, value) + extra)
        return self._first + len(self.types) - 1

    def integer(self, name, size, *, signed=False, boolean=False) -> int:
        """Add an integer."""
        encoding = signed << 24 | boolean << 26 | size * 8
        return self.add(1, name, size, extra=struct.pack("<I", encoding))

    def array(self, element, length) -> int:
        """Add an array; its index type does not matter."""
        return self.add(3, extra=struct.pack("<III", element, element, length))

    def struct(self, name, size, members, *, union=False, bit_fields=False) -> int:
        """Add a struct of (name, type, bit offset) or, with bit fields, (..., width)."""
        extra = b""
        for member, type_, at, *width in members:
            extra += struct.pack(
                "<III", self.name(member), type_, at | (width[0] if width else 0) << 24
            )
        return self.add(
            5 if union else 4, name, size, members=len(members), flag=bit_fields, extra=extra
        )

    def enum(self, name, values, *, signed=False) -> int:
        """Add an enum of 32 bits."""
        extra = b"".join(
            struct.pack("<Ii" if signed else "<II", self.name(key), value)
            for key, value in values.items()
        )
        return self.add(6, name, 4, members=len(values), flag=signed, extra=extra)

    def enum64(self, name, values) -> int:
        """Add an unsigned enum of 64 bits."""
        extra = b"".join(struct.pack("<IQ", self.name(key), v) for key, v in values.items())
        return self.add(19, name, 8, members=len(values), extra=extra)

    def prototype(self, result, params) -> int:
        """Add a function's type with (name, type) parameters."""
        extra = b"".join(struct.pack("<II", self.name(name), type_) for name, type_ in params)
        return self.add(13, "", result, members=len(params), extra=extra)

    def function(self, name, result, params) -> int:
        """Add a function."""
        return self.add(12, name, self.prototype(result, params))

    def bytes(self) -> bytes:
        """Return the whole, header first."""
        types = b"".join(self.types)
        header = struct.pack(
            "<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(self.text)
        )
        return header + types + bytes(self.text)
