"""How to reach NATS."""

from __future__ import annotations

import ssl
from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class BusSettings(BaseSettings):
    """How to reach NATS; files are read again at each reconnect, so they can be replaced."""

    model_config = SettingsConfigDict(env_prefix="TETRA_")

    nats_url: str = Field(
        "nats://127.0.0.1:4222", description="NATS server, or several separated by commas"
    )
    nats_user: str | None = Field(None, description="NATS user name")
    nats_password: str | None = Field(None, description="its password; prefer the file", repr=False)
    nats_password_file: Path | None = Field(None, description="file with the password")
    nats_creds_file: Path | None = Field(None, description="NATS credentials file (JWT and key)")
    nats_tls_ca_file: Path | None = Field(
        None, description="certificates that NATS servers are checked against (PEM)"
    )
    nats_tls_cert_file: Path | None = Field(None, description="our certificate for NATS (PEM)")
    nats_tls_key_file: Path | None = Field(None, description="key of our certificate (PEM)")

    def nats_servers(self) -> list[str]:
        """Return the server addresses, with the scheme ``nats://`` where none is given."""
        parts = (part.strip() for part in self.nats_url.split(","))
        return [part if "://" in part else f"nats://{part}" for part in parts if part]

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
