"""Debian's servers under the profiles of their own past: services of systemd, and in Docker."""

import re
import subprocess
import uuid
from contextlib import contextmanager
from typing import NamedTuple

import pytest

from e2e.stack import BASE_IMAGE, CALL_S, docker
from e2e.test_embedded import BIN, launched
from support.waiting import wait_until

pytestmark = [pytest.mark.containers, pytest.mark.timeout(1800)]

IMAGE = "tetra-test-servers"
# PostgreSQL's load comes from another container. A test restarts more often than systemd allows.
DOCKERFILE = f"""
FROM {BASE_IMAGE}
RUN apt-get -qq update \\
 && DEBIAN_FRONTEND=noninteractive apt-get -qq -y install --no-install-recommends \\
      systemd systemd-sysv nginx redis-server redis-tools postgresql wrk > /dev/null \\
 && rm -rf /var/lib/apt/lists/*
RUN sed -i -E 's,^(host +all +all +127.0.0.1/32 +).*,\\1trust,' /etc/postgresql/*/*/pg_hba.conf \\
 && echo DefaultStartLimitIntervalSec=0 >> /etc/systemd/system.conf
"""
# systemd needs a hierarchy that it may write; the container's own is read-only.
INIT = (
    "umount -R /sys/fs/cgroup; mount -t cgroup2 cgroup2 /sys/fs/cgroup && "
    "exec /lib/systemd/systemd --unit=basic.target"
)
POLICIES = ("files", "network", "credentials", "host", "capabilities", "syscalls")


class Server(NamedTuple):
    """A server, its unit with the executables of its commands, and a load that it has to pass."""

    unit: str
    commands: tuple[str, ...]  # as systemctl cat shows them
    executable: str
    arguments: tuple[str, ...]  # in a container
    load: str
    passed: str  # in what the load prints
    user: str = "root"


