"""Every field of tetragon.Filter by table, alone and together; no event makes a filter raise."""

import itertools
from typing import Any

import pytest
from google.protobuf.json_format import ParseDict
from hypothesis import given, settings
from hypothesis import strategies as st

import eventfilters
from eventfilters import CostError, Event, FilterError, limits
from eventfilters.fields import NAMES
from tetragon import events_pb2


def event(kind="process_exec", **inner):
    """Return an event of ``kind`` whose inner message has these members."""
    return ParseDict({kind: inner}, events_pb2.GetEventsResponse())


def host(**process):
    """Return the exec of a process on the host."""
    return event(process={"pid": 7, "binary": "/usr/bin/cat"} | process, parent=PARENT)


def pod(parent=None, **more):
    """Return the exec of a process in a pod."""
    sent = {"namespace": "shop", "name": "web-0", "pod_labels": {"app": "web", "tier": "3"},
            "container": {"name": "nginx"}} | more  # fmt: skip
    return event(process={"pid": 8, "binary": "/bin/x", "pod": sent}, parent=parent or PARENT)


def caps(**sets):
    return host(cap=sets)


PARENT = {"pid": 3, "binary": "/bin/sh", "arguments": "-c work"}
BARE = event(process={"pid": 9})
NO_PROCESS = event("process_throttle", cgroup="x")
EXIT = event("process_exit", process={"pid": 7, "binary": "/usr/bin/cat"}, status=3)
UPROBE = event("process_uprobe", process={"pid": 7}, policy_name="watch")
RENAMED = event(
    "process_kprobe",
    process={"pid": 7},
    args=[
        {"path_arg": {"path": "/etc"}, "label": "dir"},
        {"path_arg": {"path": "/hosts.new"}, "label": "name"},
        {"path_arg": {"path": "/srv"}, "label": "to_dir"},
        {"path_arg": {"path": "/a"}, "label": "to_name"},
    ],
)
CONNECTED = event(
    "process_tracepoint",
    process={"pid": 7},
    args=[{"sock_arg": {"family": "AF_INET", "daddr": "10.1.2.3", "dport": 443}}],
)
MAPPED = event(  # IPv4 on an IPv6 socket
    "process_tracepoint",
    process={"pid": 7},
    args=[{"sock_arg": {"family": "AF_INET6", "daddr": "::ffff:10.1.2.3", "dport": 443}}],
)
USDT = event("process_usdt", process={"pid": 7}, policy_name="watch")
PROBE = pod(container={"name": "nginx", "maybe_exec_probe": True})
DOCKER = host(container_info={"name": "web-1"})
NGINX = host(host_unit={"unit": "nginx.service", "slice": "system.slice"})
LOGIN = host(
    host_unit={"unit": "user@1000.service", "user_unit": "pipewire.service", "session": "42"}
)
NAMED_TWICE = pod()
NAMED_TWICE.process_exec.process.container_info.name = "other"
ADMIN = ["CAP_SYS_ADMIN", "CAP_NET_RAW"]

TEN = "[1,2,3,4,5,6,7,8,9,10]"
LOOPS = f"{TEN}.all(a,{TEN}.all(b,{TEN}.all(c,{TEN}.all(d,process_exec.process.pid != 9u))))"

