"""Addresses of servers, TLS files, and how the server is found from inside a container."""

from __future__ import annotations

import json
import os
import re
import socket
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cli.errors import UnreachableError, UsageError

if TYPE_CHECKING:
    import ssl

DEFAULT_PORT = 54321
DEFAULT_ADDRESS = f"localhost:{DEFAULT_PORT}"
AGENT_INFO_FILE = "/var/run/tetragon/tetragon-info.json"
_EXAMPLE = "--server-address gateway.example:54321"
_ALLOWED = "host:port, unix:///run/tetra.sock, dns:///gateways:54321"
_PROBE_TIMEOUT_S = 0.3
_ROUTE_FLAG_GATEWAY = 0x2  # RTF_GATEWAY, include/uapi/linux/route.h


@dataclass(frozen=True, slots=True)
class Address:
    """One server, as gRPC takes it."""

    target: str

    def __str__(self) -> str:
        return self.target

    @property
    def is_local(self) -> bool:
        """Whether the server is on this host: a socket file, or a loopback address."""
        if self.endpoint is None:
            return self.target.startswith("unix")
        host = self.endpoint[0]
        return host in ("localhost", "::1") or host.startswith("127.")

    @property
    def endpoint(self) -> tuple[str, int] | None:
        """Host and port; None for a socket file."""
        found = re.fullmatch(r"(?:dns:///)?\[?([^\]/]+?)\]?:(\d+)", self.target)
        return (found.group(1), int(found.group(2))) if found else None


class Credentials(NamedTuple):
    """Contents of PEM files."""

    roots: bytes | None
    certificate: bytes | None
    private_key: bytes | None


@dataclass(frozen=True, slots=True)
class Tls:
    """Certificates and keys by which server and client authenticate."""

    ca_cert_files: tuple[str, ...] = ()
    cert_file: str = ""
    key_file: str = ""
    server_name: str = ""
    skip_verify: bool = False

    def load(self, address: Address) -> tuple[Credentials, str]:
        """Return the credentials and the name to expect in the certificate (empty: the host)."""
        roots = b"".join(_pem(name, "--tls-ca-cert-files") for name in self.ca_cert_files) or None
        certificate = _pem(self.cert_file, "--tls-cert-file") if self.cert_file else None
        key = _pem(self.key_file, "--tls-key-file") if self.key_file else None
        override = self.server_name
        self._check(roots)
        if self.skip_verify:
            roots, override = _served_certificate(address)
        return Credentials(roots, certificate, key), override

    def _check(self, roots: bytes | None) -> None:
        # gRPC reports a failure without its cause.
        import ssl

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if roots is not None:
            try:
                context.load_verify_locations(cadata=roots.decode())
            except (ssl.SSLError, ValueError):
                names = ",".join(self.ca_cert_files)
                raise UsageError(
                    f"--tls-ca-cert-files: {names}: no readable certificate in it",
                    "--tls-ca-cert-files ca.pem",
                ) from None
        if self.cert_file:
            try:
                context.load_cert_chain(self.cert_file, self.key_file, password=_no_password)
            except (ssl.SSLError, ValueError) as error:
                why = (
                    "the certificate and the key do not belong together"
                    if "KEY_VALUES_MISMATCH" in str(error)
                    else "not a certificate and its key (without a password)"
                )
                raise UsageError(
                    f"--tls-cert-file {self.cert_file}, --tls-key-file {self.key_file}: {why}",
                    "--tls-cert-file client.pem --tls-key-file client-key.pem",
                ) from None


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """How to reach a server; the addresses are tried in turn."""

    addresses: tuple[Address, ...]
    timeout_s: float = 30.0  # for unary calls; streams have none
    retries: int = 1
    max_recv_size_bytes: int = 10 * 1024 * 1024
    tls: Tls | None = None
    token: str = ""  # for gateways that ask for one

    @property
    def shows_token(self) -> bool:
        """Whether the token would cross a network unencrypted."""
        return bool(self.token and self.tls is None) and not all(
            address.is_local for address in self.addresses
        )


def parse_addresses(text: str) -> tuple[Address, ...]:
    """Return the servers in a comma-separated list; raise `UsageError` for a wrong one."""
    return tuple(_parse_address(part.strip()) for part in text.split(","))


