"""Server certificates, read again when their files change."""

from __future__ import annotations

import os
from pathlib import Path

import grpc
import structlog

from gateway.errors import SecurityError
from gateway.settings import Settings

_log = structlog.get_logger()


class Certificates:
    """Certificate, key and client authorities as gRPC wants them."""

    def __init__(self, cert: Path, key: Path, client_ca: Path | None) -> None:
        """Read the files; raise `SecurityError` if that fails."""
        self._cert, self._key, self._client_ca = cert, key, client_ca
        self._stamps: tuple[int, ...] = ()
        self._configuration = self._read()

    def credentials(self) -> grpc.ServerCredentials:
        """Return credentials that follow the files."""
        return grpc.dynamic_ssl_server_credentials(
            self._configuration,
            self._fetch,  # type: ignore[arg-type]  # the stub lacks that it may return None
            require_client_authentication=self._client_ca is not None,
        )

    # gRPC calls this from a thread of its own, at each handshake. None: unchanged.
    def _fetch(self) -> grpc.ServerCertificateConfiguration | None:
        try:
            if self._stat() == self._stamps:
                return None
            self._configuration = self._read()
        except (OSError, SecurityError) as error:
            _log.warning("certificate not reloaded", error=str(error))
            return None
        _log.info("certificate reloaded", file=str(self._cert))
        return self._configuration

    def _read(self) -> grpc.ServerCertificateConfiguration:
        try:
            stamps = self._stat()
            pair = (self._key.read_bytes(), self._cert.read_bytes())
            authorities = self._client_ca.read_bytes() if self._client_ca else None
        except OSError as error:
            raise SecurityError(
                f"tls: {error.filename}: {(error.strerror or str(error)).lower()}"
            ) from None
        for path, text in ((self._key, pair[0]), (self._cert, pair[1])):
            if b"-----BEGIN " not in text:
                raise SecurityError(f"tls: {path}: is not PEM")
        self._stamps = stamps
        return grpc.ssl_server_certificate_configuration([pair], authorities)

    def _stat(self) -> tuple[int, ...]:
        files = [self._cert, self._key, *([self._client_ca] if self._client_ca else [])]
        return tuple(os.stat(file).st_mtime_ns for file in files)


def load(settings: Settings) -> grpc.ServerCredentials | None:
    """Return the server's credentials, None for plaintext; raise `SecurityError`."""
    cert, key = settings.tls_cert_file, settings.tls_key_file
    if cert is not None and key is not None:
        return Certificates(cert, key, settings.tls_client_ca_file).credentials()
    if cert is not None or key is not None or settings.tls_client_ca_file is not None:
        raise SecurityError("tls: TETRA_TLS_CERT_FILE and TETRA_TLS_KEY_FILE are both needed")
    return None
