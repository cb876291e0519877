"""Containers and systemd units from the paths of cgroups."""

import pytest

from collector.metadata.cgroups import HOST, Cgroups, Place
from collector.metadata.logins import in_session
from collector.processes.pods import HostUnit

ID, OTHER = "3f" * 32, "a0" * 32
UID = "8c9a6f0e-1111-4222-8333-444455556666"


class Names:
    def name(self, uid):
        return {1000: "ada"}.get(uid, "")


@pytest.fixture
def host(tmp_path):
    """Cgroups of a host with systemd, and its proc file system."""
    (tmp_path / "1/root/run/systemd/system").mkdir(parents=True)
    return Cgroups(tmp_path, Names()), tmp_path


def procfs(folder, pid, text):
    (folder / str(pid)).mkdir(exist_ok=True)
    (folder / str(pid) / "cgroup").write_text(text)


# The systemd driver's names and those of CRI-O are as their sources make them; the others were
# seen on hosts with these engines.
@pytest.mark.parametrize(
    "path",
    [
        f"/kubepods/besteffort/pod{UID}/{ID}",
        f"/kubepods/pod{UID}/{ID}",
        f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UID.replace('-', '_')}"
        f".slice/cri-containerd-{ID}.scope",
        f"/kubepods.slice/kubepods-pod{UID.replace('-', '_')}.slice/crio-{ID}.scope",
        f"/kubelet.slice/kubelet-kubepods.slice/pod{UID}/{ID}",
        f"/system.slice/containerd.service/kubepods-pod{UID}.slice:cri-containerd:{ID}",
        f"/system.slice/docker-{ID}.scope",
        f"/docker/{ID}",
        f"/../../docker/{ID}",
        f"/machine.slice/libpod-{ID}.scope",
        f"/machine.slice/libpod-{ID}.scope/container",
        f"/libpod_parent/libpod-{ID}",
        f"/actions_job/{ID}",
    ],
)
@pytest.mark.parametrize("version", ["0::{}\n", "12:memory:{0}\n11:pids:{0}\n0::/\n"])
def test_container_of_a_path(host, path, version):
    cgroups, folder = host
    text = version.format(path)
    assert cgroups.of_procfs(text) == Place(ID)
    procfs(folder, 7, text)
    assert cgroups.of_record(70, path.rpartition("/")[2], 7) == Place(ID)


@pytest.mark.parametrize(
    "below", ["/init", "/system.slice/nginx.service", "/init.scope", "/supervisor/worker"]
)
def test_cgroup_below_a_container_is_in_the_container(host, below):
    cgroups, folder = host
    text = f"0::/system.slice/docker-{ID}.scope{below}\n"
    assert cgroups.of_procfs(text) == Place(ID)
    procfs(folder, 7, text)
    assert cgroups.of_record(70, below.rpartition("/")[2], 7) == Place(ID)


def test_container_in_a_container_is_the_inner_one(host):
    cgroups, folder = host
    text = f"0::/docker/{OTHER}/docker/{ID}/init\n"
    assert cgroups.of_procfs(text) == Place(ID)
    procfs(folder, 7, text)
    assert cgroups.of_record(70, "init", 7) == Place(ID)


@pytest.mark.parametrize("leaf", [f"crio-conmon-{ID}.scope", f"libpod-conmon-{ID}.scope"])
def test_monitor_of_a_container_is_not_in_it(host, leaf):
    cgroups, _ = host
    assert cgroups.of_record(70, leaf, 7) == Place(ID, is_monitor=True)
    assert cgroups.of_procfs(f"0::/machine.slice/{leaf}\n") == Place(ID, is_monitor=True)