def _parse_address(text: str) -> Address:
    if text.startswith(("unix:", "unix-abstract:", "ipv4:", "ipv6:")):
        return Address(text)
    prefix = "dns:///" if text.startswith("dns:///") else ""
    rest = text.removeprefix(prefix)
    if "://" in rest:
        raise UsageError(
            f"server address {text!r}: no scheme is needed (allowed: {_ALLOWED})", _EXAMPLE
        )
    found = re.fullmatch(r"(\[[0-9A-Fa-f:.%\w]+\]|[^\s:/\[\]]+)(?::(\d+))?", rest)
    if not found:
        raise UsageError(f"server address {text!r}: not understood (allowed: {_ALLOWED})", _EXAMPLE)
    port = int(found.group(2) or DEFAULT_PORT)
    if not 0 < port < 65536:
        raise UsageError(f"server address {text!r}: port {port} is not in 1-65535", _EXAMPLE)
    return Address(f"{prefix}{found.group(1)}:{port}")


def default_address() -> str:
    """Return the address that is used if none is given.

    It is the address in the info file of a Tetragon agent on this host. Without one, and with
    ``TETRA_DISCOVER=1`` as in the container image, it is the first that answers of: this network
    namespace, a container named ``gateway``, the host behind the default route.
    """
    address = _agent_address()
    if address:
        return address
    if os.environ.get("TETRA_DISCOVER") != "1":
        return DEFAULT_ADDRESS
    for host in ("localhost", "gateway", default_route()):
        if host and _answers(host, DEFAULT_PORT):
            return f"{host}:{DEFAULT_PORT}"
    return DEFAULT_ADDRESS


def _agent_address() -> str:
    try:
        info = json.loads(Path(AGENT_INFO_FILE).read_text())
    except (OSError, ValueError):
        return ""
    address = info.get("server_address") if isinstance(info, dict) else None
    return address if isinstance(address, str) else ""


def _answers(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=_PROBE_TIMEOUT_S).close()
    except OSError:
        return False
    return True


def default_route(table: str = "/proc/net/route") -> str:
    """Return the address of the IPv4 default gateway, or nothing."""
    try:
        lines = Path(table).read_text().splitlines()[1:]
    except OSError:
        return ""
    for line in lines:
        # Iface Destination Gateway Flags ...; addresses as hexadecimal in host byte order.
        fields = line.split()
        if len(fields) > 3 and fields[1] == "00000000" and int(fields[3], 16) & _ROUTE_FLAG_GATEWAY:
            return socket.inet_ntoa(struct.pack("=I", int(fields[2], 16)))
    return ""


def _pem(name: str, flag: str) -> bytes:
    try:
        data = Path(name).read_bytes()
    except OSError as error:
        raise UsageError(f"{flag}: {name}: {_reason(error)}", f"{flag} tls.pem") from None
    if b"-----BEGIN " not in data:
        raise UsageError(f"{flag}: {name}: not a PEM file", f"{flag} tls.pem")
    return data


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


def _no_password() -> str:
    raise ValueError("the key has a password")


def _served_certificate(address: Address) -> tuple[bytes, str]:
    """Return the server's certificate, to be its own root, and a name in it."""
    import ssl

    if address.endpoint is None:
        raise UsageError(f"--tls-skip-verify: {address}: needs host:port", _EXAMPLE)
    try:
        unverified = ssl.create_default_context()
        unverified.check_hostname = False
        unverified.verify_mode = ssl.CERT_NONE
        unverified.set_alpn_protocols(["h2"])
        der = _peer_certificate(unverified, address.endpoint)
        pem = ssl.DER_cert_to_PEM_cert(der)
        # ssl parses a certificate only if it is verified: here, against itself.
        itself = ssl.create_default_context(cadata=pem)
        itself.check_hostname = False
        itself.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        itself.set_alpn_protocols(["h2"])
        with (
            socket.create_connection(address.endpoint, timeout=5) as plain,
            itself.wrap_socket(plain) as secure,
        ):
            parsed = secure.getpeercert() or {}
    except OSError as error:
        cause = _reason(error)
        if "wrong version number" in cause.replace("_", " "):
            cause = "TLS: the server does not use TLS; leave the --tls flags out"
        raise UnreachableError(f"read certificate: {address}: {cause}") from None
    names = [str(entry[1]) for entry in parsed.get("subjectAltName", ()) if len(entry) == 2]
    return pem.encode(), names[0].replace("*", "any") if names else ""


def _peer_certificate(context: ssl.SSLContext, endpoint: tuple[str, int]) -> bytes:
    with (
        socket.create_connection(endpoint, timeout=5) as plain,
        context.wrap_socket(plain) as secure,
    ):
        return secure.getpeercert(binary_form=True) or b""