# filter, an event, whether it matches
TABLE: list[tuple[dict[str, Any], Any, bool]] = [
    ({}, host(), True),
    ({}, NO_PROCESS, True),
    ({"binary_regex": ["cat$"]}, host(), True),
    ({"binary_regex": ["^cat"]}, host(), False),
    ({"binary_regex": ["nothing", "bin"]}, host(), True),
    ({"binary_regex": ["CAT"]}, host(), False),
    ({"binary_regex": ["(?i)CAT"]}, host(), True),
    ({"binary_regex": [r"\Q.\E"]}, host(binary="/a/b.c"), True),
    ({"binary_regex": [r"\pL"]}, host(binary="/é"), True),
    ({"binary_regex": [""]}, BARE, True),
    ({"binary_regex": [""]}, NO_PROCESS, False),
    ({"binary_regex": ["cat"]}, EXIT, True),
    ({"namespace": ["shop"]}, pod(), True),
    ({"namespace": ["sho"]}, pod(), False),
    ({"namespace": [""]}, host(), True),
    ({"namespace": [""]}, pod(), False),
    ({"namespace": ["", "shop"]}, pod(), True),
    ({"namespace": [""]}, NO_PROCESS, False),
    ({"namespace_regex": ["^s"]}, pod(), True),
    ({"namespace_regex": [""]}, host(), False),
    ({"namespace_regex": [".*"]}, NO_PROCESS, False),
    ({"health_check": True}, PROBE, True),
    ({"health_check": True}, pod(), False),
    ({"health_check": False}, pod(), True),
    ({"health_check": False}, PROBE, False),
    ({"health_check": False}, NO_PROCESS, True),
    ({"health_check": True}, NO_PROCESS, False),
    (
        {"health_check": True},
        pod(parent={"pid": 1, "pod": {"container": {"maybe_exec_probe": True}}}),
        True,
    ),
    ({"pid": [7]}, host(), True),
    ({"pid": [3]}, host(), False),
    ({"pid": [1, 2, 7]}, EXIT, True),
    ({"pid": [0]}, NO_PROCESS, False),
    ({"pid_set": [7]}, host(), True),
    ({"pid_set": [3]}, host(), True),  # its parent is in the set
    ({"pid_set": [4]}, host(), False),
    ({"pid_set": [7]}, NO_PROCESS, False),
    ({"event_set": ["PROCESS_EXEC"]}, host(), True),
    ({"event_set": ["PROCESS_EXIT"]}, host(), False),
    ({"event_set": ["PROCESS_EXIT", "PROCESS_THROTTLE"]}, NO_PROCESS, True),
    ({"pod_regex": ["^web-[0-9]$"]}, pod(), True),
    ({"pod_regex": ["^db"]}, pod(), False),
    ({"pod_regex": [""]}, host(), False),
    ({"arguments_regex": ["^-l"]}, host(arguments="-l /srv"), True),
    ({"arguments_regex": [r"srv\z"]}, host(arguments="-l /srv"), True),
    ({"arguments_regex": ["^$"]}, host(), True),
    ({"arguments_regex": ["x"]}, host(), False),
    ({"arguments_regex": [""]}, NO_PROCESS, False),
    ({"labels": ["app=web"]}, pod(), True),
    ({"labels": ["app==web,tier!=4"]}, pod(), True),
    ({"labels": ["app=db"]}, pod(), False),
    ({"labels": ["app=db", "tier=3"]}, pod(), True),
    ({"labels": ["app in (db, web)"]}, pod(), True),
    ({"labels": ["app notin (db,web)"]}, pod(), False),
    ({"labels": ["zone notin (a)"]}, pod(), True),
    ({"labels": ["!zone"]}, pod(), True),
    ({"labels": ["!app"]}, pod(), False),
    ({"labels": ["app"]}, pod(), True),
    ({"labels": ["tier>2,tier<4"]}, pod(), True),
    ({"labels": ["tier>3"]}, pod(), False),
    ({"labels": [""]}, pod(), True),
    ({"labels": [""]}, host(), False),
    ({"policy_names": ["watch"]}, UPROBE, True),
    ({"policy_names": ["other"]}, UPROBE, False),
    ({"policy_names": ["watch"]}, USDT, False),
    ({"policy_names": ["watch"]}, host(), False),
    ({"policy_names": [""]}, event("process_uprobe", process={"pid": 7}), False),
    ({"file_below": ["/etc"]}, RENAMED, True),
    ({"file_below": ["/srv/a/"]}, RENAMED, True),
    ({"file_below": ["/etc/hosts.new", "/none"]}, RENAMED, True),
    ({"file_below": ["/etc/host"]}, RENAMED, False),
    ({"file_below": ["/"]}, host(), False),
    ({"file_below": ["/"]}, CONNECTED, False),
    ({"peer": ["10.0.0.0/8"]}, CONNECTED, True),
    ({"peer": ["10.1.2.3", "::/0"]}, CONNECTED, True),
    ({"peer": ["10.1.2.4"]}, CONNECTED, False),
    ({"peer": ["10.0.0.0/8"]}, MAPPED, True),
    ({"peer": ["0.0.0.0/0"]}, RENAMED, False),
    ({"peer": ["0.0.0.0/0"]}, NO_PROCESS, False),
    ({"capabilities": {"effective": {"any": ["CAP_SYS_ADMIN"]}}}, caps(effective=ADMIN), True),
    ({"capabilities": {"effective": {"any": ["CAP_CHOWN"]}}}, caps(effective=ADMIN), False),
    ({"capabilities": {"effective": {"all": ADMIN}}}, caps(effective=[*ADMIN, "CAP_CHOWN"]), True),
    ({"capabilities": {"effective": {"all": ADMIN}}}, caps(effective=ADMIN[:1]), False),
    ({"capabilities": {"permitted": {"exactly": ADMIN}}}, caps(permitted=ADMIN), True),
    ({"capabilities": {"permitted": {"exactly": ADMIN[:1]}}}, caps(permitted=ADMIN), False),
    ({"capabilities": {"inheritable": {"none": ADMIN}}}, caps(effective=ADMIN), True),
    ({"capabilities": {"inheritable": {"none": ADMIN}}}, caps(inheritable=ADMIN), False),
    (
        {"capabilities": {"effective": {"any": ADMIN}, "permitted": {"none": ADMIN}}},
        caps(effective=ADMIN, permitted=ADMIN),
        False,
    ),
    ({"capabilities": {"effective": {"none": ADMIN}}}, host(), False),
    ({"capabilities": {}}, caps(effective=ADMIN), True),
    ({"parent_binary_regex": ["sh$"]}, host(), True),
    ({"parent_binary_regex": ["cat"]}, host(), False),
    ({"parent_binary_regex": [""]}, BARE, False),
    ({"parent_arguments_regex": ["work"]}, host(), True),
    ({"parent_arguments_regex": ["^work"]}, host(), False),
    ({"parent_arguments_regex": [""]}, BARE, False),
    ({"cel_expression": ["process_exec.process.pid > uint(6)"]}, host(), True),
    ({"cel_expression": ["process_exec.process.pid > uint(7)"]}, host(), False),
    ({"cel_expression": ["process_exec.process.pid == uint(7)"]}, EXIT, False),
    (
        {
            "cel_expression": [
                "process_exec.process.pid == uint(1) || process_exit.process.pid == uint(7)"
            ]
        },
        EXIT,
        True,
    ),
    ({"cel_expression": ["process_exit.status == uint(3)"]}, EXIT, True),
    ({"cel_expression": ["true"]}, host(), False),
    ({"cel_expression": [LOOPS]}, host(), False),  # beyond the iterations that CEL allows
    (
        {"cel_expression": ["process_exec.process.pod.namespace == 'x'",
                            "process_exec.process.binary.endsWith('cat')"]},
        host(),
        True,
    ),
    ({"container_id": ["^abc"]}, host(docker="abcdef"), True),
    ({"container_id": ["^b"]}, host(docker="abcdef"), False),
    ({"container_id": ["^$"]}, host(), True),
    ({"container_name_regex": ["^nginx$"]}, pod(), True),
    ({"container_name_regex": ["^db$"]}, pod(), False),
    ({"container_name_regex": [""]}, host(), False),
    ({"container_name_regex": ["^web"]}, DOCKER, True),
    ({"container_name_regex": ["^db"]}, DOCKER, False),
    ({"container_name_regex": ["^other"]}, NAMED_TWICE, True),
    ({"container_name_regex": ["^nginx"]}, NAMED_TWICE, True),
    ({"unit": ["nginx.service"]}, NGINX, True),
    ({"unit": ["nginx"]}, NGINX, False),
    ({"unit": ["cron.service", "ng*.service"]}, NGINX, True),
    ({"unit": ["*inx*ser*"]}, NGINX, True),
    ({"unit": ["*ser*inx*"]}, NGINX, False),
    ({"unit": ["nginx.service*nginx.service"]}, NGINX, False),
    ({"unit": ["*"]}, NGINX, True),
    ({"unit": ["*"]}, host(), False),
    ({"unit": ["*"]}, NO_PROCESS, False),
    ({"unit": ["pipewire.service"]}, LOGIN, True),
    ({"unit": ["user@*"]}, LOGIN, True),
    ({"session": ["42"]}, LOGIN, True),
    ({"session": ["4"]}, LOGIN, False),
    ({"session": [""]}, host(), False),
    ({"session": ["42"]}, NO_PROCESS, False),
    ({"in_init_tree": True}, host(in_init_tree=True), True),
    ({"in_init_tree": True}, host(), False),
    ({"in_init_tree": False}, host(), True),
    ({"in_init_tree": False}, host(in_init_tree=True), False),
    ({"in_init_tree": False}, NO_PROCESS, False),
    (
        {"ancestor_binary_regex": ["init$"]},
        event(process={"pid": 7}, ancestors=[{"binary": "/a"}, {"binary": "/sbin/init"}]),
        True,
    ),
    ({"ancestor_binary_regex": ["sh$"]}, host(), False),  # the parent is no ancestor here
    # Two fields: both.
    ({"binary_regex": ["cat"], "pid": [7]}, host(), True),
    ({"binary_regex": ["cat"], "pid": [8]}, host(), False),
    ({"event_set": ["PROCESS_EXIT"], "namespace": [""]}, EXIT, True),
]  # fmt: skip


