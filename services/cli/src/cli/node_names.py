"""Names of nodes on the command line, completed with those that the gateway knows."""

from __future__ import annotations

import click

from cli.errors import TetraError
from cli.values import Value, comma_list


def _nodes(ctx: click.Context) -> list[str]:
    """Return the names that the gateway knows; none if it does not answer soon."""
    from cli.client import Client
    from cli.server_flags import completion_options

    try:
        with Client(completion_options(ctx)) as client:
            return sorted(node.node_name for node in client.nodes())
    except TetraError:
        return []


NODES = Value("NAME[,...]", comma_list, example="web-1", known=_nodes)
