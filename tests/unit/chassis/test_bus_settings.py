"""Mistakes in how to reach NATS are named with their setting, before anything is tried."""

import pytest

from bus import connection
from bus.settings import BusSettings
from chassis.errors import SettingsError
from chassis.settings import ServiceSettings, load


class Settings(ServiceSettings, BusSettings):
    """As a service has them."""


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("", "names no server: expected nats://HOST:PORT"),
        ("http://nats:4222", "http://nats:4222: expected nats://HOST:PORT or tls://HOST:PORT"),
        ("::::", "expected nats://HOST:PORT"),
        ("nats://one:4222,nats://two:port", "nats://two:port: expected"),
        ("nats://user:s3cret@nats:99999", "nats:99999: expected"),
    ],
)
def test_invalid_address_is_reported_without_its_password(url, text):
    with pytest.raises(SettingsError) as caught:
        load(Settings, "test", ["--nats-url", url])
    assert str(caught.value).startswith("settings: TETRA_NATS_URL (--nats-url): ")
    assert text in str(caught.value)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("url", ["nats", "127.0.0.1:4222", "nats://u:p@a:1,tls://b"])
def test_addresses_of_nats_are_accepted(url):
    assert load(Settings, "test", ["--nats-url", url]).nats_servers()


@pytest.mark.parametrize(
    ("setting", "content", "cause"),
    [
        ("nats_password_file", None, "No such file or directory"),
        ("nats_password_file", b"\xff", "not UTF-8"),
        ("nats_creds_file", None, "No such file or directory"),
        ("nats_tls_ca_file", None, "No such file or directory"),
        ("nats_tls_ca_file", b"no certificate", "no certificate or key in PEM"),
        ("nats_tls_cert_file", None, "No such file or directory"),
        ("nats_tls_cert_file", b"no certificate", "no certificate or key in PEM"),
    ],
)
async def test_file_that_cannot_be_used_is_named_with_its_setting(
    tmp_path, setting, content, cause
):
    path = tmp_path / "given"
    if content is not None:
        path.write_bytes(content)
    settings = load(Settings, "test", [f"--{setting.replace('_', '-')}", str(path)])
    nc = connection.client()
    with pytest.raises(SettingsError) as caught:
        await connection.connect(settings, "test", nc=nc)
    assert str(caught.value).startswith(f"settings: TETRA_{setting.upper()}: {path}")
    assert cause in str(caught.value)
    await connection.drain(nc)  # of a connection that was never there
