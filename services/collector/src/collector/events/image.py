"""The fields of tetragon.Process that an exec establishes."""

from __future__ import annotations

from functools import lru_cache

from collector.events.fields import tags
from collector.events.pod import host_unit, pod_field
from collector.processes.table import ContainerInfo, Image
from collector.records.layouts import Credentials, Namespaces
from tetra.v1 import extensions_pb2
from tetragon import tetragon_pb2
from tetragon.capabilities_pb2 import CapabilitiesType, SecureBitsType
from wire.write import message, text, uint32_value, varint

_CACHED_MAX = 1024  # parts that many images share; at most 8 KiB each

_P = tags(
    tetragon_pb2.Process,
    "uid", "cwd", "binary", "arguments", "auid", "docker", "cap", "ns", "process_credentials",
    "user", "environment_variables", "argv", "container_info", "user_name",
    "host_unit",
)  # fmt: skip
_UID, _CWD, _BINARY, _ARGUMENTS, _AUID, _DOCKER, _USER_NAME = (
    _P[name] for name in ("uid", "cwd", "binary", "arguments", "auid", "docker", "user_name")
)
_USER = tags(tetragon_pb2.UserRecord, "name")
_VARIABLE = tags(tetragon_pb2.EnvVar, "Key", "Value")
_CONTAINER = tags(extensions_pb2.ContainerInfo, "id", "name", "image", "runtime")
_CAPABILITIES = tags(tetragon_pb2.Capabilities, "permitted", "effective", "inheritable")
_NAMESPACES = tags(tetragon_pb2.Namespaces, *Namespaces._fields)
_IDS = tags(
    tetragon_pb2.ProcessCredentials,
    "uid", "gid", "euid", "egid", "suid", "sgid", "fsuid", "fsgid",
)  # fmt: skip
_SECUREBITS = tags(tetragon_pb2.ProcessCredentials, "securebits")["securebits"]


def encode_image(image: Image, host_namespaces: Namespaces | None) -> bytes:
    """Return the serialized fields; ``host_namespaces`` marks those that are the host's."""
    out = [
        _program(image.uid, image.cwd, image.binary),
        text(_ARGUMENTS, image.arguments),
        _owner(image.auid, image.docker, image.user),
    ]
    if image.show_user:
        out.append(message(_P["user"], text(_USER["name"], image.user)))
    if image.credentials:
        out.append(message(_P["cap"], _capabilities(image.credentials)))
        out.append(message(_P["process_credentials"], _credentials(image.credentials)))
    if image.namespaces:
        out.append(message(_P["ns"], _namespaces(image.namespaces, host_namespaces)))
    for key, value in image.environment:
        entry = text(_VARIABLE["Key"], key) + text(_VARIABLE["Value"], value)
        out.append(message(_P["environment_variables"], entry))
    out += [message(_P["argv"], argument) for argument in image.argv]
    if image.container is not None:
        out.append(message(_P["container_info"], _container(image.container)))
        out.append(pod_field(image))
    if image.unit is not None:
        out.append(message(_P["host_unit"], host_unit(image.unit)))
    return b"".join(out)


@lru_cache(_CACHED_MAX)
def _program(uid: int, cwd: str, binary: str) -> bytes:
    return uint32_value(_UID, uid) + text(_CWD, cwd) + text(_BINARY, binary)


@lru_cache(_CACHED_MAX)
def _owner(auid: int, docker: str, user: str) -> bytes:
    return uint32_value(_AUID, auid) + text(_DOCKER, docker) + text(_USER_NAME, user)


def capability_list(mask: int) -> bytes:
    """Return the packed CapabilitiesType values whose bits are set in ``mask``, ascending."""
    return b"".join(varint(cap) for cap in CapabilitiesType.values() if mask >> cap & 1)


def _credentials(credentials: Credentials) -> bytes:
    body = b"".join(uint32_value(tag, getattr(credentials, name)) for name, tag in _IDS.items())
    bits = credentials.securebits
    packed = b"".join(varint(bit) for bit in SecureBitsType.values() if bit and bits & bit)
    return body + message(_SECUREBITS, packed) if packed else body


def _capabilities(credentials: Credentials) -> bytes:
    return b"".join(
        message(tag, capability_list(mask))
        for name, tag in _CAPABILITIES.items()
        if (mask := getattr(credentials, name))
    )


def _namespaces(namespaces: Namespaces, host: Namespaces | None) -> bytes:
    out = b""
    for name, tag in _NAMESPACES.items():
        inode = getattr(namespaces, name)
        if inode == 0 and name.startswith("time"):
            continue  # a kernel without time namespaces
        body = b"\x08" + varint(inode) if inode else b""
        if host and getattr(host, name) == inode:
            body += b"\x10\x01"
        out += message(tag, body)
    return out


def _container(container: ContainerInfo) -> bytes:
    return b"".join(text(tag, getattr(container, name)) for name, tag in _CONTAINER.items())
