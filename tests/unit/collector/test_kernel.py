"""What a kernel has is found in its types, and kept in the cache."""

import pytest

from collector.bpf import kernel
from collector.errors import BtfError, KernelError
from support.btf_builder import BtfBuilder

PTR, TYPEDEF = 2, 8


def types(*, exit_arguments=1, prepare_exec=False, members=(), ring=True, controllers=None):
    """Return the types of a made-up kernel, as bytes."""
    b = BtfBuilder()
    number = b.integer("int", 4, signed=True)
    pointer = b.add(PTR, "", 0)

    def tracepoint(name, arguments):
        params = [("__data", pointer), *((f"a{n}", number) for n in range(arguments))]
        b.add(TYPEDEF, f"btf_trace_{name}", b.add(PTR, "", b.prototype(0, params)))

    if exit_arguments is not None:
        tracepoint("sched_process_exit", exit_arguments)
    if prepare_exec:
        tracepoint("sched_prepare_exec", 2)
    for struct in ("task_struct", "nsproxy", "kernfs_node"):
        own = [name for owner, name in members if owner == struct]
        b.struct(struct, 64, [("first", number, 0), *((name, number, 32) for name in own)])
    b.enum("bpf_func_id", {"BPF_FUNC_ringbuf_output": 130} if ring else {"BPF_FUNC_unspec": 0})
    b.enum("cgroup_subsys_id", {"cpu_cgrp_id": 1, **(controllers or {})})
    return b.bytes()


@pytest.fixture
def detect(tmp_path, monkeypatch):
    """Return a function that detects a kernel by its types, in place of the running one."""
    monkeypatch.setattr(kernel, "BTF", tmp_path / "none")

    def run(data, cgroups="#subsys_name hierarchy num_cgroups enabled\nmemory 0 1 1\n"):
        (tmp_path / "btf").write_bytes(data)
        (tmp_path / "cgroups").write_text(cgroups)
        return kernel.detect(tmp_path / "cache", tmp_path / "btf", tmp_path)

    return run


@pytest.mark.parametrize(
    ("having", "features"),
    [
        ({}, ()),
        # v6.16 gave the tracepoint a second argument: group_dead.
        ({"exit_arguments": 2}, ("HAVE_GROUP_DEAD",)),
        ({"exit_arguments": None}, ()),
        ({"prepare_exec": True}, ("HAVE_PREPARE_EXEC",)),
        ({"members": [("task_struct", "loginuid")]}, ("HAVE_LOGINUID",)),
        ({"members": [("nsproxy", "time_ns")]}, ("HAVE_TIME_NS",)),
        ({"members": [("kernfs_node", "__parent")]}, ("HAVE_KERNFS___PARENT",)),
        ({"members": [("nsproxy", "loginuid"), ("task_struct", "time_ns")]}, ()),
        (
            {"exit_arguments": 2, "prepare_exec": True, "members": [("nsproxy", "time_ns")]},
            ("HAVE_GROUP_DEAD", "HAVE_PREPARE_EXEC", "HAVE_TIME_NS"),
        ),
    ],
    ids=str,
)
def test_feature_is_what_the_types_show(detect, having, features):
    found = detect(types(**having))
    assert found.features == features
    assert (found.cgroup, found.cgroup_subsys, found.proven) == ("v2", None, False)


def test_facts_are_read_once_for_each_kernel(detect, monkeypatch):
    first, other = types(exit_arguments=2), types(prepare_exec=True)
    found = detect(first)
    assert detect(other).features == ("HAVE_PREPARE_EXEC",)
    assert detect(other).build != found.build
    monkeypatch.setattr(kernel, "_read_facts", None)
    assert detect(first) == found._replace(cache=detect(first).cache)


@pytest.mark.parametrize(
    ("known", "cgroups", "expected"),
    [
        ({"memory_cgrp_id": 4, "pids_cgrp_id": 9}, "h\npids 3 1 1\nmemory 5 1 1\n", ("memory", 4)),
        ({"memory_cgrp_id": 4, "pids_cgrp_id": 9}, "h\nmemory 0 1 1\npids 3 1 1\n", ("pids", 9)),
        ({"pids_cgrp_id": 9}, "h\nmemory 5 1 1\npids 3 1 1\n", ("pids", 9)),
        ({"cpuset_cgrp_id": 0}, "h\ncpuset 2 1 1\n", ("cpuset", 0)),
    ],
)
def test_controller_of_cgroup_v1(detect, known, cgroups, expected):
    found = detect(types(controllers=known), cgroups)
    assert (found.cgroup, found.cgroup_subsys) == (f"v1:{expected[0]}", expected[1])


@pytest.mark.parametrize("cgroups", ["", "h\n", "h\ncpu 2 1 1\n", "h\nmemory 0 1 1\n"])
def test_without_a_controller_on_v1_cgroups_are_v2(detect, cgroups):
    assert detect(types(controllers={"memory_cgrp_id": 4}), cgroups).cgroup == "v2"


def test_kernel_without_a_ring_buffer_is_refused(detect):
    with pytest.raises(KernelError, match=r"no BPF ring buffer: needs Linux 5\.8"):
        detect(types(ring=False))


@pytest.mark.parametrize("damage", [lambda d: b"", lambda d: b"no types", lambda d: d[:-9]])
def test_damaged_types_are_refused(detect, damage):
    with pytest.raises(BtfError):
        detect(damage(types()))


def test_missing_file_is_refused(tmp_path):
    with pytest.raises(KernelError, match=r"none: no such file"):
        kernel.detect(tmp_path, tmp_path / "none")


def test_types_of_another_kernel_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(kernel, "BTF", tmp_path / "own")
    (tmp_path / "own").write_bytes(types())
    (tmp_path / "other").write_bytes(types(exit_arguments=2))
    with pytest.raises(KernelError, match="not the types of this kernel"):
        kernel.detect(tmp_path / "cache", tmp_path / "other")
    (tmp_path / "other").write_bytes(types())
    assert kernel.detect(tmp_path / "cache", tmp_path / "other").proven


@pytest.mark.parametrize(
    ("notes", "build_id"),
    [
        (b"", ""),
        (b"\4\0\0\0\3\0\0\0\3\0\0\0GNU\0abc\0", "616263"),
        # Behind a note of another owner, and one of another type.
        (b"\5\0\0\0\2\0\0\0\3\0\0\0Linux\0\0\0xy\0\0" + b"\4\0\0\0\1\0\0\0\3\0\0\0GNU\0z\0\0\0",
         "7a"),
        (b"\4\0\0\0\1\0\0\0\1\0\0\0GNU\0z\0\0\0", ""),
    ],
)  # fmt: skip
def test_build_id_is_the_note_of_gnu(notes, build_id):
    assert kernel._gnu_build_id(notes) == build_id