def filter_of(fields):
    return ParseDict(fields, events_pb2.Filter())


def passes(sent, allow=(), deny=()):
    """Return whether the event passes, as bytes (gateway) and as a message (stdin) alike."""
    allowed, denied = ([filter_of(fields) for fields in part] for part in (allow, deny))
    payload = sent.SerializeToString()
    filters = eventfilters.compile(allowed, denied)
    data = filters.apply(Event(payload))
    if filters.ordered:  # it learned from the event
        filters = eventfilters.compile(allowed, denied)
    message = filters.apply_parsed(Event(None, sent))
    assert data in (None, payload)
    assert message in (None, sent)
    assert (data is None) is (message is None)
    return data is not None


@pytest.mark.parametrize(("fields", "sent", "matches"), TABLE, ids=lambda v: str(v)[:60])
def test_a_filter_alone(fields, sent, matches):
    assert passes(sent, allow=[fields]) is matches
    assert passes(sent, deny=[fields]) is not matches


def test_every_supported_field_is_in_the_table():
    tried = {name for fields, _, _ in TABLE for name in fields}
    assert tried == set(events_pb2.Filter.DESCRIPTOR.fields_by_name) == set(NAMES)
    for name in tried:
        results = {matches for fields, _, matches in TABLE if list(fields) == [name]}
        assert results == {True, False}, name


