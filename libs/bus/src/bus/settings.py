"""How to reach NATS."""

from __future__ import annotations

import ssl
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings

from chassis.errors import SettingsError
from chassis.settings import STYLE

_SCHEMES = ("nats", "tls")


class BusSettings(BaseSettings):
    """How to reach NATS; files are read again at each reconnect, so they can be replaced."""

    model_config = STYLE

    nats_url: str = Field(
        "nats://127.0.0.1:4222", description="NATS server, or several separated by commas"
    )
    nats_user: str | None = Field(None, description="NATS user name")
    nats_password: str | None = Field(
        None, description="NATS password; prefer the file", repr=False
    )
    nats_password_file: Path | None = Field(None, description="file with the password")
    nats_creds_file: Path | None = Field(None, description="NATS credentials file (JWT and key)")
    nats_tls_ca_file: Path | None = Field(
        None, description="certificate authorities for verifying NATS servers (PEM)"
    )
    nats_tls_cert_file: Path | None = Field(None, description="client certificate for NATS (PEM)")
    nats_tls_key_file: Path | None = Field(None, description="key of the client certificate (PEM)")

    @field_validator("nats_url")
    @classmethod
    def _check_servers(cls, text: str) -> str:
        if not _servers(text):
            raise ValueError("names no server: expected nats://HOST:PORT")
        for server in _servers(text):
            if not _is_server(server):
                shown = server.rpartition("@")[2]  # a password may stand before it
                raise ValueError(f"{shown}: expected nats://HOST:PORT or tls://HOST:PORT")
        return text

    def nats_servers(self) -> list[str]:
        """Return the server addresses, with the scheme ``nats://`` where none is given."""
        return _servers(self.nats_url)

    def read_nats_password(self) -> str | None:
        """Return the password, from its file where there is one."""
        if self.nats_password_file is not None:
            return self.nats_password_file.read_text().strip()
        return self.nats_password

    def nats_tls(self) -> ssl.SSLContext | None:
        """Return what TLS needs, or None where no certificate is set and no address asks for it."""
        wanted = self.nats_tls_ca_file or self.nats_tls_cert_file
        if not wanted and not any(s.startswith("tls://") for s in self.nats_servers()):
            return None
        context = ssl.create_default_context(cafile=self.nats_tls_ca_file)
        self.load_nats_certificate(context)
        return context

    def load_nats_certificate(self, context: ssl.SSLContext) -> None:
        """Read our certificate, again or for the first time."""
        if self.nats_tls_cert_file:
            context.load_cert_chain(self.nats_tls_cert_file, self.nats_tls_key_file)

    def read_files(self) -> ssl.SSLContext | None:
        """Read all files once; return what TLS needs. Raises `SettingsError` with the file's name.

        Later they are read at reconnects, where one that is missing for a moment ends nothing.
        """
        try:
            self.read_nats_password()
        except (OSError, UnicodeDecodeError) as error:
            raise _unreadable("nats_password_file", self.nats_password_file, error) from None
        try:
            if self.nats_creds_file:
                self.nats_creds_file.read_bytes()
        except OSError as error:
            raise _unreadable("nats_creds_file", self.nats_creds_file, error) from None
        try:
            ssl.create_default_context(cafile=self.nats_tls_ca_file)
        except OSError as error:
            raise _unreadable("nats_tls_ca_file", self.nats_tls_ca_file, error) from None
        try:
            return self.nats_tls()
        except OSError as error:
            files = f"{self.nats_tls_cert_file} and {self.nats_tls_key_file}"
            raise _unreadable("nats_tls_cert_file", files, error) from None


def _servers(text: str) -> list[str]:
    parts = (part.strip() for part in text.split(","))
    return [part if "://" in part else f"nats://{part}" for part in parts if part]


def _is_server(server: str) -> bool:
    try:
        parts = urlsplit(server)
        return parts.scheme in _SCHEMES and bool(parts.hostname) and parts.port != 0
    except ValueError:  # the port
        return False


def _unreadable(setting: str, file: object, error: OSError | UnicodeDecodeError) -> SettingsError:
    cause = "not UTF-8" if isinstance(error, UnicodeDecodeError) else error.strerror
    if isinstance(error, ssl.SSLError):
        cause = f"no certificate or key in PEM, or they do not belong together ({error.reason})"
    return SettingsError(f"settings: TETRA_{setting.upper()}: {file}: {cause or error}")
