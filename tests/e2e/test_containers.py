"""The images and the Compose stack on a real Docker engine; `make test-containers` builds them."""

import json
import os
import re
import signal
import socket
import subprocess
import time
import uuid
from contextlib import contextmanager
from pathlib import Path

import pytest
from testcontainers.core.container import DockerContainer

from chaos.stack import free_subnet
from e2e.stack import (
    BASE_IMAGE,
    CALL_S,
    EVENT_S,
    PORT,
    PROJECT,
    TRUE,
    Client,
    docker,
    fresh_stack,
    inspect,
    logs_of,
    programs,
    programs_of,
)
from support.waiting import wait_until

pytestmark = [pytest.mark.containers, pytest.mark.timeout(600)]

IMAGES = ("tetra-collector", "tetra-gateway", "tetra-cli", "tetra-exporter")
FIRST_EVENT_WITHIN_S = 60  # a busy machine needs much more than an idle one
CAPABILITIES = {"CAP_BPF", "CAP_PERFMON", "CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH"}
OURS = ("collector", "gateway")


@pytest.fixture(scope="module")
def started():
    """Start one stack for the tests that only look; with the seconds until the first event."""
    with fresh_stack("compose.yaml") as stack:
        start = time.monotonic()
        stack.up()
        with running_cli("getevents") as client:
            client.wait_until_live()
            seconds = time.monotonic() - start
        yield stack, seconds


@pytest.fixture
def stack(started):
    return started[0]


def running_cli(*arguments, network="host"):
    """Run the CLI image as the README does."""
    return running(["docker", "run", "--rm", "--network", network], "tetra-cli", *arguments)


def running_compose_cli(stack, *arguments):
    """Run the CLI in the stack's own network."""
    run = stack.command("--profile", "cli", "run", "--rm", "--no-TTY")
    return running(run, "cli", *arguments)


@contextmanager
def running(run, *what):
    name = f"{PROJECT}-{uuid.uuid4().hex[:8]}"
    client = Client([*run, "--name", name, *what])
    try:
        yield client
    finally:
        docker("stop", name, check=False)
        client.stop()


def run_in_container(marker):
    """Run a process in a container called probe-me; return the container's id."""
    docker("rm", "--force", "probe-me", check=False)
    full_id = docker("create", "--name", "probe-me", BASE_IMAGE, TRUE, marker).strip()
    docker("start", "--attach", "probe-me")
    docker("rm", "--force", "probe-me")
    return full_id


def test_first_event_arrives_soon_after_up(started):
    assert started[1] < FIRST_EVENT_WITHIN_S


@pytest.mark.parametrize("network", ["host", f"container:{PROJECT}-port-1"])
def test_run_of_the_cli_sees_host_and_containers(stack, network):
    marker = uuid.uuid4().hex
    with running_cli("getevents", network=network) as client:
        client.wait_until_live()
        subprocess.run([TRUE, f"{marker}-1"], check=True)
        run_in_container(f"{marker}-2")
        on_host = client.wait_for(f"{marker}-1")
        in_container = client.wait_for(f": {TRUE} {marker}-2")
    assert re.fullmatch(rf"🚀 process \d+: root: {TRUE} {marker}-1", on_host.strip())
    assert in_container.rstrip().endswith("[probe-me]")


def test_threads_of_nats_have_a_timer_slack(stack):
    """deploy/nats/start sets it before the server starts, without a capability."""
    pid = inspect(stack.containers("nats")[0])["State"]["Pid"]
    threads = [Path("/proc", task.name) for task in Path(f"/proc/{pid}/task").iterdir()]
    assert len(threads) > 1
    assert {(one / "timerslack_ns").read_text() for one in threads} == {"2000000\n"}


def test_container_id_name_and_image_are_in_the_event(stack):
    marker = uuid.uuid4().hex
    with running_cli("getevents", "-o", "json", "--extensions") as client:
        client.wait_until_live()
        full_id = run_in_container(marker)
        process = json.loads(client.wait_for(f'"arguments":"{marker}"'))["process_exec"]["process"]
    assert process["docker"] == full_id[:31]
    assert process["container_info"] == {
        "id": full_id,
        "name": "probe-me",
        "image": BASE_IMAGE,
        "runtime": "docker",
    }


