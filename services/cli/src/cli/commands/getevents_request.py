"""What ``tetra getevents`` asks for, from its flags."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cli.command import Args
from cli.errors import UsageError
from cli.terminal import notice

if TYPE_CHECKING:
    from tetra.v1.stream_pb2 import StreamEventsRequest

# Flags whose values never contain a comma. In Tetragon's client a comma separates values.
_WITHOUT_COMMAS = ("process", "parent_process", "namespace_regex", "pod", "containers")
_MAX_WINDOW_S = 3600
_COMMA = re.compile(r"\\.|\[[^]]*\]|\{[^}]*\}|(,)")


def request_from(args: Args) -> StreamEventsRequest:
    """Return the request; raise `UsageError` where flags do not fit together."""
    from cli.cursor import parse_cursor
    from cli.filters import field_filters_from, filter_from
    from tetra.v1.stream_pb2 import StreamEventsRequest

    _check_starts(args)
    _check_fields(args)
    request = StreamEventsRequest(
        allow_list=[filter_from(args)],
        field_filters=field_filters_from(args),
        nodes=args.node,
        no_follow=not args.follow,
        until=args.until,
    )
    if args.aggregate is not None:
        if not 0 < args.aggregate <= _MAX_WINDOW_S:
            raise UsageError("--aggregate: more than 0 and at most 1 h", "--aggregate 5s")
        window = request.aggregation_options.window_size
        window.FromNanoseconds(round(args.aggregate * 1e9))
    if args.since is not None:
        request.since.CopyFrom(args.since)
        if args.until is not None and args.until.ToNanoseconds() < args.since.ToNanoseconds():
            raise UsageError("--until: is before --since", "--since 20m --until 10m")
    elif args.last is not None:
        request.last = args.last
    elif args.after is not None:
        request.after.CopyFrom(parse_cursor(args.after))
    elif args.snapshot:
        request.snapshot = True
    if args.cursor_file is None:
        check_start(args, request)
    return request


def _check_fields(args: Args) -> None:
    for flag, paths in (
        ("--include-fields", args.include_fields),
        ("--exclude-fields", args.exclude_fields),
    ):
        if not paths:
            continue
        from cli.renderers.template import did_you_mean, is_field

        for path in filter(_is_whole, paths):
            if not is_field(path):
                raise UsageError(
                    f"{flag}: no event has a field {path!r}{did_you_mean(path)}",
                    f"{flag} process.pid,parent",
                )


def _is_whole(path: str) -> bool:
    return all(path.split("."))


def _check_starts(args: Args) -> None:
    given = {
        "--since": args.since is not None,
        "--last": args.last is not None,
        "--after": args.after is not None,
        "--snapshot": args.snapshot,
        "--cursor-file": args.after is not None and args.cursor_file is not None,
    }
    starts = [flag for flag, is_given in given.items() if is_given]
    if len(starts) > 1:
        raise UsageError(f"{' and '.join(starts)}: a stream has one beginning", "--since 5m")
    if args.last is not None and not 0 < args.last < 1 << 64:
        raise UsageError("--last: must be at least 1, and less than 2^64", "--last 100")


def check_start(args: Args, request: StreamEventsRequest) -> None:
    """Raise `UsageError` for a stream that has neither past nor future events."""
    if not args.follow and request.WhichOneof("start") is None:
        raise UsageError(
            "--no-follow: prints nothing without a beginning", "--last 100 --no-follow"
        )


def warn_about_flags(args: Args) -> None:
    """Print a notice for flags that are valid, but probably not intended."""
    for name in _WITHOUT_COMMAS:
        for pattern in getattr(args, name):
            if any(found[1] for found in _COMMA.finditer(pattern)):
                flag = f"--{name.replace('_', '-')}"
                notice(f"{flag}: {pattern!r} is one regular expression; repeat {flag} for several")
