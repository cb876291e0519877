"""What a document means: every key in the typed policy, defaults and conversions included."""

from ipaddress import ip_network

import pytest

from tracingpolicy import PolicyErrors, model, parse, selectors
from tracingpolicy.actions import ActionKind
from tracingpolicy.cel import ArgumentValue, Binary, CelType, Literal
from tracingpolicy.model import Argument, Digest, HookKind, Symbol
from tracingpolicy.operators import Operator
from tracingpolicy.position import Position
from tracingpolicy.types import TYPES_BY_NAME, ArgumentType
from tracingpolicy.values import (
    CapabilitySet,
    ContainerField,
    DataSource,
    FileType,
    ListReference,
    ListType,
    Mode,
    Namespace,
    OverrideMethod,
    Range,
    RateLimitScope,
    UserId,
)

HEAD = "apiVersion: tetra.io/v1\nkind: TracingPolicy\nmetadata: {name: p}\nspec:\n"


def spec(text):
    return parse(HEAD + text)


def values(kind, operator, *texts):
    listed = ", ".join(f'"{text}"' for text in texts)
    policy = spec(
        f"""
  kprobes:
  - call: f
    syscall: false
    args: [{{index: 0, type: {kind}, sizeArgIndex: 1}}]
    selectors:
    - matchArgs: [{{index: 0, operator: {operator}, values: [{listed}]}}]
"""
    )
    (made,) = policy.kprobes[0].selectors[0].args
    return made.values


@pytest.mark.parametrize("text", [" 5", "5 ", "+-5", "0x", "1__0", "5\\n", "_5"])
def test_what_go_reads_as_no_number_is_none(text):
    with pytest.raises(PolicyErrors, match="is not a number"):
        values("int", "Equal", text)


def test_frame():
    policy = parse(
        """
kind: TracingPolicyNamespaced
metadata:
  name: a.b-c
  namespace: shop
  labels: {app.example.com/x: "1"}
  annotations: {note: any text}
  creationTimestamp: null
  uid: 1234-5678
spec:
  loader: false
  podSelector:
    matchLabels: {app: web}
    matchExpressions: [{key: tier, operator: NotIn, values: [db]}]
  containerSelector: {}
  nodeSelector: {matchExpressions: [{key: zone, operator: Exists}]}
  options:
  - {name: disable-kprobe-multi, value: "1"}
  - {name: disable-uprobe-multi, value: "false"}
  - {name: policy-mode, value: enforce}
  - {name: policy-mode, value: monitor}
  - {name: override-method, value: fmod-ret}
  - {name: sleepable-preload-size, value: "512"}
""",
        "f.yaml",
    )
    assert policy.kind is model.PolicyKind.NAMESPACED
    assert (policy.name, policy.namespace, policy.file) == ("a.b-c", "shop", "f.yaml")
    assert policy.api_version == "cilium.io/v1alpha1"
    assert policy.labels == (("app.example.com/x", "1"),)
    assert policy.annotations == (("note", "any text"),)
    assert policy.pod_selector == selectors.LabelSelector(
        labels=(("app", "web"),),
        expressions=(selectors.LabelRequirement(key="tier", operator="NotIn", values=("db",)),),
    )
    assert policy.container_selector == selectors.LabelSelector()
    assert policy.host_selector is False
    assert policy.node_selector.expressions[0].operator == "Exists"
    assert policy.options == model.Options(
        disable_kprobe_multi=True,
        mode=Mode.MONITOR,
        override_method=OverrideMethod.FMOD_RET,
        sleepable_preload_size=512,
    )
    assert list(policy.hooks()) == []


def test_empty_spec_and_foreign_version_are_accepted():
    policy = parse("apiVersion: other/v9\nkind: TracingPolicy\nmetadata: {name: p}\nspec: {}\n")
    assert list(policy.hooks()) == []
    assert policy.notices()[0] == "apiVersion other/v9 is unknown, and read as cilium.io/v1alpha1"


def test_a_marker_at_the_end_begins_no_document():
    text = "---\nkind: TracingPolicy\nmetadata: {name: a}\nspec: {}\n---\n# nothing\n"
    assert parse(text, "a.yaml") == parse(text.replace("---\n", ""), "a.yaml")


def test_json_is_accepted():
    text = '{"kind": "TracingPolicy", "metadata": {"name": "p"}, "spec": {"loader": true}}'
    assert parse(text).loader is True