# Every pair of rows as an allow and a deny list, on the event of the first.
@pytest.mark.parametrize("at", range(len(TABLE)))
def test_allow_and_deny_together(at):
    fields, sent, matches = TABLE[at]
    for other, _, _ in TABLE[at % 7 :: 7]:
        if "pid_set" in other or "pid_set" in fields:
            continue  # it remembers: what it answers depends on what came before
        alone = passes(sent, allow=[other])
        assert passes(sent, allow=[fields], deny=[other]) is (matches and not alone)
        assert passes(sent, allow=[fields, other]) is (matches or alone)
        assert passes(sent, deny=[fields, other]) is (not matches and not alone)


# Two filters with different fields, made into one: the fields are anded.
def test_fields_of_one_filter_are_anded():
    tried = 0
    for (one, sent, matches), (other, _, _) in itertools.product(TABLE[::3], TABLE[1::3]):
        if set(one) & set(other) or "pid_set" in one | other or not one or not other:
            continue
        assert passes(sent, allow=[one | other]) is (matches and passes(sent, allow=[other]))
        tried += 1
    assert tried > 500


def test_descendants_are_learned_in_the_order_of_the_stream():
    filters = eventfilters.compile([filter_of({"pid_set": [3]})])
    family = [
        event(process={"pid": 20}, parent={"pid": 10}),  # before 10 is known
        event(process={"pid": 10}, parent={"pid": 3}),
        event(process={"pid": 20}, parent={"pid": 10}),
        event(process={"pid": 30}, parent={"pid": 20}),
        event(process={"pid": 40}, parent={"pid": 41}),
        event("process_exit", process={"pid": 30}, parent={"pid": 1}),
    ]
    got = [filters.apply(Event(e.SerializeToString())) is not None for e in family]
    assert got == [False, True, True, True, False, True]


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"binary_regex": ["("]}, "binary_regex: regex '('"),
        ({"arguments_regex": ["a", "(?=b)"]}, "arguments_regex: regex '(?=b)'"),
        ({"namespace_regex": ["["]}, "namespace_regex: regex '['"),
        ({"pod_regex": ["*"]}, "pod_regex: regex '*'"),
        ({"container_id": [r"\8"]}, "container_id: regex"),
        ({"container_name_regex": ["a{9999}"]}, "container_name_regex: regex"),
        ({"parent_binary_regex": ["(?P<n"]}, "parent_binary_regex: regex"),
        ({"parent_arguments_regex": ["a**"]}, "parent_arguments_regex: regex"),
        ({"ancestor_binary_regex": ["("]}, "ancestor_binary_regex: regex '('"),
        ({"labels": ["a=b=c"]}, "labels: selector 'a=b=c'"),
        ({"labels": ["a in b"]}, "labels: selector"),
        ({"cel_expression": ["process_exec.nothing == 1"]}, "cel_expression: "),
        ({"cel_expression": ["process_exec.process.pid"]}, "not bool"),
        ({"cel_expression": ["1 +"]}, "cel_expression: '1 +'"),
        ({"capabilities": {"effective": {}}}, "capabilities: effective: exactly one"),
        (
            {"capabilities": {"permitted": {"any": ["CAP_CHOWN"], "all": ["CAP_CHOWN"]}}},
            "capabilities: permitted: exactly one",
        ),
    ],
)
def test_malformed_filter_is_named_in_the_error(fields, text):
    with pytest.raises(FilterError) as caught:
        eventfilters.compile([filter_of(fields)])
    assert text in str(caught.value)
    with pytest.raises(FilterError):
        eventfilters.compile((), [filter_of(fields)])


