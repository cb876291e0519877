"""The subjects of an event of a policy: the files and peers that its arguments name.

A relative name is joined with the directory that stands beside it in the event: arguments with the
labels ``dir`` and ``name``, ``dir`` or ``cwd`` and ``path``, ``to_dir`` and ``to_name``, ``to``.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from tetragon.tetragon_pb2 import KprobeArgument

_PATHS = ("file_arg", "path_arg", "linux_binprm_arg")
_DELETED = " (deleted)"
_INET = ("AF_INET", "AF_INET6")
_MAPPED = "::ffff:"
# Members of KprobeArgument.arg that have the peer's address.
_PEERS: Mapping[str, tuple[str, str]] = {
    "sock_arg": ("daddr", "dport"),
    "skb_arg": ("daddr", "dport"),
    "sockaddr_arg": ("addr", "port"),
}


class Files(NamedTuple):
    """The file of an event and, for a rename or link, the second name."""

    path: str = ""
    to: str = ""


class Peer(NamedTuple):
    """The other side of a connection, or where a packet goes."""

    address: str
    port: int


def arguments(body: Any) -> list[KprobeArgument]:
    """Return arguments and data of a body, none where its kind has none."""
    known = body.DESCRIPTOR.fields_by_name
    args = list(body.args) if "args" in known else []
    return [*args, *body.data] if "data" in known else args


def files(body: Any) -> Files:
    """Return the files of an event of a policy."""
    texts = {one.label: text for one in arguments(body) if (text := text_of(one))}
    returned = _returned(body)
    if returned:
        return Files(returned)
    to = texts.get("to_name") or texts.get("to", "")
    if "name" in texts:
        return Files(
            _inside(texts.get("dir", ""), texts["name"]),
            _inside(texts["to_dir"], to) if "to_dir" in texts and to else to,
        )
    cwd = texts.get("cwd", "")
    path = _joined(texts.get("dir") or cwd, texts.get("path", ""))
    return Files(path, _joined(texts.get("to_dir") or cwd, to))


def all_paths(body: Any) -> Iterable[str]:
    """Return every absolute path that an event of a policy names."""
    found = [path for path in files(body) if path.startswith("/")]
    found += [text for one in arguments(body) if (text := text_of(one)).startswith("/")]
    return dict.fromkeys(found)


def peers(body: Any) -> list[Peer]:
    """Return the peers that an event of a policy names, of IPv4 and IPv6."""
    args = arguments(body)
    if "return" in body.DESCRIPTOR.fields_by_name and body.HasField("return"):
        args.append(getattr(body, "return"))
    found = []
    for one in args:
        member = one.WhichOneof("arg") or ""
        if names := _PEERS.get(member):
            value = getattr(one, member)
            address, port = (getattr(value, name) for name in names)
            if value.family in _INET and address:
                found.append(Peer(plain_address(address), port))
    return found


def plain_address(address: str) -> str:
    """Return an IPv4 address as such, also on an IPv6 socket, where it is ::ffff:192.0.2.1."""
    rest = address.removeprefix(_MAPPED)
    return rest if "." in rest else address


def text_of(argument: KprobeArgument) -> str:
    """Return the path or text of an argument; "" for one that is neither."""
    member = argument.WhichOneof("arg")
    if member in _PATHS:
        return str(getattr(argument, member).path).removesuffix(_DELETED)
    return argument.string_arg if member == "string_arg" else ""


def _returned(body: Any) -> str:
    if "return" not in body.DESCRIPTOR.fields_by_name:
        return ""
    return text_of(getattr(body, "return"))


def _inside(folder: str, name: str) -> str:
    """Return the file of a name: its own path is one inside its mount only."""
    return posixpath.join(folder or "/", posixpath.basename(name))


def _joined(folder: str, name: str) -> str:
    if not name or name.startswith("/") or not folder:
        return name
    return posixpath.normpath(posixpath.join(folder, name))