def test_kprobe():
    policy = spec(
        """
  kprobes:
  - call: security_file_permission
    syscall: false
    return: true
    returnArg: {index: 0, type: sock}
    returnArgAction: tracksock
    ignore: {callNotFound: true}
    message: "caf\\u00e9"
    tags: [files, "a b"]
    args:
    - {index: 0, type: file, label: which}
    - {index: 1, type: char_buf, sizeArgIndex: 3, maxData: true}
    - {index: 2, type: char_buf, returnCopy: true}
    - {index: 0, type: string, resolve: "f_path.dentry.d_parent[2].d_name.name", btfType: file}
    data:
    - {index: 0, type: string, source: current_task, resolve: comm}
    - {index: 1, type: uint64, source: pt_regs, resolve: rax, btfTypeModule: xfs}
"""
    )
    hook = policy.kprobes[0]
    assert hook.kind is HookKind.KPROBE
    assert hook == model.Kprobe(
        index=0,
        call="security_file_permission",
        syscall=False,
        returns=True,
        return_arg=Argument(index=0, type=ArgumentType.SOCK),
        return_arg_action=ActionKind.TRACK_SOCK,
        ignore_call_not_found=True,
        message="café".encode(),
        tags=(b"files", b"a b"),
        args=(
            Argument(index=0, type=ArgumentType.FILE, label="which"),
            Argument(index=1, type=ArgumentType.CHAR_BUF, size_arg_index=3, max_data=True),
            Argument(index=2, type=ArgumentType.CHAR_BUF, return_copy=True),
            Argument(
                index=0,
                type=ArgumentType.STRING,
                resolve=("f_path", "dentry", "d_parent", 2, "d_name", "name"),
                btf_type="file",
            ),
        ),
        data=(
            Argument(
                index=0,
                type=ArgumentType.STRING,
                source=DataSource.CURRENT_TASK,
                resolve=("comm",),
            ),
            Argument(
                index=1,
                type=ArgumentType.UINT64,
                source=DataSource.PT_REGS,
                resolve=("rax",),
                btf_type_module="xfs",
            ),
        ),
    )


def test_defaults_of_a_kprobe():
    hook = spec("  kprobes: [{call: sys_read}]\n").kprobes[0]
    assert hook == model.Kprobe(call="sys_read", syscall=True)
    assert hook.list_name == ""


def test_long_message_and_tag_are_cut_at_bytes():
    text = "  kprobes: [{call: sys_read, message: 'M', tags: ['T']}]\n"
    long = "é" * 200
    hook = spec(text.replace("M", "m" + long).replace("T", "t" + long)).kprobes[0]
    assert (len(hook.message), len(hook.tags[0])) == (256, 128)
    assert hook.message.endswith(b"\xc3")


def test_other_hooks():
    policy = spec(
        """
  fentries: [{call: tcp_connect, syscall: false}]
  tracepoints:
  - {subsystem: sched, event: sched_switch, args: [{index: 5}, {index: 6, type: auto}]}
  - {subsystem: sched, event: sched_switch, raw: true, args: [{index: 1, type: linux_binprm}]}
  uprobes:
  - path: /bin/bash
    symbols: [readline, "main+0x10"]
    refCtrOffsets: [0, 64]
    binaryDigests: ["SHA1:00112233445566778899aabbccddeeff00112233", "build-id:ab"]
    btfPath: /tmp/x.btf
    ignore: {digestVerificationFailure: true}
    return: true
    returnArg: {index: 0, type: string}
  - {path: /bin/bash, offsets: [0x20]}
  - {path: /bin/bash, addrs: [4096]}
  usdts: [{path: /bin/x, provider: prov, name: start, args: [{index: 1, type: int32}]}]
  lsmhooks: [{hook: file_open, args: [{index: 0, type: auto, resolve: f_mode}]}]
"""
    )
    kinds = [hook.kind for hook in policy.hooks()]
    assert kinds == [
        HookKind.FENTRY,
        *[HookKind.TRACEPOINT] * 2,
        *[HookKind.UPROBE] * 3,
        HookKind.USDT,
        HookKind.LSM,
    ]
    assert [hook.index for hook in policy.uprobes] == [0, 1, 2]
    first = policy.uprobes[0]
    assert first.symbols == (Symbol("readline", 0, "readline"), Symbol("main", 16, "main+0x10"))
    assert first.ref_ctr_offsets == (0, 64)
    assert first.digests[1] == Digest("build-id", b"\xab")
    assert first.digests[0].algorithm == "sha1"
    assert first.ignore_digest_failure
    assert first.returns
    assert policy.uprobes[1].offsets == (32,)
    assert policy.uprobes[2].addresses == (4096,)
    assert policy.tracepoints[1].raw
    assert policy.tracepoints[0].args[1].type is ArgumentType.AUTO


