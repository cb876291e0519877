"""TLS and mTLS against real servers with certificates made for the test."""

import shutil
import subprocess

import grpc
import pytest

pytestmark = pytest.mark.skipif(not shutil.which("openssl"), reason="needs the openssl command")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """A self-signed certificate for localhost and its key."""
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=gateway",
            "-keyout",
            "key.pem",
            "-out",
            "cert.pem",
            "-addext",
            "subjectAltName=DNS:gateway.test",
        ],
        cwd=folder,
        check=True,
        capture_output=True,
        timeout=20,
    )
    return folder


@pytest.fixture
def tls_address(serve, plain_tetragon_of, certificates):
    """A server that shows its certificate."""
    key, cert = ((certificates / name).read_bytes() for name in ("key.pem", "cert.pem"))
    return serve(plain_tetragon_of([]), credentials=grpc.ssl_server_credentials([(key, cert)]))


def test_server_with_a_certificate_from_our_authority(tls_address, certificates, tetra):
    flags = ("--tls-ca-cert-files", certificates / "cert.pem", "--tls-server-name", "gateway.test")
    done = tetra("status", "--server-address", tls_address, *flags)
    assert (done.stdout, done.stderr) == ("Health Status: running\n", "")


def test_wrong_name_in_the_certificate_is_one_line(tls_address, certificates, tetra):
    flags = ("--tls-ca-cert-files", certificates / "cert.pem", "--retries", "0")
    done = tetra("status", "--server-address", tls_address, *flags)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "for another name; give it with --tls-server-name" in done.stderr


def test_unknown_authority_is_one_line(tls_address, tetra):
    done = tetra(
        *("status", "--server-address", tls_address, "--tls-server-name", "gateway.test"),
        *("--retries", "0"),
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "unknown authority; give it with --tls-ca-cert-files" in done.stderr


def test_verification_can_be_skipped(tls_address, tetra):
    done = tetra("status", "--server-address", tls_address, "--tls-skip-verify")
    assert (done.stdout, done.stderr) == ("Health Status: running\n", "")


def test_client_proves_itself(serve, plain_tetragon_of, certificates, tetra):
    key, cert = ((certificates / name).read_bytes() for name in ("key.pem", "cert.pem"))
    credentials = grpc.ssl_server_credentials([(key, cert)], cert, require_client_auth=True)
    address = serve(plain_tetragon_of([]), credentials=credentials)
    flags = ["--tls-ca-cert-files", certificates / "cert.pem", "--tls-server-name", "gateway.test"]
    ours = ["--tls-cert-file", certificates / "cert.pem"]
    ours += ["--tls-key-file", certificates / "key.pem"]
    assert tetra("status", "--server-address", address, *flags, *ours).returncode == 0
    done = tetra("status", "--server-address", address, *flags, "--retries", "0")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1


def test_server_without_tls_is_one_line(serve, plain_tetragon_of, certificates, tetra):
    flags = ("--tls-ca-cert-files", certificates / "cert.pem", "--retries", "0")
    done = tetra("status", "--server-address", serve(plain_tetragon_of([])), *flags)
    assert done.stderr.endswith("TLS: the server does not speak it; leave the --tls flags out\n")


def test_unknown_host_is_one_line(tetra):
    done = tetra("status", "--server-address", "nosuch.invalid:1", "--retries", "0")
    assert done.stderr == ("tetra: error: connect: nosuch.invalid:1: the host name is not known\n")
