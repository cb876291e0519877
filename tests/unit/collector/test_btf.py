"""Reading types: members by a path, prototypes, enums, names as C; wrong questions."""

import pytest

from collector.bpf.btf import Btf, BtfKind
from collector.errors import BtfError
from support.btf_builder import BtfBuilder

PTR, FWD, TYPEDEF, CONST, TAG = 2, 7, 8, 10, 18


@pytest.fixture
def types():
    """A kernel of three structs and two functions."""
    b = BtfBuilder()
    number = b.integer("int", 4, signed=True)  # 1
    byte = b.integer("char", 1)  # 2
    wide = b.integer("long unsigned int", 8)  # 3
    flag = b.integer("_Bool", 1, boolean=True)  # 4
    comm = b.array(byte, 16)
    opaque = b.add(FWD, "owner")
    owner_pointer = b.add(PTR, "", opaque)
    inner = b.struct("", 8, [("left", number, 0), ("right", number, 32)])
    either = b.struct("", 8, [("whole", wide, 0), ("", inner, 0)], union=True)
    b.add(TYPEDEF, "pid_t", number)
    task = b.struct(
        "task", 64,
        [("pid", number, 0), ("", either, 64), ("comm", comm, 128), ("mm", owner_pointer, 256)],
    )  # fmt: skip
    b.struct("owner", 16, [("task", b.add(PTR, "", task), 0), ("live", flag, 64)])
    unsigned = b.integer("unsigned int", 4)
    b.struct(
        "bits", 8, [("plain", number, 0, 0), ("low", unsigned, 32, 3), ("high", unsigned, 40, 24)],
        bit_fields=True,
    )  # fmt: skip
    text = b.add(PTR, "", b.add(CONST, "", byte))
    task_pointer = b.add(PTR, "", b.add(TAG, "rcu", task))
    b.function("do_work", number, [("task", task_pointer), ("name", text), ("why", unsigned)])
    b.function("do_nothing", 0, [])
    proto = b.prototype(0, [("__data", b.add(PTR, "", 0)), ("task", task_pointer)])
    b.add(TYPEDEF, "btf_trace_work_begins", b.add(PTR, "", proto))
    b.enum("state", {"IDLE": 0, "BUSY": 7}, signed=False)
    b.enum("error", {"NONE": 0, "LOST": -5}, signed=True)
    b.enum64("mask", {"TOP": 1 << 63})
    b.struct("list", 8, [("next", b.add(PTR, "", len(b.types) + 2), 0)])
    return Btf(b.bytes())


def test_member_by_name_and_in_anonymous_parts(types):
    assert types.struct_member("struct task", "pid").offset == 0
    assert types.struct_member("task", "whole").offset == 8
    right = types.struct_member("task", "right")
    assert (right.offset, right.size) == (12, 4)


def test_member_behind_pointers_of_a_struct_that_is_defined_elsewhere(types):
    found = types.struct_member("task", "mm.task.comm[3]")
    assert found.offsets == (32, 0, 19)
    assert (types.type_name(found.type), found.size) == ("char", 1)
    with pytest.raises(ValueError, match="unpack"):
        _ = found.offset


def test_bit_fields_lie_in_a_unit_of_their_type(types):
    low, high = types.struct_member("bits", "low"), types.struct_member("bits", "high")
    assert (low.offset, low.bits, low.bit_offset, low.size) == (4, 3, 0, 4)
    assert (high.offset, high.bits, high.bit_offset, high.size) == (4, 24, 8, 4)
    assert types.struct_member("bits", "plain").bits == 0