@pytest.mark.parametrize(
    ("kind", "operator", "texts", "expected"),
    [
        ("int", "Equal", ["-1", "0x10", "010", "0b11", "1_000"], (-1, 16, 8, 3, 1000)),
        ("int", "GreaterThan", ["5"], (5,)),
        ("int", "Mask", ["-1", "0x80000000"], (0xFFFF_FFFF, 0x8000_0000)),
        ("int16", "Equal", ["-1", "65534"], (-1, -2)),
        ("int64", "NotEqual", ["-9223372036854775808"], (-(1 << 63),)),
        ("uint64", "LT", ["18446744073709551615"], ((1 << 64) - 1,)),
        ("size_t", "Equal", ["-1"], ((1 << 64) - 1,)),
        ("uint32", "InRange", ["0:0x10"], (Range(0, 16),)),
        ("int", "InMap", ["5", "9:7", "-3"], (5, Range(7, 9), -3)),
        ("long", "NotInRange", ["-5:5"], (Range(-5, 5),)),
        ("cap_effective", "Equal", ["cap_chown, CAP_KILL", "7"], (0b100001, 7)),
        ("capability", "Equal", ["CAP_SYS_ADMIN", "1"], (21, 1)),
        ("string", "Equal", ["abc\\0\\0", "\\u00e9", "abc"], (b"abc", "é".encode())),
        ("char_buf", "Prefix", ["a\\0b"], (b"a\0b",)),
        ("file", "Postfix", [".conf"], (b".conf",)),
        ("path", "SubStringIgnCase", ["Passwd"], (b"Passwd",)),
        ("file", "FileType", ["reg", "pipe"], (FileType.REGULAR, FileType.FIFO)),
        (
            "sock",
            "NotDAddr",
            ["127.0.0.1/8", "::1"],
            (ip_network("127.0.0.0/8"), ip_network("::1/128")),
        ),
        ("skb", "DPort", ["53", "1:1023"], (53, Range(1, 1023))),
        ("sock", "SPortPriv", ["ignored"], ()),
        ("socket", "NotSportPriv", [], ()),
        ("sock", "Protocol", ["IPPROTO_TCP", "17"], (6, 17)),
        ("sockaddr", "Family", ["AF_INET6", "2"], (10, 2)),
        ("sock", "State", ["TCP_LISTEN"], (10,)),
        (
            "int",
            "CelExpr",
            ["arg0 > int32(5)"],
            None,
        ),
    ],
)
def test_values(kind, operator, texts, expected):
    found = values(kind, operator, *texts)
    if expected is None:
        root = Binary(">", ArgumentValue(0, CelType.S32), Literal(5, CelType.S32), CelType.BOOL)
        assert found[0].root == root
    else:
        assert found == expected


@pytest.mark.parametrize("name", [name for name in TYPES_BY_NAME if name != "const_buf"])
def test_every_type_is_accepted_somewhere(name):
    argument = f"args: [{{index: 4, type: {name}, sizeArgIndex: 1}}]"
    if name in ("auto", "data_loc", "syscall64"):
        policy = spec(f"  tracepoints: [{{subsystem: s, event: e, {argument}}}]\n")
    else:
        policy = spec(f"  kprobes: [{{call: sys_x, {argument}}}]\n")
    assert next(policy.hooks()).args[0].type is TYPES_BY_NAME[name]