def test_no_pattern_takes_exponential_time():
    evil = filter_of({"binary_regex": ["(a*)*b", "(a|aa)+$", "(.*a){20}b$"]})
    filters = eventfilters.compile([evil])
    assert filters.apply(Event(host(binary="a" * 100_000 + "!").SerializeToString())) is None


TEXT = st.text(max_size=8) | st.sampled_from(["", "\0", "/usr/bin/x", "\x1b[0m", "é" * 3])
PROCESS = st.fixed_dictionaries(
    {},
    optional={
        "pid": st.integers(0, 2**32 - 1),
        "binary": TEXT,
        "arguments": TEXT,
        "docker": TEXT,
        "in_init_tree": st.booleans(),
        "cap": st.fixed_dictionaries(
            {}, optional={"effective": st.lists(st.sampled_from(ADMIN), max_size=3)}
        ),
        "pod": st.fixed_dictionaries(
            {},
            optional={
                "namespace": TEXT,
                "name": TEXT,
                "pod_labels": st.dictionaries(TEXT, TEXT, max_size=2),
                "container": st.fixed_dictionaries({}, optional={"name": TEXT}),
            },
        ),
    },
)
ONEOF = events_pb2.GetEventsResponse.DESCRIPTOR.oneofs_by_name["event"].fields
KINDS = [field.name for field in ONEOF]