def test_exporter_of_the_stack_writes_a_file(stack):
    stack.compose("--profile", "export", "up", "--detach", "--no-build", "exporter")
    try:
        wait_until(
            lambda: "exporting" in stack.logs("exporter"), EVENT_S, lambda: stack.logs("exporter")
        )
        marker = uuid.uuid4().hex
        run_in_container(marker)
        (container,) = stack.containers("exporter")

        def written():
            text = docker("exec", container, "cat", "/export/tetragon.log", check=False)
            lines = [line for line in text.splitlines(keepends=True) if line.endswith("\n")]
            return [line for line in lines if f'"arguments":"{marker}"' in line]

        found = wait_until(written, EVENT_S, lambda: stack.logs("exporter"))
        assert json.loads(found[0])["process_exec"]["process"]["binary"] == TRUE
        assert docker("exec", container, "tetra-exporter", "--check").strip() == "ok"
    finally:
        stack.compose("--profile", "export", "rm", "--stop", "--force", "exporter")


def test_cli_of_the_stack_sees_the_host(stack):
    marker = uuid.uuid4().hex
    with running_compose_cli(stack, "getevents") as client:
        client.wait_until_live()
        subprocess.run([TRUE, marker], check=True)
        client.wait_for(marker)


def test_collector_has_four_capabilities_and_is_not_privileged(stack):
    config = inspect(stack.containers("collector")[0])["HostConfig"]
    assert not config["Privileged"]
    assert {f"CAP_{name.removeprefix('CAP_')}" for name in config["CapAdd"]} == CAPABILITIES
    assert config["CapDrop"] == ["ALL"]
    (pid,) = (inspect(c)["State"]["Pid"] for c in stack.containers("collector"))
    effective = re.search(r"^CapEff:\t(\w+)", Path(f"/proc/{pid}/status").read_text(), re.M)
    assert effective
    assert int(effective[1], 16) == 1 << 39 | 1 << 38 | 1 << 19 | 1 << 2


@pytest.mark.parametrize("service", ["gateway", "port"])
def test_service_runs_without_root_and_rights(stack, service):
    (container,) = stack.containers(service)
    status = Path(f"/proc/{inspect(container)['State']['Pid']}/status").read_text()
    assert "Uid:\t65532\t65532\t65532\t65532" in status
    assert "CapEff:\t0000000000000000" in status


@pytest.mark.parametrize("service", ["collector", "gateway"])
def test_service_has_its_own_nats_password_and_no_other(stack, service):
    def password(name):
        mounts = inspect(stack.containers(name)[0])["Mounts"]
        (folder,) = (m for m in mounts if m["Destination"] == "/run/secrets")
        assert folder["Name"].endswith(f"_{name}-password")
        assert not [m for m in mounts if m["Destination"].startswith("/run/passwords")]
        return (Path(folder["Source"]) / "nats-password").read_text()

    other = {"collector": "gateway", "gateway": "collector"}[service]
    assert password(service) != password(other)


def test_every_service_has_a_read_only_root_file_system(stack):
    for container in stack.compose("ps", "--quiet").split():
        assert inspect(container)["HostConfig"]["ReadonlyRootfs"]


def test_cli_image_runs_as_a_user_with_a_number():
    assert inspect("tetra-cli")["Config"]["User"] == "65532:65532"
    assert "getevents" in docker("run", "--rm", "tetra-cli", "--help")


@pytest.mark.parametrize(("image", "most_mb"), [("tetra-cli", 90), ("tetra-gateway", 170)])
def test_image_is_small(image, most_mb):
    over_base = inspect(image)["Size"] - inspect(BASE_IMAGE)["Size"]
    assert over_base <= most_mb * 1_000_000


@pytest.mark.parametrize("image", IMAGES)
def test_image_has_labels_and_no_build_tools(image):
    assert inspect(image)["Config"]["Labels"]["org.opencontainers.image.title"] == image
    tools = "command -v pip pip3 gcc cc clang make; python3 -c 'import pip'"
    printed = docker("run", "--rm", "--entrypoint", "sh", image, "-c", tools, check=False)
    assert printed == ""


@pytest.mark.parametrize("image", IMAGES)
def test_no_program_of_an_image_runs_as_another_user(image):
    find = ("find", "/", "-xdev", "-type", "f", "-perm", "/6000")
    run = ("run", "--rm", "--user", "0", "--entrypoint", find[0], image)
    assert docker(*run, *find[1:]) == ""
    assert "/usr/bin/true" in docker(*run, "/usr/bin/true", "-perm", "/0111")  # find works