def test_selectors():
    policy = spec(
        """
  kprobes:
  - call: sys_x
    args:
    - {index: 2, type: cap_inheritable}
    - {index: 1, type: cap_effective}
    - {index: 0, type: sock}
    data: [{type: int, source: current_task, resolve: flags}]
    return: true
    returnArg: {index: 0, type: int}
    selectors:
    - label: first
      matchPIDs:
      - {operator: NotIn, values: [0, 1, 2, 3, 4], isNamespacePID: true, followForks: true}
      matchBinaries: [{operator: In, values: [/bin/sh], followChildren: true}]
      matchParentBinaries: [{operator: NotPostfix, values: [sh]}]
      matchNamespaces: [{namespace: Mnt, operator: In, values: ["4026531840", host_ns]}]
      matchNamespaceChanges: [{operator: In, values: [Net, PidForChildren]}]
      matchCapabilities: [{type: Permitted, operator: NotIn, values: [CAP_CHOWN, CAP_BPF]}]
      matchCapabilityChanges: [{operator: In, isNamespaceCapability: true, values: [CAP_KILL]}]
      matchWorkloads: [{hostSelector: {}}, {podSelector: {matchLabels: {a: b}}}]
      matchUsers:
      - {operator: In, values: ["0", "1000:1999"]}
      - {type: auid, operator: NotIn, values: [unset]}
      matchContainers: [{field: image, operator: Prefix, values: [nginx]}]
      matchArgs:
      - {args: [0, 1], operator: CapabilitiesGained}
      - {index: 0, operator: SAddr, values: [10.0.0.1]}
      matchData: [{index: 0, operator: Mask, values: ["4"]}]
      matchReturnArgs: [{index: 0, operator: LT, values: ["0"]}]
      matchActions:
      - action: Post
        rateLimit: 5M
        rateLimitScope: global
        kernelStackTrace: true
        userStackTrace: true
      - {action: UntrackSock, argSock: 2}
      - {action: Override, argError: -1}
      matchReturnActions: [{action: Signal, argSig: 15}]
    - {}
"""
    )
    one, two = policy.kprobes[0].selectors
    assert two == selectors.Selector()
    assert one == selectors.Selector(
        label="first",
        pids=(
            selectors.MatchPids(
                operator=Operator.NOT_IN,
                values=(0, 1, 2, 3, 4),
                is_namespace_pid=True,
                follow_forks=True,
            ),
        ),
        binaries=(
            selectors.MatchBinaries(
                operator=Operator.IN, values=(b"/bin/sh",), follow_children=True
            ),
        ),
        parent_binaries=(selectors.MatchBinaries(operator=Operator.NOT_POSTFIX, values=(b"sh",)),),
        namespaces=(
            selectors.MatchNamespaces(
                namespace=Namespace.MNT, operator=Operator.IN, values=(4026531840,), host=True
            ),
        ),
        namespace_changes=(
            selectors.MatchNamespaceChanges(
                operator=Operator.IN, values=(Namespace.NET, Namespace.PID_FOR_CHILDREN)
            ),
        ),
        capabilities=(
            selectors.MatchCapabilities(
                operator=Operator.NOT_IN, set=CapabilitySet.PERMITTED, mask=1 | 1 << 39
            ),
        ),
        capability_changes=(
            selectors.MatchCapabilities(
                operator=Operator.IN, mask=1 << 5, is_namespace_capability=True
            ),
        ),
        workloads=(
            selectors.MatchWorkloads(host_selector=True),
            selectors.MatchWorkloads(pod_selector=selectors.LabelSelector(labels=(("a", "b"),))),
        ),
        users=(
            selectors.MatchUsers(
                type=UserId.UID, operator=Operator.IN, values=(0, Range(1000, 1999))
            ),
            selectors.MatchUsers(type=UserId.AUID, operator=Operator.NOT_IN, values=(0xFFFF_FFFF,)),
        ),
        containers=(
            selectors.MatchContainers(
                what=ContainerField.IMAGE, operator=Operator.PREFIX, values=("nginx",)
            ),
        ),
        args=(
            selectors.ValueFilter(operands=(0, 1), operator=Operator.CAPABILITIES_GAINED),
            selectors.ValueFilter(
                operands=(2,), operator=Operator.SADDR, values=(ip_network("10.0.0.1"),)
            ),
        ),
        data=(selectors.ValueFilter(operands=(0,), operator=Operator.MASK, values=(4,)),),
        return_args=(selectors.ValueFilter(operands=(0,), operator=Operator.LT, values=(0,)),),
        actions=(
            selectors.Action(
                kind=ActionKind.POST,
                rate_limit_ms=300_000,
                rate_limit_scope=RateLimitScope.GLOBAL,
                kernel_stack_trace=True,
                user_stack_trace=True,
            ),
            selectors.Action(kind=ActionKind.UNTRACK_SOCK, arg_sock=2),
            selectors.Action(kind=ActionKind.OVERRIDE, arg_error=-1),
        ),
        return_actions=(selectors.Action(kind=ActionKind.SIGNAL, arg_signal=15),),
    )


def test_an_empty_rate_limit_is_none():
    policy = spec(
        """
  kprobes:
  - call: sys_x
    selectors:
    - matchActions:
      - {action: Post, rateLimit: "", rateLimitScope: ""}
      - {action: Sigkill, rateLimit: "", rateLimitScope: ""}
"""
    )
    post, kill = policy.kprobes[0].selectors[0].actions
    for one in (post, kill):
        assert one.rate_limit_ms == 0
        assert one.rate_limit_scope is RateLimitScope.THREAD


def test_a_scope_without_a_rate_limit_is_accepted_and_limits_nothing():
    policy = spec(
        """
  kprobes:
  - call: sys_x
    selectors:
    - matchActions:
      - {action: Sigkill, rateLimitScope: process}
      - {action: Post, rateLimitScope: global}
"""
    )
    assert [one.rate_limit_ms for one in policy.kprobes[0].selectors[0].actions] == [0, 0]


