"""User names on images: which namespaces the host's user database applies to."""

import pytest

from collector.metadata.enricher import Enricher
from collector.processes.procfs import ProcfsProcess
from collector.records.layouts import Credentials
from collector.records.process import ExecDecoder
from unit.collector.synthetic import HOST_NS, exec_record

CONTAINER = "c" * 64
OTHER = 4026532999  # a namespace that is not the host's


class OneUser:
    """A user database of one."""

    def name(self, uid):
        return {7: "alice"}.get(uid, "")


def enricher():
    return Enricher(HOST_NS, users=OneUser(), show_user=True)


def from_record(namespaces, container):
    cgroup = CONTAINER.encode() if container else b""
    data = exec_record(5, 10, ids=(1, 2, 7, 4, 5, 6, 8, 9), ns=namespaces, cgroup=cgroup)
    return enricher().from_record(ExecDecoder().decode(data))[0]


def from_procfs(namespaces, container):
    found = ProcfsProcess(
        pid=5, parent_pid=1, start_ns=10, arg_start=0, comm="true", exe=b"/bin/true",
        cmdline=b"true\0", cwd=b"/", euid=7, credentials=Credentials(1, 2, 7, 4, 5, 6, 8, 9),
        auid=0, cgroup=f"0::/docker/{CONTAINER}\n" if container else "0::/\n", nspid=5,
        namespaces=namespaces, environ=b"",
    )  # fmt: skip
    return enricher().from_procfs(found, in_init_tree=False)[0]


@pytest.mark.parametrize("image_of", [from_record, from_procfs])
@pytest.mark.parametrize(
    ("changes", "container", "name", "shown"),
    [
        ({}, False, "alice", True),
        ({}, True, "alice", True),
        # The same number in another user namespace is another user.
        ({"user": OTHER}, False, "", False),
        ({"user": OTHER}, True, "", False),
        ({"user": 0}, False, "", False),
        # A service with its own mounts has the host's passwd file, a container its own.
        ({"mnt": OTHER}, False, "alice", False),
        ({"mnt": OTHER}, True, "", False),
        ({"mnt": OTHER, "user": OTHER}, False, "", False),
        # No other namespace counts.
        ({"pid": OTHER, "net": OTHER, "uts": OTHER, "cgroup": OTHER}, False, "alice", True),
    ],
)
def test_user_has_the_hosts_name_in_the_hosts_namespaces(image_of, changes, container, name, shown):
    image = image_of(HOST_NS._replace(**changes), container)
    assert (image.uid, bool(image.docker)) == (7, container)
    assert (image.user, image.show_user) == (name, shown)


def test_user_without_a_name_is_not_shown():
    record = ExecDecoder().decode(exec_record(5, 10, ids=(7, 2, 3, 4, 5, 6, 8, 9)))
    image = enricher().from_record(record)[0]
    assert (image.uid, image.user, image.show_user) == (3, "", False)


def test_record_is_placed_once(tmp_path):
    """Its place is asked for twice, and where nothing is cached each would read /proc."""
    made = Enricher(HOST_NS, procfs=tmp_path)
    record = ExecDecoder().decode(exec_record(5, 10, cgroup=b"worker"))
    assert made.ready(record)  # it has ended: its place is that of a host process
    (tmp_path / "5").mkdir()
    (tmp_path / "5/cgroup").write_text(f"0::/docker/{CONTAINER}/worker\n")
    assert made.from_record(record)[0].docker == ""
    again = ExecDecoder().decode(exec_record(5, 11, cgroup=b"worker"))
    assert made.from_record(again)[0].docker == CONTAINER[:31]