@contextmanager
def neighbour():
    """Yield a command prefix that runs in a network namespace wired to this host, and our address.

    It is what another machine on the host's network would be.
    """
    name, subnet = f"tetra-{uuid.uuid4().hex[:6]}", free_subnet()
    ip = ["ip", "-netns", name]
    commands = (
        ["ip", "netns", "add", name],
        ["ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name],
        ["ip", "address", "add", f"{subnet}.1/24", "dev", name],
        ["ip", "link", "set", name, "up"],
        [*ip, "address", "add", f"{subnet}.2/24", "dev", "eth0"],
        [*ip, "link", "set", "eth0", "up"],
        # A neighbour may send us what is meant for addresses behind us.
        [*ip, "route", "add", "default", "via", f"{subnet}.1"],
    )
    try:
        for command in commands:
            subprocess.run(command, check=True, capture_output=True)
        yield ["ip", "netns", "exec", name], f"{subnet}.1"
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=False)
        subprocess.run(["ip", "link", "delete", name], check=False, capture_output=True)


def can_connect(prefix, address, port):
    script = f"import socket; socket.create_connection(({address!r}, {port}), timeout=5)"
    done = subprocess.run([*prefix, "/usr/bin/python3", "-c", script], capture_output=True)
    return done.returncode == 0


def test_port_is_closed_to_other_hosts(stack):
    bridge = docker("network", "inspect", "bridge", "-f", "{{(index .IPAM.Config 0).Gateway}}")
    with neighbour() as (prefix, host):
        with socket.create_server((host, 0)) as witness:  # the wire works
            assert can_connect(prefix, host, witness.getsockname()[1])
        assert not can_connect(prefix, host, PORT)
        assert not can_connect(prefix, bridge.strip(), PORT)
    assert can_connect([], "127.0.0.1", PORT)


SECOND_NS = 1_000_000_000
SOON = {"start_period": SECOND_NS, "interval": SECOND_NS, "timeout": 5 * SECOND_NS, "retries": 2}


@contextmanager
def failing(image, hidden="/tmp", *, ends, **options):
    """Run one container that cannot do its work; yield its complaints and its state."""
    container = DockerContainer(image, healthcheck=SOON, read_only=True, **options)
    with container.with_tmpfs_mount("/tmp").with_tmpfs_mount(hidden):
        identity = container.get_wrapped_container().id

        def complaints():
            lines = logs_of(identity).splitlines()
            return [line for line in lines if '"level": "info"' not in line]

        def state():
            return inspect(identity)["State"]

        def failed():
            found = state()
            health = found.get("Health", {}).get("Status")
            return complaints() and health == "unhealthy" and found["Running"] is not ends

        wait_until(failed, 2 * EVENT_S, lambda: f"{state()}\n{logs_of(identity)}")
        yield complaints(), state()


def collector_options(**changes):
    capabilities = [name.removeprefix("CAP_") for name in sorted(CAPABILITIES)]
    return {
        "cap_drop": ["ALL"],
        "cap_add": capabilities,
        "pid_mode": "host",
        "security_opt": ["apparmor=unconfined"],
    } | changes


@pytest.mark.parametrize("missing", sorted(CAPABILITIES))
def test_collector_names_the_capability_it_lacks(missing):
    given = [name.removeprefix("CAP_") for name in CAPABILITIES - {missing}]
    options = collector_options(cap_add=given)
    with failing("tetra-collector", ends=True, **options) as (complaints, state):
        (line,) = complaints
        assert line.startswith(f"tetra-collector: error: rights: {missing} missing")
        assert state["ExitCode"] == 2


def test_collector_without_btf_names_what_is_missing():
    hidden = "/sys/kernel/btf"
    options = collector_options()
    with failing("tetra-collector", hidden, ends=True, **options) as (complaints, state):
        (line,) = complaints
        assert line.startswith("tetra-collector: error: kernel ")
        assert "/sys/kernel/btf/vmlinux" in line
        assert state["ExitCode"] == 2


WRONG_PASSWORD = {"TETRA_NATS_URL": "nats://nats:4222", "TETRA_NATS_PASSWORD": "wrong"}


def test_collector_with_a_wrong_password_reports_it_and_is_unhealthy(stack):
    wrong = collector_options(
        network_mode=f"{PROJECT}_default", env={**WRONG_PASSWORD, "TETRA_NATS_USER": "collector"}
    )
    with failing("tetra-collector", ends=False, **wrong) as (complaints, state):
        line = complaints[0]  # on a busy machine others may follow
        assert json.loads(line)["event"] == "nats unreachable"
        assert "authorization violation" in line.lower()
        assert state["Running"]


