"""The output that the flags of ``tetra getevents`` ask for."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from cli.command import Args
from cli.terminal import Output, terminal_width, wants_colour

if TYPE_CHECKING:
    from cli.renderers import Renderer


def make_renderer(args: Args, output: Output) -> Renderer:
    """Return the renderer that the flags ask for."""
    colour = wants_colour(args.color, sys.stdout)
    if args.tty_encode:
        from cli.renderers.compact import TtyRenderer

        return TtyRenderer(args.tty_encode)
    if args.format:
        from cli.renderers.template import TemplateRenderer

        return TemplateRenderer(args.format)
    if args.output == "tree":
        from cli.renderers.tree import TreeRenderer

        return TreeRenderer(colour=colour, unicode=output.unicode, width=terminal_width())
    if args.output == "json":
        from cli.renderers.json import JsonRenderer

        return JsonRenderer(extensions=args.extensions, ascii=not output.unicode)
    if args.output == "compact":
        from cli.renderers.compact import CompactRenderer
        from cli.renderers.pen import CompactOptions

        return CompactRenderer(
            CompactOptions(
                colour=colour,
                timestamps=args.timestamps,
                stack_traces=args.stack_traces,
                ima_hash=args.ima_hash,
                quote=args.quote,
                guard=sys.stdout.isatty(),
            )
        )
    from cli.renderers.lifecycle import LifecycleRenderer

    return LifecycleRenderer(
        colour=colour,
        timestamps=args.timestamps,
        show_node=bool(args.node),
        emoji=output.unicode,
        width=_unlimited if args.wide else terminal_width,
    )


def _unlimited() -> None:
    return None