@pytest.mark.parametrize(
    ("path", "unit"),
    [
        ("/system.slice/nginx.service", HostUnit("nginx.service", "system.slice")),
        (
            "/system.slice/system-getty.slice/getty@tty1.service",
            HostUnit("getty@tty1.service", "system-getty.slice"),
        ),
        ("/system.slice/postgresql.service/worker", HostUnit("postgresql.service", "system.slice")),
        (
            "/user.slice/user-1000.slice/session-42.scope",
            HostUnit("session-42.scope", "user-1000.slice", session="42", session_user="ada"),
        ),
        (
            "/user.slice/user-0.slice/session-c1.scope",
            HostUnit("session-c1.scope", "user-0.slice", session="c1", session_user="0"),
        ),
        (
            "/user.slice/user-1000.slice/user@1000.service/app.slice/pipewire.service",
            HostUnit(
                "user@1000.service", "user-1000.slice", "pipewire.service", session_user="ada"
            ),
        ),
        (
            "/user.slice/user-1000.slice/user@1000.service/init.scope",
            HostUnit("user@1000.service", "user-1000.slice", "init.scope", session_user="ada"),
        ),
        ("/init.scope", HostUnit("init.scope")),
        ("/../cron.service", HostUnit("cron.service")),
        ("/system.slice", None),
        ("/", None),
        ("/some/folder", None),
    ],
)
@pytest.mark.parametrize("version", ["0::{}\n", "3:memory:/\n1:name=systemd:{}\n"])
def test_unit_of_a_path(host, path, unit, version):
    cgroups, folder = host
    text = version.format(path)
    assert cgroups.of_procfs(text) == Place(unit=unit)
    procfs(folder, 7, text)
    leaf = path.rpartition("/")[2] if "memory" not in text else ""
    assert cgroups.of_record(70, leaf, 7) == Place(unit=unit)


def test_path_is_read_once_for_each_cgroup(host):
    cgroups, folder = host
    procfs(folder, 7, "0::/system.slice/nginx.service\n")
    first = cgroups.of_record(70, "nginx.service", 7)
    assert cgroups.of_record(70, "nginx.service", 999) == first
    assert cgroups.of_record(71, "nginx.service", 999) == Place(unit=HostUnit("nginx.service"))


def test_process_that_has_ended_has_the_unit_of_its_leaf(host):
    cgroups, _ = host
    assert cgroups.of_record(70, "nginx.service", 7) == Place(unit=HostUnit("nginx.service"))
    assert cgroups.of_record(70, "worker", 7) == HOST


def test_process_that_has_moved_does_not_name_the_cgroup(host):
    cgroups, folder = host
    procfs(folder, 7, "0::/system.slice/other.service\n")
    cgroups.of_record(70, "nginx.service", 7)
    procfs(folder, 8, "0::/system.slice/nginx.service\n")
    assert cgroups.of_record(70, "nginx.service", 8).unit.unit == "nginx.service"


def test_host_without_systemd_has_no_units(tmp_path):
    cgroups = Cgroups(tmp_path, Names())
    procfs(tmp_path, 7, "0::/system.slice/nginx.service\n")
    assert cgroups.of_record(70, "nginx.service", 7) == HOST
    assert cgroups.of_record(70, "", 7) == HOST


def test_process_that_has_ended_has_the_place_of_its_parent(host):
    """A storm of short lives in a container that runs its processes below its own cgroup."""
    cgroups, folder = host
    procfs(folder, 5, f"0::/docker/{ID}/worker\n")
    assert cgroups.of_record(70, "worker", 7, parent_pid=5) == Place(ID)
    procfs(folder, 5, "0::/elsewhere\n")  # kept: no process of the cgroup is read again
    assert cgroups.of_record(70, "worker", 8, parent_pid=5) == Place(ID)


def test_parent_in_another_cgroup_does_not_name_the_place(host):
    cgroups, folder = host
    procfs(folder, 1, f"0::/docker/{ID}/init\n")
    assert cgroups.of_record(70, "worker", 7, parent_pid=1) == HOST
    procfs(folder, 8, f"0::/docker/{OTHER}/worker\n")
    assert cgroups.of_record(70, "worker", 8, parent_pid=1) == Place(OTHER)


@pytest.mark.parametrize(
    ("unit", "auid", "expected"),
    [
        (None, 1000, HostUnit(session="7", session_user="ada")),
        (None, 1234, HostUnit(session="7", session_user="1234")),
        (None, 0xFFFFFFFF, HostUnit(session="7")),
        (
            HostUnit("cron.service", "system.slice"),
            1000,
            HostUnit("cron.service", "system.slice", session="7", session_user="ada"),
        ),
        # sudo in ada's session: the cgroup says whose it is.
        (
            HostUnit("session-42.scope", session="42", session_user="ada"),
            0,
            HostUnit("session-42.scope", session="42", session_user="ada"),
        ),
        (
            HostUnit("user@1000.service", session_user="ada"),
            1000,
            HostUnit("user@1000.service", session="7", session_user="ada"),
        ),
    ],
)
def test_login_of_the_kernel_fills_what_the_cgroup_does_not_say(unit, auid, expected):
    assert in_session(unit, auid, 7, Names()) == expected
