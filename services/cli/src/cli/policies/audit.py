"""``tetra getevents --audit``: who changed which policy, when, from where; the result."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from cli.client import Client
from cli.command import Args
from cli.errors import UsageError
from cli.flags import Flag
from cli.policies.calls import PolicyCalls
from cli.policies.revisions import action_text, address_text, local_time, selector_text, who_text
from cli.policies.table import mode_text
from cli.server_flags import server_options
from cli.terminal import Output, visible, wants_colour
from cli.timestamps import unix_ns
from cli.words import counted
from eventjson.encoder import JsonEncoder
from tetra.v1.policies_pb2 import AuditEntry, StreamAuditRequest
from tetragon.sensors_pb2 import TP_MODE_UNKNOWN

_ALLOWED = frozenset(
    {"audit", "output", "color", "since", "last", "follow", "policy_names", "quiet"}
)
_COLOURS = {"applied": "32", "failed": "31", "started": "2"}


def print_audit(args: Args, flags: Iterable[Flag]) -> int:
    """Print the entries; raise `UsageError` for flags that select events."""
    request = _request(args, flags)
    output = Output.stdout()
    encode = JsonEncoder(extensions=True).encode
    colour = wants_colour(args.color, sys.stdout)
    with Client(server_options(args)) as client:
        for entry in PolicyCalls(client).audit(request):
            is_json = args.output == "json"
            output.write(f"{encode(entry)}\n" if is_json else entry_text(entry, colour=colour))
    return 0


def _request(args: Args, flags: Iterable[Flag]) -> StreamAuditRequest:
    for flag in flags:
        name = flag.name or ""
        if name not in _ALLOWED and getattr(args, name) not in (flag.default, None, [], ""):
            raise UsageError(
                f"--audit and {flag.opts[-1]}: this flag selects events", "--audit --since 1h"
            )
    if args.output not in (None, "json"):
        raise UsageError("--audit: its output formats are lines and json", "--audit -o json")
    if len(args.policy_names) > 1:
        raise UsageError("--audit: takes no policy or one policy", "--audit --policy-names files")
    return StreamAuditRequest(
        since=args.since,
        last=args.last or 0,
        follow=args.follow,
        name="".join(args.policy_names),
    )


def entry_text(entry: AuditEntry, *, colour: bool = False) -> str:
    """Return the lines of one entry."""
    outcome = AuditEntry.Outcome.Name(entry.outcome).removeprefix("OUTCOME_").lower()
    shown = f"{outcome:<8}"
    if colour and outcome in _COLOURS:
        shown = f"\x1b[{_COLOURS[outcome]}m{shown}\x1b[0m"
    policy = f"{entry.policy.domain}:{entry.policy.name}"
    parts = [
        f"{action_text(entry.origin)}: {policy} revision {entry.revision}",
        f"by {who_text(entry.origin)}",
        f"from {address_text(getattr(entry.origin, 'from')) or '-'}",
        f"on {selector_text(entry.nodes)}",
    ]
    if entry.mode != TP_MODE_UNKNOWN:
        parts.append(f"mode {mode_text(entry.mode)}")
    if entry.applied:
        parts.append(f"done on {counted(entry.applied, 'node')}")
    if entry.origin.comment:
        parts.append(f'"{entry.origin.comment}"')
    time_ns = unix_ns(entry.time) or unix_ns(entry.origin.time)
    text = f"{local_time(time_ns)} {shown} {visible(', '.join(parts))}\n"
    return text + "".join(f"    {visible(line)}\n" for line in entry.error.splitlines())
