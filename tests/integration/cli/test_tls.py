"""TLS and mTLS against real servers with certificates made for the test."""

import shutil
import subprocess

import grpc
import pytest

pytestmark = pytest.mark.skipif(not shutil.which("openssl"), reason="needs the openssl command")


NEW_KEY = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
AUTHORITY = """
[ca]
default_ca = it
[it]
database = index.txt
serial = serial
new_certs_dir = .
default_md = sha256
policy = any
[any]
commonName = supplied
[names]
subjectAltName = DNS:gateway.test
"""


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """Self-signed certificates for gateway.test: cert, other, and expired; and their keys."""
    folder = tmp_path_factory.mktemp("tls")

    def openssl(arguments):
        command = ["openssl", *arguments.split()]
        subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=60)

    name = "-subj /CN=gateway -addext subjectAltName=DNS:gateway.test"
    openssl(f"req -x509 {NEW_KEY} -days 2 {name} -keyout key.pem -out cert.pem")
    openssl(f"req -x509 {NEW_KEY} -days 2 {name} -keyout other-key.pem -out other.pem")
    openssl("ec -in key.pem -aes128 -passout pass:x -out locked-key.pem")
    openssl(f"req -new {NEW_KEY} -subj /CN=gateway -keyout expired-key.pem -out expired.csr")
    (folder / "authority").write_text(AUTHORITY)
    (folder / "index.txt").touch()
    (folder / "serial").write_text("01\n")
    openssl(
        "ca -config authority -selfsign -batch -notext -extensions names -keyfile expired-key.pem "
        "-in expired.csr -out expired.pem -startdate 20200101000000Z -enddate 20200102000000Z"
    )
    junk = "-----BEGIN CERTIFICATE-----\nxxxx\n-----END CERTIFICATE-----\n"
    (folder / "junk.pem").write_text(junk)
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
    assert "for another name; pass that name with --tls-server-name" in done.stderr


def test_unknown_authority_is_one_line(tls_address, tetra):
    done = tetra(
        *("status", "--server-address", tls_address, "--tls-server-name", "gateway.test"),
        *("--retries", "0"),
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "unknown authority; pass its certificate with --tls-ca-cert-files" in done.stderr


def test_verification_can_be_skipped(tls_address, tetra):
    done = tetra("status", "--server-address", tls_address, "--tls-skip-verify")
    assert (done.stdout, done.stderr) == ("Health Status: running\n", "")


def test_client_certificate_is_sent(serve, plain_tetragon_of, certificates, tetra):
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
    assert done.stderr.endswith("TLS: the server does not use TLS; leave the --tls flags out\n")


def test_unknown_host_is_one_line(tetra):
    done = tetra("status", "--server-address", "nosuch.invalid:1", "--retries", "0")
    assert done.stderr == ("tetra: error: connect: nosuch.invalid:1: the host name is not known\n")


def test_expired_certificate_is_one_line(serve, plain_tetragon_of, certificates, tetra):
    key, cert = ((certificates / name).read_bytes() for name in ("expired-key.pem", "expired.pem"))
    credentials = grpc.ssl_server_credentials([(key, cert)])
    address = serve(plain_tetragon_of([]), credentials=credentials)
    flags = ("--tls-ca-cert-files", certificates / "expired.pem", "--tls-server-name")
    done = tetra("status", "--server-address", address, "--retries", "0", *flags, "gateway.test")
    assert done.returncode == 1
    assert done.stderr.endswith("TLS: the server's certificate has expired; it needs a new one\n")


@pytest.mark.parametrize("skip", [(), ("--tls-skip-verify",)])
def test_server_that_speaks_no_tls_is_one_line(serve, plain_tetragon_of, tetra, skip):
    address = serve(plain_tetragon_of([]))
    flags = skip or ("--tls-server-name", "gateway.test")
    done = tetra("status", "--server-address", address, "--retries", "0", *flags)
    assert done.returncode == 1
    assert done.stderr.endswith("TLS: the server does not use TLS; leave the --tls flags out\n")


@pytest.mark.parametrize("command", ["status", "getevents"])
def test_server_that_wants_tls_is_one_line(tls_address, tetra, command):
    done = tetra(command, "--server-address", tls_address, "--retries", "0")
    assert done.returncode == 1
    assert done.stderr.endswith("does it require TLS? --tls-ca-cert-files ca.pem\n")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("ours", "line"),
    [
        ((), "does it require a client certificate? --tls-cert-file client.pem"),
        (("other.pem", "other-key.pem"), "does it know the authority of --tls-cert-file?"),
        (
            ("cert.pem", "other-key.pem"),
            "the certificate and the key do not belong together; for example: tetra status "
            "--tls-cert-f",
        ),
        (("junk.pem", "key.pem"), "not a certificate and its key (without a"),
        (("cert.pem", "locked-key.pem"), "not a certificate and its key (without a"),
    ],
)
def test_unusable_client_certificate_is_one_line(
    serve, plain_tetragon_of, certificates, tetra, ours, line
):
    key, cert = ((certificates / name).read_bytes() for name in ("key.pem", "cert.pem"))
    credentials = grpc.ssl_server_credentials([(key, cert)], cert, require_client_auth=True)
    address = serve(plain_tetragon_of([]), credentials=credentials)
    flags = ["--tls-ca-cert-files", certificates / "cert.pem", "--tls-server-name", "gateway.test"]
    for flag, name in zip(("--tls-cert-file", "--tls-key-file"), ours, strict=False):
        flags += [flag, certificates / name]
    done = tetra("status", "--server-address", address, "--retries", "0", *flags)
    assert done.returncode in (1, 2)
    assert line in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("name", ["junk.pem", "key.pem"])
