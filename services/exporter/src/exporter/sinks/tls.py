"""The TLS of a sink that connects: which certificates it accepts, and its own."""

from __future__ import annotations

import ssl
from pathlib import Path

from exporter.errors import SinkError


def make_context(
    name: str, ca: Path | None, certificate: Path | None = None, key: Path | None = None
) -> ssl.SSLContext:
    """Return the context for sink ``name``; raise `SinkError` with the file that is at fault."""
    check_ca(name, ca)
    context = ssl.create_default_context(cafile=ca)
    if certificate is None:
        return context
    for setting, path in (("certificate_file", certificate), ("key_file", key)):
        if path is not None:
            read(name, setting, path)  # the library's own error names no file
    try:
        context.load_cert_chain(certificate, key)
    except ssl.SSLError:
        about = f"key_file {key}" if key else "the key in it"
        raise SinkError(
            f"sink {name}: certificate_file: {certificate}: not a certificate in PEM, or {about} "
            "is not its key"
        ) from None
    return context


def check_ca(name: str, ca: Path | None) -> bytes | None:
    """Return the certificates in the file; raise `SinkError` where there are none."""
    if ca is None:
        return None
    data = read(name, "ca_file", ca)
    try:
        ssl.create_default_context(cafile=ca)
    except ssl.SSLError:
        raise SinkError(f"sink {name}: ca_file: {ca}: not a certificate in PEM") from None
    return data


def read(name: str, setting: str, path: Path) -> bytes:
    """Return what is in the file of a ``setting``; raise `SinkError`."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise SinkError(f"sink {name}: {setting}: {path}: {error.strerror}") from None
