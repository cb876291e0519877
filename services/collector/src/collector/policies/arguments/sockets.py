"""Sockets, packets and socket addresses: sock, socket, skb, sockaddr, sockaddr_un."""

from __future__ import annotations

from collector.policies.arguments.base import Arg, Cost, Unit, fetch_address, write_guarded
from collector.policies.ctext import Lines
from collector.policies.selectors import numbers, sockets, texts
from collector.policies.sources import Frame, expression
from tracingpolicy.operators import Operator
from tracingpolicy.selectors import ValueFilter
from tracingpolicy.types import ArgumentType

_VIEWS = {
    ArgumentType.SOCK: "sock_view",
    ArgumentType.SOCKET: "sock_view",
    ArgumentType.FD_SOCK: "sock_view",
    ArgumentType.SKB: "skb_view",
    ArgumentType.SOCKADDR: "sockaddr_view",
}


class SocketReader:
    """Everything with addresses: a view on the stack, compared there and copied into the item."""

    headers: tuple[str, ...] = ("sockets.h",)

    def cost(self, arg: Arg, filters: list[ValueFilter]) -> Cost:
        return Cost.OBJECT

    def fetch(self, arg: Arg, frame: Frame, out: Lines) -> None:
        fetch_address(arg, frame, out)
        if arg.type is ArgumentType.SOCKET:
            out.add(f"{arg.name} = sock_of_socket({arg.name});")
        if arg.type is ArgumentType.FD_SOCK:
            out.add(f"{arg.name} = sock_of_fd({arg.name});")
        out.add(
            f"struct {_VIEWS[arg.type]} {arg.name}_view = {{}};", f"bool {arg.name}_ok = false;"
        )

    def read(self, arg: Arg, filters: list[ValueFilter], out: Lines) -> bool:
        call = {
            ArgumentType.SKB: f"view_skb(&{arg.name}_view, {arg.name})",
            ArgumentType.SOCKADDR: f"view_sockaddr(&{arg.name}_view, {arg.name}, {arg.user})",
        }.get(arg.type, f"view_sock(&{arg.name}_view, {arg.name})")
        guard = f"!{arg.failed} && " if arg.can_fail else ""
        out.add(f"{arg.name}_ok = {guard}{call};")
        return False

    def condition(self, arg: Arg, one: ValueFilter, filters: list[ValueFilter], unit: Unit) -> str:
        return f"({arg.name}_ok && {sockets.condition(f'{arg.name}_view', one, unit)})"

    def write(self, arg: Arg, out: Lines) -> None:
        out.add(f"if (!{arg.name}_ok)")
        inner = Lines(depth=out.depth + 1)
        self.read(arg, [], inner)
        out.lines += inner.lines
        out.add(f"if ({arg.name}_ok)",
                f"\twrite_view(s, {arg.number}, {arg.position}, &{arg.name}_view);",
                "else",
                f"\twrite_error(s, {arg.number}, {arg.position}, ERROR_VALUE, 0);")  # fmt: skip


class FdSocketReader(SocketReader):
    """fd_sock: the socket behind a descriptor of the current task."""

    headers: tuple[str, ...] = ("sockets.h", "fd_sockets.h")


class UnixAddressReader:
    """sockaddr_un: family and path."""

    headers: tuple[str, ...] = ("sockets.h", "text.h")

    def cost(self, arg: Arg, filters: list[ValueFilter]) -> Cost:
        return Cost.TEXT

    def fetch(self, arg: Arg, frame: Frame, out: Lines) -> None:
        fetch_address(arg, frame, out)
        length = arg.planned.length
        size = "~0u" if length is None else f"(u32){expression(length, frame)}"
        out.add(
            f"u32 {arg.name}_size = {size};",
            f"s32 {arg.name}_len = -1;",
            f"char *{arg.name}_text = NULL;",
            f"u16 {arg.name}_family = 0;",
        )

    def read(self, arg: Arg, filters: list[ValueFilter], out: Lines) -> bool:
        self.write(arg, out)
        return True

    def condition(self, arg: Arg, one: ValueFilter, filters: list[ValueFilter], unit: Unit) -> str:
        if one.operator is Operator.FAMILY:
            found = numbers.contains(
                f"{arg.name}_family", numbers.intervals(one.values),
                is_signed=False, unit=unit,
            )  # fmt: skip
        else:
            found = texts.condition(f"{arg.name}_text", f"{arg.name}_len", one, unit)
        return f"({arg.name}_len >= 0 && {found})"

    def write(self, arg: Arg, out: Lines) -> None:
        name = arg.name
        call = (
            f"{name}_len = write_sockaddr_un(s, {arg.position}, {name}, {name}_size, {arg.user}, "
            f"&{name}_text, &{name}_family);"
        )
        write_guarded(arg, call, out)