def test_macro_is_merged_and_gives_its_label():
    policy = spec(
        """
  selectorsMacros:
    shells:
      label: shells
      matchBinaries: [{operator: In, values: [/bin/sh]}]
      matchWorkloads: [{hostSelector: {}}]
  kprobes:
  - call: sys_read
    selectors: [{macros: [shells], matchPIDs: [{operator: In, values: [1]}]}]
"""
    )
    (one,) = policy.kprobes[0].selectors
    assert one.label == "shells"
    assert (len(one.binaries), len(one.workloads), len(one.pids)) == (1, 1, 1)


def test_tracepoint_filter_finds_fields_by_number_or_position():
    policy = spec(
        """
  lists: [{name: calls, type: syscalls, values: [sys_dup, i386/sys_dup]}]
  enforcers: [{calls: ["list:calls", security_file_open]}]
  tracepoints:
  - subsystem: raw_syscalls
    event: sys_enter
    args: [{index: 4, type: syscall64}, {index: 5}]
    selectors:
    - matchArgs: [{index: 0, operator: InMap, values: ["list:calls"]}]
      matchActions: [{action: NotifyEnforcer, argError: -1}]
    - matchArgs: [{index: 4, operator: Equal, values: ["1"]}]
"""
    )
    by_position, by_number = policy.tracepoints[0].selectors
    assert by_position.args[0].operands == by_number.args[0].operands == (0,)
    assert by_position.args[0].values == (ListReference("calls"),)
    assert policy.list_named("calls").type is ListType.SYSCALLS


def test_filter_on_a_type_of_the_kernel_keeps_its_texts():
    policy = spec(
        """
  lsmhooks:
  - hook: file_open
    args: [{index: 0, type: auto, resolve: f_mode}]
    selectors: [{matchArgs: [{index: 0, operator: Equal, values: ["5"]}]}]
"""
    )
    (one,) = policy.lsmhooks[0].selectors[0].args
    assert (one.values, one.texts) == ((), ("5",))


def test_positions_do_not_make_policies_differ():
    text = "  kprobes: [{call: sys_read, args: [{index: 0, type: int}]}]\n"
    spaced = "\n\n  kprobes:\n  - call: sys_read\n    args:\n    - {type: int, index: 0}\n"
    assert spec(text) == spec(spaced)
    assert spec(text).kprobes[0].place.of("args", 0) == Position(5, 37)


def test_anchors_and_merge_keys():
    policy = spec(
        """
  kprobes:
  - &base
    call: sys_read
    args: &args [{index: 0, type: int}]
  - <<: *base
    call: sys_write
  - {call: sys_close, args: *args}
"""
    )
    assert [hook.call for hook in policy.kprobes] == ["sys_read", "sys_write", "sys_close"]
    assert len({hook.args for hook in policy.kprobes}) == 1


def test_more_than_tetragons_limits_is_accepted():
    values = ", ".join(f'"{i}"' for i in range(1000))
    selector = f"{{matchArgs: [{{index: 0, operator: Equal, values: [{values}]}}]}}"
    selectors = ", ".join([selector] * 20)
    args = ", ".join(f"{{index: {i}, type: int}}" for i in range(6))
    hook = spec(
        f"  kprobes: [{{call: sys_x, args: [{args}], selectors: [{selectors}]}}]\n"
    ).kprobes[0]
    assert (len(hook.args), len(hook.selectors)) == (6, 20)
    assert len(hook.selectors[0].args[0].values) == 1000


def test_option_that_is_not_known_has_no_effect_and_is_named():
    hook = "  kprobes: [{call: sys_read}]\n"
    policy = spec(hook + "  options: [{name: disable-sensor-cache, value: 'true'}]\n")
    assert policy.options.ignored == ("disable-sensor-cache",)
    assert policy.notices() == ['option "disable-sensor-cache" is unknown and has no effect']
    assert spec(hook).notices() == []
    assert spec("  kprobes: []\n").notices() == ["it has no hooks, and reports nothing"]


def test_match_workloads_may_stand_without_a_list():
    text = "  kprobes: [{call: sys_read, selectors: [{matchWorkloads: WORKLOADS}]}]\n"
    one = "{podSelector: {matchLabels: {app: web}}}"
    alone, listed = (spec(text.replace("WORKLOADS", form)) for form in (one, f"[{one}]"))
    assert alone == listed
    assert len(alone.kprobes[0].selectors[0].workloads) == 1
