"""Names of policies and domains on the command line, completed with those of the server."""

from __future__ import annotations

from collections.abc import Iterable

import click

from cli.errors import TetraError
from cli.values import Value


def _policies(ctx: click.Context) -> Iterable[str]:
    """Return the names that the server has; none if it does not answer soon."""
    from cli.client import Client
    from cli.policies.calls import PolicyCalls
    from cli.server_flags import completion_options

    domain = ctx.params.get("domain") or ""
    try:
        with Client(completion_options(ctx)) as client:
            found = PolicyCalls(client).statuses(domain).policies
            return sorted({policy.name for policy in found})
    except TetraError:
        return ()


def _domains(ctx: click.Context) -> Iterable[str]:
    from cli.client import Client
    from cli.policies.calls import PolicyCalls
    from cli.server_flags import completion_options

    try:
        with Client(completion_options(ctx)) as client:
            return [*PolicyCalls(client).domains().domains]
    except TetraError:
        return ()


POLICY = Value("NAME", example="passwd-opened", known=_policies)
DOMAIN = Value("NAME", example="grpc", known=_domains)