@pytest.mark.parametrize(
    ("environment", "cause"),
    [
        ({**WRONG_PASSWORD, "TETRA_NATS_USER": "gateway"}, "authorization violation"),
        ({"TETRA_NATS_URL": "nats://127.0.0.1:1"}, "127.0.0.1:1"),
    ],
    ids=["wrong password", "no nats"],
)
def test_gateway_without_nats_logs_the_cause_and_is_unhealthy(stack, environment, cause):
    options = {
        "network_mode": f"{PROJECT}_default",
        "env": environment | {"TETRA_INSECURE_LISTEN": "true"},
    }
    with failing("tetra-gateway", ends=False, **options) as (complaints, state):
        line = complaints[0]
        assert json.loads(line)["event"] == "nats unreachable"
        assert cause in line.lower()
        assert state["Running"]


def test_a_collector_that_is_killed_misses_nothing(stack):
    count = 3000
    with running_compose_cli(stack, "getevents") as client:
        client.wait_until_live()
        with load(count) as marker:
            wait_until(
                lambda: len(numbers_shown(client, marker)) > count // 5, EVENT_S, client.errors.copy
            )
            # Not docker kill: the engine would not start the container again.
            os.kill(inspect(stack.containers("collector")[0])["State"]["Pid"], signal.SIGKILL)
        assert_all_shown_once(client, marker, count)
    (collector,) = stack.containers("collector")

    def ready():
        lines = [json.loads(line) for line in logs_of(collector).splitlines() if '"ready"' in line]
        return [line["probes"] for line in lines] if len(lines) > 1 else None

    found = wait_until(ready, EVENT_S, lambda: logs_of(collector))
    assert found == ["attached", "taken over"]


# Runs last of those that share the stack: it ends it.
def test_quiet_run_logs_json_without_warnings_and_leaves_no_program(stack):
    (collector,) = stack.containers("collector")
    held = programs_of(inspect(collector)["State"]["Pid"])
    assert len(held) >= 3
    stack.compose("stop")
    for line in stack.logs(*OURS).splitlines():
        assert json.loads(line)["level"] in ("debug", "info"), line
    warnings = [line for line in stack.logs("nats").splitlines() if " [WRN] " in line]
    # The passwords stand in files that only the services mount; a busy machine may make it slow.
    expected = re.compile("Plaintext passwords|Readloop processing time")
    assert [line for line in warnings if not expected.search(line)] == []
    stack.down()
    # The kernel frees programs, and the engine a client's container, a moment later.
    wait_until(lambda: not held & programs(), EVENT_S, lambda: held & programs())
    ps = ("ps", "--all", "--quiet", "--filter", f"name={PROJECT}")
    wait_until(lambda: docker(*ps) == "", EVENT_S, lambda: docker("ps", "--all"))
    assert docker("volume", "ls", "--quiet", "--filter", f"name={PROJECT}") == ""


@contextmanager
def load(count):
    """Start ``count`` processes in the background, one after the other; yield their marker."""
    marker = uuid.uuid4().hex
    script = f"for i in $(seq {count}); do {TRUE} {marker} $i; done"
    with subprocess.Popen(["sh", "-c", script]) as process:
        yield marker
        assert process.wait(CALL_S) == 0


def numbers_shown(client, marker):
    """Return the numbers of the exec events so far, in the order they came."""
    pattern = re.compile(rf"{TRUE} {marker} (\d+)")
    return [
        int(found[1])
        for line in list(client.lines)
        if line.startswith("🚀") and (found := pattern.search(line))
    ]


def assert_all_shown_once(client, marker, count):
    wait_until(
        lambda: len(numbers_shown(client, marker)) >= count,
        EVENT_S,
        lambda: f"{len(numbers_shown(client, marker))} of {count}, {client.errors}",
    )
    assert numbers_shown(client, marker) == list(range(1, count + 1))


def sent_bytes(container):
    """Return how much a container has sent on its network."""
    devices = Path(f"/proc/{inspect(container)['State']['Pid']}/net/dev").read_text()
    return sum(
        int(line.split()[9]) for line in devices.splitlines() if line.strip().startswith("eth")
    )


def test_client_continues_when_its_gateway_dies():
    count = 3000
    with fresh_stack("compose.yaml") as stack:
        stack.up("--scale", "gateway=3")
        gateways = stack.containers("gateway")
        assert len(gateways) == 3
        with running_compose_cli(stack, "getevents") as client:
            client.wait_until_live()
            before = {gateway: sent_bytes(gateway) for gateway in gateways}
            with load(count) as marker:
                wait_until(
                    lambda: len(numbers_shown(client, marker)) > count // 5,
                    EVENT_S,
                    client.errors.copy,
                )
                serving = max(gateways, key=lambda gateway: sent_bytes(gateway) - before[gateway])
                docker("kill", serving)
            assert_all_shown_once(client, marker, count)