@st.composite
def any_event(draw):
    kind = draw(st.sampled_from(KINDS))
    descriptor = events_pb2.GetEventsResponse.DESCRIPTOR.fields_by_name[kind].message_type
    inner = {}
    for name in ("process", "parent"):
        if name in descriptor.fields_by_name and draw(st.booleans()):
            inner[name] = draw(PROCESS)
    if "ancestors" in descriptor.fields_by_name:
        inner["ancestors"] = draw(st.lists(PROCESS, max_size=2))
    return event(kind, **inner).SerializeToString()


@settings(max_examples=100, deadline=None)
@given(
    payload=any_event() | st.binary(max_size=60),
    rows=st.lists(st.sampled_from(TABLE), min_size=1, max_size=4),
    deny=st.lists(st.sampled_from(TABLE), max_size=2),
)
def test_no_event_makes_a_filter_raise(payload, rows, deny):
    filters = eventfilters.compile(
        [filter_of(fields) for fields, _, _ in rows],
        [filter_of(fields) for fields, _, _ in deny],
        [events_pb2.FieldFilter()],
    )
    assert filters.apply(Event(payload)) in (None, payload)


def of_patterns(count, **more):
    return filter_of({"binary_regex": [f"^/usr/bin/tool{n}$" for n in range(count)]} | more)


def test_many_patterns_of_a_field_are_searched_as_one():
    filters = eventfilters.compile([of_patterns(limits.MAX_PATTERNS)])
    assert filters.apply(Event(host(binary="/usr/bin/tool1023").SerializeToString()))
    assert not filters.apply(Event(host(binary="/usr/bin/tool1024").SerializeToString()))


@pytest.mark.parametrize("quoting", [r"\Qa|b", r"x\Q.\E"])
def test_patterns_that_quote_do_not_swallow_the_others(quoting):
    wanted = {"binary_regex": [quoting, "^/bin/ls$"]}
    assert passes(host(binary="/bin/ls"), allow=[wanted])
    assert not passes(host(binary="/bin/other"), allow=[wanted])


def test_flags_of_one_pattern_do_not_reach_the_next():
    wanted = {"binary_regex": ["(?i)^/BIN/A$", "^/BIN/B$"]}
    assert passes(host(binary="/bin/a"), allow=[wanted])
    assert not passes(host(binary="/bin/b"), allow=[wanted])


@pytest.mark.parametrize(
    ("allow", "text"),
    [
        ([filter_of({"pid": [1]})] * 300_000, "300000 filters, at most 256"),
        ([of_patterns(60_000)], "60000 regexes and label selectors, at most 1024"),
        ([filter_of({"labels": ["a"] * 2000})], "2000 regexes and label selectors"),
        ([filter_of({"cel_expression": ["true"] * 5000})], "5000 CEL expressions, at most 32"),
        ([filter_of({"cel_expression": ["true ||" * 5000]})], "characters of CEL expressions"),
    ],
    ids=["filters", "regexes", "selectors", "expressions", "expression length"],
)
def test_oversized_request_is_refused(allow, text):
    with pytest.raises(CostError, match=text):
        eventfilters.compile(allow)
    with pytest.raises(CostError, match=text):
        eventfilters.compile((), allow)


def test_compiling_has_a_time_limit(monkeypatch):
    monkeypatch.setattr(limits, "COMPILE_S", 0.0)
    with pytest.raises(CostError, match="compiling them takes more than"):
        eventfilters.compile([of_patterns(1000)])


def test_budget_never_ends_a_quick_stream():
    budget = eventfilters.Budget()
    for _ in range(10_000):
        budget.charge(limits.EVENT_S * 100, 100)


def charge_many(budget, event_s):
    for _ in range(1000):
        budget.charge(event_s, 1)


def test_budget_ends_a_slow_stream():
    budget = eventfilters.Budget()
    with pytest.raises(CostError, match=r"take 2\.5 ms of CPU time an event, at most 0\.5 ms"):
        charge_many(budget, limits.EVENT_S * 5)


def test_budget_saves_up_no_more_than_a_burst():
    budget = eventfilters.Budget()
    budget.charge(0.0, 1_000_000)
    with pytest.raises(CostError):
        budget.charge(limits.BURST_S * 1.01, 0)