SERVERS = {
    "nginx": Server(
        "nginx.service", ("/usr/sbin/nginx", "/sbin/start-stop-daemon"), "/usr/sbin/nginx",
        ("-g", "daemon off;"), "wrk -t1 -c8 -d1 http://127.0.0.1/", r"Requests/sec: +[1-9]",
    ),
    "redis": Server(
        "redis-server.service", ("/usr/bin/redis-server",), "/usr/bin/redis-server",
        ("/etc/redis/redis.conf", "--daemonize", "no"),
        "redis-benchmark -n 500 -c 10 -q && redis-cli bgrewriteaof", "file rewriting (sta|sche)",
        user="redis",
    ),
    "postgres": Server(
        "postgresql@17-main.service", ("/usr/bin/pg_ctlcluster",),
        "/usr/lib/postgresql/17/bin/postgres",
        ("-D", "/var/lib/postgresql/17/main", "-c",
         "config_file=/etc/postgresql/17/main/postgresql.conf"),
        "cd /usr/lib/postgresql/17/bin && export PGHOST=127.0.0.1 PGUSER=postgres && "
        "./pgbench -i -q postgres 2> /dev/null && ./pgbench -c 4 -t 50 postgres",
        r"failed transactions: 0 ", user="postgres",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def image():
    """Debian's servers, with systemd."""
    subprocess.run(
        ["docker", "build", "--quiet", "--tag", IMAGE, "-"],
        input=DOCKERFILE, text=True, check=True, capture_output=True, timeout=1200,
    )  # fmt: skip
    return IMAGE


@pytest.fixture(scope="module")
def product(tmp_path_factory):
    """The product with all ready-made policies."""
    state = tmp_path_factory.mktemp("profiled")
    with launched(state, TETRA_POLICIES=",".join(POLICIES)) as launch:
        launch.wait_for("^  stop  +Ctrl-C$")
        log, loaded = state / "collector.log", '"event": "policy loaded"'
        wait_until(lambda: log.read_text().count(loaded) == len(POLICIES), 300, launch.text)
        yield Product(launch)


class Product:
    """Commands of the client, after everything so far has arrived."""

    def __init__(self, launch):
        self._launch = launch

    def catch_up(self):
        marker = f"marker-{uuid.uuid4().hex}"
        subprocess.run(["/usr/bin/true", marker], check=True)
        wait_until(lambda: self._launch.has_ended(marker), 120, self._launch.text)

    def tetra(self, *words, text=None):
        self.catch_up()
        server = f"localhost:{self._launch.ports[1]}"
        done = subprocess.run(
            [BIN / "tetra", *words, "--server-address", server],
            input=text, capture_output=True, text=True, timeout=CALL_S,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout


@contextmanager
def container(*words):
    name = f"tetra-test-{uuid.uuid4().hex[:8]}"
    try:
        docker("run", "--detach", "--name", name, *words)
        yield name
    finally:
        docker("rm", "--force", "--volumes", name, check=False)


class System:
    """A container whose first process is systemd."""

    def __init__(self, name):
        self._name = name

    def run(self, command, check=True, text=None):
        done = subprocess.run(
            ["docker", "exec", "--interactive", self._name, "sh", "-c", command],
            input=text, capture_output=True, text=True, timeout=CALL_S,
        )  # fmt: skip
        assert not check or done.returncode == 0, f"{command}: {done.stderr}\n{self.journal()}"
        return done

    def journal(self):
        return self.run("journalctl --no-pager --lines 30", check=False).stdout

    def drop_in(self, unit, text):
        """Replace the unit's drop-in."""
        folder = f"/etc/systemd/system/{unit}.d"
        self.run(f"mkdir -p {folder} && cat > {folder}/profile.conf", text=text)
        self.run("systemctl daemon-reload")

    def use(self, server):
        """Start or restart the service and load it; reload it if it can be."""
        self.run(f"systemctl restart {server.unit}")
        self.load(server)
        if self.run(f"systemctl show -P CanReload {server.unit}").stdout == "yes\n":
            self.run(f"systemctl reload {server.unit}")

    def load(self, server):
        printed = self.run(server.load).stdout
        assert re.search(server.passed, printed), printed
        assert "Non-2xx" not in printed

    def main_process(self, server):
        """Return the lines of /proc/PID/status."""
        pid = self.run(f"systemctl show -P MainPID {server.unit}").stdout.strip()
        return self.run(f"cat /proc/{pid}/status").stdout


@pytest.fixture(scope="module")
def system(image, product):
    """A running systemd with no service started; /sys and /proc/sys are read-only."""
    dropped = [f"--cap-drop=SYS_{name}" for name in ("MODULE", "TIME", "BOOT")]
    unconfined = ("--security-opt=seccomp=unconfined", "--security-opt=apparmor=unconfined")
    with container(
        "--cap-add=ALL", *dropped, *unconfined, "--cgroupns=private", "--tmpfs=/run",
        "--tmpfs=/tmp", "--env=container=docker", image, "sh", "-c", INIT,
    ) as name:  # fmt: skip
        started = System(name)
        wait_until(
            lambda: (
                started.run("systemctl is-system-running", check=False).stdout.strip()
                in ("running", "degraded")
            ),
            120,
            lambda: docker("logs", name),
        )
        yield started


@pytest.fixture(scope="module", params=SERVERS)
def server(request, system):
    """A server whose start, load, reload, stop and restart have been seen."""
    found = SERVERS[request.param]
    system.use(found)
    system.use(found)
    yield found
    system.run(f"systemctl stop {found.unit}", check=False)


def test_service_runs_under_the_drop_in_of_its_profile(product, system, server):
    written = product.tetra("profile", "write", *server.commands, "--as", "systemd")
    system.drop_in(server.unit, written)
    for _ in range(2):
        system.use(server)
        status = system.main_process(server)
        assert "Seccomp:\t2" in status
    # The same without one call that it needs.
    assert "SystemCallFilter=listen\n" in written
    system.drop_in(server.unit, written.replace("SystemCallFilter=listen\n", ""))
    system.run(f"systemctl restart {server.unit}", check=False)
    wait_until(
        lambda: system.run(f"systemctl is-active {server.unit}", check=False).returncode,
        60, system.journal,
    )  # fmt: skip
    system.drop_in(server.unit, written)
    system.use(server)


def test_container_runs_under_the_seccomp_form(product, system, server, image, tmp_path):
    written = tmp_path / "profile.json"
    written.write_text(product.tetra("profile", "write", server.executable, "--as", "seccomp"))
    with container(
        f"--security-opt=seccomp={written}", "--network=none", "--user", server.user,
        image, server.executable, *server.arguments,
    ) as name:  # fmt: skip

        def passes():
            # Beside it: what runs in the container itself is under the profile, too.
            command = ["docker", "run", "--rm", f"--network=container:{name}", image, "sh", "-c"]
            done = subprocess.run(
                [*command, server.load], capture_output=True, text=True, timeout=CALL_S
            )
            return done.returncode == 0 and re.search(server.passed, done.stdout)

        wait_until(passes, 120, lambda: docker("logs", name))
        docker("restart", name)
        wait_until(passes, 120, lambda: docker("logs", name))


def test_policy_reports_what_is_outside_of_the_profile(product, system):
    server = SERVERS["nginx"]
    system.use(server)
    system.run(f"systemctl restart {server.unit}")
    written = product.tetra("profile", "write", *server.commands, "--as", "tracingpolicy")
    assert '"sys_listen", ' in written
    product.tetra("tracingpolicy", "add", "-", text=written)
    system.use(server)
    reported = ("getevents", "--since", "10m", "--no-follow", "--policy-names", "outside-nginx")
    assert product.tetra(*reported) == ""
    less = written.replace('"sys_listen", ', "")
    product.tetra("tracingpolicy", "delete", "outside-nginx")
    product.tetra("tracingpolicy", "add", "-", text=less)
    system.use(server)
    wait_until(lambda: "(listen)" in product.tetra(*reported), 60, lambda: product.tetra(*reported))