@pytest.mark.parametrize(
    ("struct", "path", "reason"),
    [
        ("struct task", "pidd", "struct task has no member pidd (nearest: pid)"),
        ("struct tasks", "pid", "no type struct tasks in this kernel (nearest: task)"),
        ("struct task", "comm[16]", "comm[16]: the array has 16 elements"),
        ("struct task", "pid.value", "value: int has no members"),
        ("struct task", "mm.task.comm[2][3]", "mm.task.comm[2][3]: char is no array or pointer"),
        ("struct task", "pid[0]", "pid[0]: int is no array or pointer"),
        ("struct task", "a..b", "a..b: not a path of members"),
        ("struct task", "", ": not a path of members"),
        ("struct bits", "low.x", "x: a bit field has no members"),
    ],
)
def test_wrong_path_names_the_part(types, struct, path, reason):
    with pytest.raises(BtfError) as caught:
        types.struct_member(struct, path)
    assert str(caught.value).startswith(reason)


def test_prototypes(types):
    found = types.func_proto("do_work")
    assert found.id == types.find_func("do_work")
    assert [types.type_name(p.type, p.name) for p in found.params] == [
        "struct task *task", "const char *name", "unsigned int why",
    ]  # fmt: skip
    assert types.type_name(found.result) == "int"
    assert types.func_proto("do_nothing").params == ()
    hook = types.tracepoint_proto("work_begins")
    assert [types.type_name(p.type, p.name) for p in hook.params] == ["struct task *task"]
    assert hook.id == types.find("btf_trace_work_begins", BtfKind.TYPEDEF)


def test_missing_functions_are_reported_with_similar_names(types):
    with pytest.raises(BtfError, match=r"no function do_wrok .*nearest: do_work") as caught:
        types.func_proto("do_wrok")
    assert caught.value.nearest == ("do_work",)
    with pytest.raises(BtfError, match=r"no tracepoint work_begin .*nearest: work_begins"):
        types.tracepoint_proto("work_begin")


def test_enums_keep_their_sign_and_width(types):
    assert types.enum_values("state") == {"IDLE": 0, "BUSY": 7}
    assert types.enum_values("error") == {"NONE": 0, "LOST": -5}
    assert types.enum_values("mask") == {"TOP": 1 << 63}
    assert types.constants({"BUSY", "TOP", "MISSING"}) == {"BUSY": 7, "TOP": 1 << 63}


def test_sizes_and_signs(types):
    assert types.size(types.find_type("struct task")) == 64
    assert types.size(types.struct_member("task", "comm").type) == 16
    assert types.size(types.struct_member("task", "mm").type) == 8
    assert types.is_signed(types.find_type("pid_t"))
    assert not types.is_signed(types.find_type("long unsigned int"))
    assert types.is_bool(types.struct_member("owner", "live").type)
    assert types.size(0) == 0


def test_types_as_c(types):
    assert types.type_name(types.struct_member("task", "comm").type, "comm") == "char comm[16]"
    hook = types.find("btf_trace_work_begins", BtfKind.TYPEDEF)
    assert types.type_name(types.strip(hook), "f") == "void (*f)(void *__data, struct task *task)"


def test_module_on_top_of_the_kernel(types):
    data = BtfBuilder(first=types.count, text_base=len(types._text))
    pointer = data.add(PTR, "", types.find_type("struct task"))
    data.function("module_work", 0, [("task", pointer)])
    module = Btf(data.bytes(), types)
    found = module.func_proto("module_work")
    assert module.type_name(found.params[0].type) == "struct task *"
    assert module.find_func("do_work") == types.find_func("do_work")
    assert module.struct_member("task", "mm.live").offsets == (32, 8)
    assert set(module.names(BtfKind.FUNC)) == {"module_work", "do_work", "do_nothing"}


@pytest.mark.parametrize("damage", [lambda d: b"", lambda d: b"types, honestly", lambda d: d[:60],
                                    lambda d: d[:-1], lambda d: d[:-1] + b"x",
                                    lambda d: b"\xeb\x9f" + d[2:]])  # fmt: skip
def test_damaged_information_is_refused(types, damage):
    with pytest.raises(BtfError):
        Btf(damage(types._data))
