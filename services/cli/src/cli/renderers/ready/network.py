"""Policy ``network``: connections, listening sockets, datagrams and names asked for."""

from __future__ import annotations

from typing import Any

from cli.renderers.ready.act import Act, error_name, failure_of, value_of
from cli.renderers.ready.dns import question
from cli.timestamps import duration_text
from eventfilters.accesses import peers, plain_address
from tetragon.tetragon_pb2 import KprobeArgument, KprobeSock

_EMOJIS = {
    "connect": "🔌", "accept": "📥", "listen": "👂", "close": "🔚", "send": "📤", "lookup": "🔎",
}  # fmt: skip
_UNITS = ("B", "kB", "MB", "GB", "TB")
# Old states in which the peer's FIN has come: FIN_WAIT2, LAST_ACK, CLOSING. It counts as a byte.
_ENDED_BY_PEER = (5, 9, 11)
_OLD_STATE, _ERROR, _AGE, _SENT, _RECEIVED = 1, 3, 3, 4, 5  # positions in the document's arguments
_UDP_AGE, _UDP_SENT, _UDP_RECEIVED = 1, 2, 3


def act(body: Any) -> Act:
    """Return the connection, datagram or question."""
    word = body.message
    first = body.args[0] if body.args else KprobeArgument()
    found = peers(body)
    peer = str(found[-1].address) if found else ""
    what, outcome = "", failure_of(body)
    if word == "connect" and first.HasField("sock_arg"):
        what, outcome = _to(first), error_name(_number(body, _ERROR))
    elif word == "connect":
        what = f"unix {first.sockaddrun_arg.path}"
    elif word == "accept":
        what = _accepted(getattr(body, "return", first))
    elif word == "listen":
        what, peer = f"tcp {_address(first.sock_arg.saddr, first.sock_arg.sport)}", ""
    elif word == "close":
        what = _closed(body, first)
        peer = peer if first.sock_arg.dport else ""
    elif word == "lookup":
        what = question(body.args[-1].bytes_arg if body.args else b"") or "?"
        what += f" at {_address(first.skb_arg.daddr, first.skb_arg.dport)}"
    elif found:
        what = f"udp {_address(*found[-1])}"
    return Act(_EMOJIS.get(word, "🔌"), word, what, outcome, peer=peer)


def _number(body: Any, position: int) -> int:
    value = value_of(body.args[position]) if position < len(body.args) else None
    return value or 0


def _to(argument: KprobeArgument) -> str:
    sock = argument.sock_arg
    return f"tcp {_address(sock.daddr, sock.dport)}"


def _accepted(argument: KprobeArgument) -> str:
    sock = argument.sock_arg
    return f"tcp {_address(sock.saddr, sock.sport)} from {_address(sock.daddr, sock.dport)}"


def _closed(body: Any, first: KprobeArgument) -> str:
    sock = first.sock_arg
    if sock.protocol == "IPPROTO_UDP":
        return _closed_udp(body, sock)
    local = _address(sock.saddr, sock.sport)
    lasted = duration_text(_number(body, _AGE) / 1e9)
    if not sock.dport:
        return f"tcp {local} listened {lasted}"
    received = _number(body, _RECEIVED)
    if received and _number(body, _OLD_STATE) in _ENDED_BY_PEER:
        received -= 1
    remote = _address(sock.daddr, sock.dport)
    sent = amount(_number(body, _SENT))
    return f"tcp {local} and {remote} sent {sent} received {amount(received)} in {lasted}"


def _closed_udp(body: Any, sock: KprobeSock) -> str:
    what = f"udp {_address(sock.saddr, sock.sport)}"
    if sock.dport:
        what += f" and {_address(sock.daddr, sock.dport)}"
    sent, received = (amount(_number(body, at)) for at in (_UDP_SENT, _UDP_RECEIVED))
    lasted = duration_text(_number(body, _UDP_AGE) / 1e9)
    return f"{what} sent {sent} received {received} in {lasted}"


def _address(address: str, port: int) -> str:
    address = plain_address(address)
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def amount(count: int) -> str:
    """Return a number of bytes with at most four digits: ``1.5 kB``."""
    value, unit = float(count), 0
    while value >= 999.5 and unit < len(_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{count} B" if unit == 0 else f"{value:.3g} {_UNITS[unit]}"
