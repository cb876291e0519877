"""The parser of CelExpr: a small part of the Common Expression Language, with types.

Literals are 64 bits wide (``5`` s64, ``5u`` u64); ``int32(5)`` and ``uint32(5u)`` narrow them. Both
sides of an operator have the same type, as in Tetragon.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from tracingpolicy.cel import (
    ArgumentValue,
    Binary,
    CelType,
    Conversion,
    Expression,
    Literal,
    Node,
    Unary,
)

MAX_CHARACTERS = 1000
_MAX_DEPTH = 40
_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:0[xX][0-9a-fA-F]+|[0-9]+)[uU]?)|(?P<name>[A-Za-z_][A-Za-z0-9_]*)"
    r"|(?P<mark>==|!=|<=|>=|&&|\|\||[-+<>!(),]))"
)
_LEVELS: list[tuple[str, ...]] = [("||",), ("&&",), ("==", "!=", "<", "<=", ">", ">="), ("+", "-")]
_LOGIC = {"and": "&&", "or": "||", "xor": "^"}
_ORDERED = {"<", "<=", ">", ">="}
_RANGES = {
    CelType.S32: (-(1 << 31), (1 << 31) - 1),
    CelType.U32: (0, (1 << 32) - 1),
    CelType.S64: (-(1 << 63), (1 << 63) - 1),
    CelType.U64: (0, (1 << 64) - 1),
}


class CelError(Exception):
    """The expression cannot be used; ``offset`` is the place in its text."""

    def __init__(self, message: str, offset: int, allowed: str = "") -> None:
        super().__init__(message)
        self.message, self.offset, self.allowed = message, offset, allowed


class _Token(NamedTuple):
    kind: str
    text: str
    offset: int


def parse_expression(text: str, arguments: Mapping[int, CelType | None]) -> Expression:
    """Return the typed expression.

    ``arguments`` has the type of each argument of the hook by position, None where it is not a
    number. Raises CelError.
    """
    if len(text) > MAX_CHARACTERS:
        raise CelError(f"the expression has {len(text)} characters", 0, f"at most {MAX_CHARACTERS}")
    parser = _Parser(_tokens(text), arguments)
    root = parser.level(0, 0)
    parser.expect("end")
    if root.type is not CelType.BOOL:
        raise CelError(f"the expression is a number ({root.type.value})", 0, "a truth value")
    return Expression(root, text)


def used_arguments(node: Node) -> set[int]:
    """Return the positions of the arguments in an expression."""
    if isinstance(node, ArgumentValue):
        return {node.argument}
    if isinstance(node, Binary):
        return used_arguments(node.left) | used_arguments(node.right)
    if isinstance(node, Unary | Conversion):
        return used_arguments(node.operand)
    return set()


def _tokens(text: str) -> list[_Token]:
    tokens = []
    at, end = 0, len(text.rstrip())
    while at < end:
        match = _TOKEN.match(text, at)
        if match is None:
            raise CelError(f"unexpected character {text[at:].lstrip()[:1]!r}", at)
        kind = match.lastgroup or ""
        word = match.group(kind)
        tokens.append(_Token(word if kind == "mark" else kind, word, match.start(kind)))
        at = match.end()
    return [*tokens, _Token("end", "the end", end)]


class _Parser:
    def __init__(self, tokens: list[_Token], arguments: Mapping[int, CelType | None]) -> None:
        self._tokens, self._arguments, self._at = tokens, arguments, 0

    def _next(self) -> _Token:
        token = self._tokens[self._at]
        self._at = min(self._at + 1, len(self._tokens) - 1)
        return token

    def expect(self, kind: str) -> _Token:
        token = self._next()
        if token.kind != kind:
            wanted = "the end" if kind == "end" else kind
            raise CelError(f"unexpected {token.text}", token.offset, wanted)
        return token

    def level(self, level: int, depth: int) -> Node:
        """Parse operators of a level and of all that bind closer."""
        if level == len(_LEVELS):
            return self._unary(depth)
        left = self.level(level + 1, depth)
        while (token := self._tokens[self._at]).kind in _LEVELS[level]:
            self._next()
            left = _binary(token.kind, left, self.level(level + 1, depth), token.offset)
            if (depth := depth + 1) > _MAX_DEPTH:  # the tree leans to the left
                raise CelError("the expression is nested too deeply", token.offset)
        return left

    def _unary(self, depth: int) -> Node:
        token = self._next()
        if depth > _MAX_DEPTH:
            raise CelError("the expression is nested too deeply", token.offset)
        if token.kind == "!":
            return _negated(self._unary(depth + 1), token.offset)
        if token.kind == "-":
            return self._minus(token, depth)
        if token.kind == "(":
            inner = self.level(0, depth + 1)
            self.expect(")")
            return inner
        if token.kind == "number":
            return _literal(token)
        if token.kind == "name":
            return self._name(token, depth)
        raise CelError(f"unexpected {token.text}", token.offset, "arg0, a number, ! or (")

    def _minus(self, minus: _Token, depth: int) -> Node:
        token = self._tokens[self._at]
        if token.kind == "number" and token.text[-1] not in "uU":
            self._next()
            return _literal(token, -1)
        operand = self._unary(depth + 1)
        if operand.type not in (CelType.S32, CelType.S64):
            raise CelError(f"- on {operand.type.value}", minus.offset, "s32 or s64")
        return Unary("-", operand, operand.type)

    def _name(self, token: _Token, depth: int) -> Node:
        name = token.text
        if name in ("true", "false"):
            return Literal(int(name == "true"), CelType.BOOL)
        if self._tokens[self._at].kind == "(":
            return self._call(token, depth)
        number = name.removeprefix("arg")
        if not name.startswith("arg") or not (number.isascii() and number.isdecimal()):
            raise CelError(f"{name} is not known", token.offset, "arg0, arg1, ... and functions")
        position = int(number[:9])
        if position not in self._arguments:
            has = ", ".join(f"arg{i}" for i in self._arguments) or "no arguments"
            raise CelError(f"the hook has no {name}", token.offset, has)
        kind = self._arguments[position]
        if kind is None:
            raise CelError(f"{name} is not a number", token.offset, "arguments of number types")
        return ArgumentValue(position, kind)

    def _call(self, token: _Token, depth: int) -> Node:
        self.expect("(")
        operands = [self.level(0, depth + 1)]
        while self._tokens[self._at].kind == ",":
            self._next()
            operands.append(self.level(0, depth + 1))
        self.expect(")")
        name, offset = token.text, token.offset
        counts = {"and": 2, "or": 2, "xor": 2, "not": 1, "int32": 1, "uint32": 1}
        if name not in counts:
            raise CelError(f"{name}() is not known", offset, ", ".join(f"{x}()" for x in counts))
        if len(operands) != counts[name]:
            raise CelError(f"{name}() has {len(operands)} operands", offset, str(counts[name]))
        if name in _LOGIC:
            return _binary(_LOGIC[name], operands[0], operands[1], offset)
        if name == "not":
            return _negated(operands[0], offset)
        return _converted(operands[0], CelType.S32 if name == "int32" else CelType.U32, offset)


def _literal(token: _Token, sign: int = 1) -> Literal:
    text = token.text
    kind = CelType.U64 if text[-1] in "uU" else CelType.S64
    value = sign * int(text.rstrip("uU"), 16 if text[:2].lower() == "0x" else 10)
    low, high = _RANGES[kind]
    if not low <= value <= high:
        raise CelError(f"{text} does not fit {kind.value}", token.offset, f"{low} to {high}")
    return Literal(value, kind)


def _negated(operand: Node, offset: int) -> Node:
    if operand.type is not CelType.BOOL:
        raise CelError(f"not on {operand.type.value}", offset, "a truth value")
    return Unary("!", operand, CelType.BOOL)


def _converted(operand: Node, kind: CelType, offset: int) -> Node:
    if operand.type is CelType.BOOL:
        raise CelError(f"a truth value does not convert to {kind.value}", offset, "a number")
    low, high = _RANGES[kind]
    if isinstance(operand, Literal):
        if not low <= operand.value <= high:
            raise CelError(f"{operand.value} does not fit {kind.value}", offset, f"{low} to {high}")
        return Literal(operand.value, kind)
    return Conversion(operand, kind)


def _binary(operator: str, left: Node, right: Node, offset: int) -> Node:
    if left.type is not right.type:
        message = (
            f"{operator} has {left.type.value} on its left and {right.type.value} on its right"
        )
        raise CelError(message, offset, "the same type on both sides: int32(5), uint32(5u), 5u")
    logic = operator in ("&&", "||", "^")
    if logic is not (left.type is CelType.BOOL) and operator not in ("==", "!="):
        wanted = "truth values" if logic else "numbers"
        raise CelError(f"{operator} on {left.type.value}", offset, wanted)
    comparison = logic or operator in ("==", "!=") or operator in _ORDERED
    return Binary(operator, left, right, CelType.BOOL if comparison else left.type)