def test_authority_that_cannot_be_read_is_one_line(certificates, tetra, name):
    flags = ("--server-address", "127.0.0.1:1", "--tls-ca-cert-files", certificates / name)
    done = tetra("status", *flags)
    assert done.returncode == 2
    assert done.stderr.endswith(
        f"{name}: no readable certificate in it; for example: tetra status --tls-ca-cert-files "
        "ca.pem\n"
    )


@pytest.fixture
def guarded_address(serve, gateway_of, plain_tetragon_of, make_event):
    """A server that wants the token ``secret``."""

    def guarded(servicer, method):
        serve_it = getattr(servicer, method)

        def answer(request, context):
            if ("authorization", "Bearer secret") not in context.invocation_metadata():
                context.abort(grpc.StatusCode.UNAUTHENTICATED, "authorization: a bearer token")
            return serve_it(request, context)

        setattr(servicer, method, answer)
        return servicer

    gateway = gateway_of([[make_event(1)]])
    guarded(gateway, "StreamEvents")
    guarded(gateway, "ListNodes")
    return serve(gateway, guarded(plain_tetragon_of([]), "GetHealth"))


def test_token_is_sent_with_every_call(guarded_address, tetra, tmp_path):
    (tmp_path / "token").write_text("secret\n")
    flags = ("--server-address", guarded_address)
    for command, expected in (
        (("status",), "Health Status: running\n"),
        (("getevents", "--last", "1", "--no-follow"), "🚀 process 1: root: /usr/bin/true 1\n"),
        (("nodes",), "NODE  STATE  SEEN  PROCS  EVENTS  RATE  LOST  POLICIES  VERSION  KERNEL\n"),
    ):
        done = tetra(*command, *flags, "--token-file", tmp_path / "token")
        assert (done.stdout, done.stderr) == (expected, "")
        assert tetra(*command, *flags, TETRA_TOKEN="secret").stdout == expected
        done = tetra(*command, *flags)
        assert done.returncode == 1
        assert done.stderr.endswith("a bearer token; pass it with --token-file or TETRA_TOKEN\n")


def test_unencrypted_token_gives_a_warning(tetra):
    done = tetra("status", "--server-address", "gw.invalid:1", "--retries", "0", TETRA_TOKEN="x")
    assert done.stderr.splitlines()[0] == (
        "tetra: the token goes to gw.invalid:1 unencrypted; --tls-ca-cert-files ca.pem encrypts it"
    )


def test_malformed_token_is_rejected(tetra):
    done = tetra("status", TETRA_TOKEN="two words")
    assert done.returncode == 2
    assert done.stderr.startswith("tetra: error: TETRA_TOKEN: not one token of printable ASCII")
