"""Flags of ``tetra getevents``."""

from __future__ import annotations

from pathlib import Path

from cli.flags import Flag, colour_flag, in_section, repeated, switch
from cli.node_names import NODES
from cli.values import (
    CEL,
    CURSOR,
    DURATION,
    INTEGER,
    NAMES,
    PATHS,
    PIDS,
    REGEX,
    SESSIONS,
    TIME,
    UNITS,
    Choice,
    Value,
    absolute_paths,
    comma_list,
    networks,
)

OUTPUTS = ("lifecycle", "json", "compact", "tree")

_TYPES = Value("TYPE[,...]", comma_list, example="PROCESS_EXEC")
_CAPABILITIES = Value("[SET:[MODE:]]NAME", comma_list, example="CAP_SYS_ADMIN")

_OUTPUT = in_section(
    "output",
    Flag("-o", "--output", type=Choice(*OUTPUTS), help="output format [default: lifecycle]"),
    colour_flag(),
    Flag(
        "--format",
        default="",
        type=Value("TEMPLATE", example="time,pid,binary"),
        help="your own format: '{{time}} {{pid}} {{process.cwd}}', or columns: time,pid,user; "
        "fields: type time node pid ppid user binary arguments command "
        "parent_command container end, for tracing events also policy function args action, and "
        "every path of the JSON form",
    ),
    switch("--wide", help="do not cut lines to the width of the terminal"),
    switch("--timestamps", help="begin each line with the time of the event"),
    switch(
        "--extensions", help="JSON: show fields that Tetragon lacks (argv, container_info, ...)"
    ),
    repeated("-f", "--include-fields", type=PATHS, help="only these fields: process.pid"),
    repeated("-F", "--exclude-fields", type=PATHS, help="without these fields: parent"),
    switch(
        "--quote",
        default=True,
        help="compact: quote texts with spaces or unprintable characters; =false prints them "
        "unquoted, as Tetragon up to 1.7.0 does [default: true]",
    ),
    switch(
        "--stack-traces",
        default=True,
        help="compact: print stack traces of kprobes [default: true]",
    ),
    switch("--ima-hash", default=True, help="compact: print IMA hashes of files [default: true]"),
    Flag(
        "-t",
        "--tty-encode",
        default="",
        type=Value("PATH", example="/dev/pts/1"),
        help="print only what was written to this terminal",
    ),
    switch("-q", "--quiet", help="no notices about losses and connections on stderr"),
)

_FILTERS = in_section(
    "filters (a regular expression is RE2, matches anywhere, and is never split at commas)",
    repeated("-e", "--event-types", type=_TYPES, help="type: PROCESS_EXEC, PROCESS_EXIT, ..."),
    repeated("--process", "--processes", type=REGEX, help="binary"),
    repeated("--parent-process", type=REGEX, help="binary of the parent"),
    repeated("--arguments", type=REGEX, help="arguments"),
    repeated("--pid", type=PIDS, help="process id"),
    repeated("--pid-set", type=PIDS, help="process id of the process or of an ancestor"),
    repeated("-n", "--namespace", "--namespaces", type=NAMES, help="namespace of the pod"),
    repeated("--namespace-regex", type=REGEX, help="namespace of the pod"),
    repeated("--pod", "--pods", type=REGEX, help="name of the pod"),
    repeated("--containers", type=REGEX, help="name of the container"),
    repeated("--container-id", type=REGEX, help="id of the container"),
    switch("--host", help="processes outside of pods"),
    repeated("--unit", type=UNITS, help="systemd unit; * stands for any text"),
    repeated("--session", type=SESSIONS, help="login session, as loginctl lists it"),
    repeated(
        "--labels",
        type=Value("SELECTOR", example="'app=web,tier in (a,b)'"),
        help="labels of the pod: app=web",
    ),
    repeated("--policy-names", type=NAMES, help="tracing policy that reported the event"),
    repeated(
        "--files",
        type=Value("PATH[,...]", absolute_paths, example="/etc/shadow"),
        help="file that a policy reported, or a directory above it",
    ),
    repeated(
        "--connections",
        type=Value("NETWORK[,...]", networks, example="10.0.0.0/8"),
        help="peer that a policy reported: an address or network",
    ),
    repeated(
        "--capabilities",
        type=_CAPABILITIES,
        help="capabilities of the process: effective:any:CAP_BPF+CAP_PERFMON",
    ),
    repeated(
        "--cel-expression", type=CEL, help="CEL expression: process_exec.process.pid > uint(1)"
    ),
)

_STREAM = in_section(
    "part of the stream",
    Flag("--since", type=TIME, help="begin at a time: 10m (ago), 14:30, 2026-01-31T14:30:00Z"),
    Flag("--until", type=TIME, help="stop at a time"),
    Flag("--last", type=INTEGER, help="begin N events ago"),
    Flag("--after", type=CURSOR, help="begin after a cursor (from --show-cursor)"),
    switch("--snapshot", help="begin with the processes that run now"),
    switch(
        "--audit",
        help="instead of events: who changed which tracing policy, when, from where; with "
        "--since, --last, --policy-names, -o json",
    ),
    repeated("--node", type=NODES, help="only events of this node"),
    Flag(
        "--follow/--no-follow",
        default=True,
        help="continue with new events [default: follow]",
    ),
    Flag(
        "--aggregate",
        type=DURATION,
        help="print equal events within this time as one, with their count: 5s; equal events "
        "differ only in time, process and local ports",
    ),
    switch("--show-cursor", help="print the last cursor on stderr at the end"),
    Flag(
        "--cursor-file",
        type=Value("FILE", Path, example="place", is_file=True),
        help="keep the cursor in FILE and begin after the cursor that it holds; if stdout appends "
        "to a file, each event is written to it exactly once, even if tetra is killed",
    ),
    switch("--reconnect", help="reconnect without limit"),
    Flag(
        "--reconnect-wait",
        type=DURATION,
        default=2.0,
        help="longest wait between two attempts [default: 2s]",
    ),
)

# Fields that events can be counted by, as the gateway knows them.
COUNT_FIELDS = (
    "type", "binary", "arguments", "user", "uid", "parent", "container", "container-id", "image",
    "pod", "namespace", "unit", "node", "policy", "function", "file", "peer", "port", "status",
    "signal",
)  # fmt: skip
_FIELDS = Value("FIELD[,...]", comma_list, example="binary,user", known=lambda ctx: COUNT_FIELDS)

_PAST = in_section(
    "questions about the past (the whole stream, or the part between --since and --until)",
    repeated(
        "--count-by",
        type=_FIELDS,
        help="instead of events: the number of events for each value of these fields, and whether "
        f"events are missing; fields: {', '.join(COUNT_FIELDS)}",
    ),
    repeated(
        "--first-seen",
        type=_FIELDS,
        help="instead of events: values that no event before --since has, with the time and node "
        "of their first event",
    ),
    Flag("--top", type=INTEGER, default=50, help="print at most N rows, 0: all [default: 50]"),
)

FLAGS = (*_OUTPUT, *_FILTERS, *_STREAM, *_PAST)
