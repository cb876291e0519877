"""``tetra policies explain``."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import TYPE_CHECKING

from cli.command import Args, Command
from cli.flags import Flag
from cli.policies.ready import names_argument, rendered, set_flag
from cli.terminal import Output, terminal_width

if TYPE_CHECKING:
    from readymade import Ready
    from readymade.parameters import Value

_WIDTH = 80
_INDENT = "  "


def run(args: Args) -> int:
    """Print heads and parameters, or the documents; no server is asked."""
    from readymade import load
    from readymade.rendering import settings

    documents = rendered(args.name, args.set)
    output = Output.stdout()
    if args.yaml:
        output.write("---\n".join(documents.values()))
        return 0
    width = min(terminal_width() or _WIDTH, 100)
    given = dict(args.set)
    parts = []
    for name in documents:
        ready = load(name)
        known = {key: value for key, value in given.items() if key in ready.parameters}
        parts.append(explanation(ready, settings(ready, known), width))
    output.write("\n".join(parts))
    return 0


def explanation(ready: Ready, values: Mapping[str, Value], width: int) -> str:
    """Return what a policy reports, misses and costs, and its parameters with their values."""
    from readymade.parameters import shown

    lines = [f"{ready.name}: {ready.title}", ""]
    for title, text in (("reports", ready.reports), ("cost", ready.cost),
                        ("kernels", ready.kernels)):  # fmt: skip
        lines += [title, *_wrapped(text, width), ""]
    lines.append("misses")
    for one in ready.misses:
        lines += _wrapped(one, width, first=f"{_INDENT}- ", rest=f"{_INDENT}  ")
    lines += ["", "parameters"]
    for key, parameter in ready.parameters.items():
        value = values[key]
        mark = "" if value == parameter.default else " (set)"
        lines += _wrapped(f"{key}={shown(value) or '(none)'}{mark}", width)
        help = f"{parameter.help}; {parameter.what}"
        lines += _wrapped(help, width, first=_INDENT * 3, rest=_INDENT * 3)
    return "\n".join(lines) + "\n"


def _wrapped(text: str, width: int, first: str = _INDENT, rest: str = _INDENT) -> list[str]:
    breakable = text.replace(",/", ", /")
    return textwrap.wrap(
        breakable, width, initial_indent=first, subsequent_indent=rest, break_long_words=False,
        break_on_hyphens=False,
    )  # fmt: skip


COMMAND = Command(
    "explain",
    run,
    summary="show what a ready-made policy reports, misses and costs",
    text="""Show what a ready-made policy reports, what it misses and why, what it costs, on which
kernels it works, and its parameters with their values. No server is asked. --yaml prints the
tracing policy that enable would load.

examples:
  tetra policies explain files
  tetra policies explain files --set paths=/srv --yaml | tetra tracingpolicy check -
""",
    params=[
        names_argument(),
        set_flag(),
        Flag("--yaml", is_flag=True, help="print the tracing policy"),
    ],
)