SOCKET = """
import http.client, socket, sys
class Engine(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect("/run/docker-api/docker.sock")
engine = Engine("localhost", timeout=10)
engine.request(*sys.argv[1:])
print(engine.getresponse().status)
"""


def test_socket_proxy_allows_only_the_calls_of_the_collector():
    with fresh_stack("compose.yaml", "compose.socket-proxy.yaml") as stack:
        stack.up()
        marker = uuid.uuid4().hex
        with running_cli("getevents", "-o", "json", "--extensions") as client:
            client.wait_until_live()
            full_id = run_in_container(marker)
            process = json.loads(client.wait_for(f'"arguments":"{marker}"'))["process_exec"]
        assert process["process"]["docker"] == full_id[:31]
        assert "probe-me" in json.dumps(process)

        def status(*request):
            run = ("exec", "-T", "collector", "python3", "-c", SOCKET)
            return int(stack.compose(*run, *request))

        assert status("GET", "/containers/json?all=1") == 200
        assert status("GET", "/v1.41/containers/json") == 200
        for request in (
            ("POST", "/containers/create"), ("POST", "/containers/json"), ("GET", "/info"),
            ("GET", "/containers/probe-me/json"), ("GET", "/containers/json/../../info"),
            ("DELETE", "/containers/probe-me"), ("GET", "/images/json"),
        ):  # fmt: skip
            assert status(*request) == 403, request
        (collector,) = stack.containers("collector")
        sources = {m["Source"] for m in inspect(collector)["Mounts"]}
        assert not [source for source in sources if source.endswith("docker.sock")]


POLICY = """\
apiVersion: cilium.io/v1alpha1
kind: TracingPolicy
metadata:
  name: files
spec:
  kprobes:
  - call: sys_openat
    args:
    - {{index: 0, type: int}}
    - {{index: 1, type: string}}
    selectors:
    - matchArgs:
      - {{index: 1, operator: Equal, values: ["{path}"]}}
"""


def test_policy_that_is_put_into_the_folder_is_loaded(tmp_path):
    """With the collector's four capabilities."""
    (tmp_path / "policies").mkdir()
    opened = tmp_path / "opened"
    opened.write_text("1")
    environment = {"TETRA_POLICIES_DIR": str(tmp_path / "policies")}
    with fresh_stack("compose.yaml", "compose.policies.yaml", **environment) as stack:
        stack.up()
        (tmp_path / "policies" / "files.yaml").write_text(POLICY.format(path=opened))
        with running_cli("getevents", "-o", "compact", "--policy-names", "files") as client:

            def seen():
                subprocess.run(["cat", opened], check=True, stdout=subprocess.DEVNULL)
                return list(client.lines)

            (line, *_) = wait_until(
                seen, EVENT_S, lambda: f"{client.errors} {stack.logs('collector')}"
            )
        assert re.fullmatch(rf"📬\ufe0f openat  \S+ /usr/bin/cat {opened}", line)


def stream_leader(stack):
    """Return the service that leads the stream of events, once all three nodes follow."""
    for service in ("nats", "nats-2", "nats-3"):  # the leader alone knows how far the others are
        answer = stack.compose(
            "exec", "-T", service, "wget", "-q", "-O", "-",
            "http://127.0.0.1:8222/jsz?streams=true", check=False,
        )  # fmt: skip
        for account in json.loads(answer or "{}").get("account_details", []):
            for stream in account.get("stream_detail", []):
                cluster = stream.get("cluster", {})
                replicas = cluster.get("replicas", [])
                if len(replicas) == 2 and all(replica.get("current") for replica in replicas):
                    return cluster.get("leader")
    return None


def test_death_of_a_nats_node_loses_nothing():
    count = 3000
    with fresh_stack("compose.yaml", "compose.cluster.yaml") as stack:
        stack.up()
        with running_cli("getevents") as client:
            client.wait_until_live()
            leader = wait_until(lambda: stream_leader(stack), EVENT_S, lambda: "no leader")
            with load(count) as marker:
                wait_until(
                    lambda: len(numbers_shown(client, marker)) > count // 5,
                    EVENT_S,
                    client.errors.copy,
                )
                docker("kill", stack.containers(leader)[0])
            assert_all_shown_once(client, marker, count)
