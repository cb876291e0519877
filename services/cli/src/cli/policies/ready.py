"""Names and parameters of ready-made policies on the command line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import click

from cli.errors import UsageError
from cli.flags import Flag, repeated
from cli.terminal import notice
from cli.values import Value

if TYPE_CHECKING:
    from cli.policies.calls import PolicyCalls
    from readymade import Ready
    from tetra.v1.policies_pb2 import FleetPolicy


def _names(ctx: click.Context) -> Iterable[str]:
    from readymade import NAMES

    return NAMES


def _known(text: str) -> str:
    from readymade import ReadyError, load

    try:
        return load(text).name
    except ReadyError as error:
        raise UsageError(str(error)) from None


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise UsageError(f"{text!r} is not NAME=VALUE")
    return key, value


_NAME = Value("NAME", _known, example="files", known=_names)
_SETTING = Value("NAME=VALUE", _pair, example="paths=/etc,/srv")


def names_argument() -> click.Argument:
    """Return the argument NAME..., at least one."""
    return click.Argument(["name"], type=_NAME, metavar="NAME...", nargs=-1, required=True)


def set_flag() -> Flag:
    """Return ``--set``."""
    return repeated("--set", type=_SETTING, help="value of a parameter: paths=/etc,/srv")


def notice_partial_settings(names: Sequence[str], given: Iterable[tuple[str, str]]) -> None:
    """Print a notice for each parameter that only some of the policies have."""
    from readymade import load

    policies = {name: load(name) for name in names}
    for key in dict(given):
        without = [name for name, ready in policies.items() if key not in ready.parameters]
        if without:
            owners = ", ".join(name for name in policies if name not in without)
            notice(f"--set {key}: only {owners} has it, not {', '.join(without)}")


def _require_parameter(policies: Mapping[str, Ready], key: str) -> None:
    if any(key in ready.parameters for ready in policies.values()):
        return
    known = sorted({name for ready in policies.values() for name in ready.parameters})
    message = (
        f"--set: {' or '.join(policies)} has no parameter {key!r} (allowed: {', '.join(known)})"
    )
    raise UsageError(message, _explain(policies))


def rendered(
    names: Sequence[str],
    given: Iterable[tuple[str, str]],
    kept: Mapping[str, Mapping[str, str]] | None = None,
) -> dict[str, str]:
    """Return the documents of the policies; raise `UsageError` for a bad parameter.

    ``kept``: by policy, parameters that stay as they are.
    """
    from readymade import ReadyError, load, render

    settings, kept = dict(given), kept or {}
    policies = {name: load(name) for name in names}
    for key in settings:
        _require_parameter(policies, key)
    try:
        return {
            name: render(
                ready,
                {
                    **kept.get(name, {}),
                    **{k: settings[k] for k in ready.parameters.keys() & settings},
                },
            )
            for name, ready in policies.items()
        }
    except ReadyError as error:
        raise UsageError(f"--set: {error}", _explain(policies)) from None


def of_fleet(calls: PolicyCalls) -> dict[str, FleetPolicy]:
    """Return the fleet's policies by name, with their documents; a plain Tetragon has none."""
    from cli.errors import UnsupportedError
    from tetra.v1.policies_pb2 import ListPoliciesRequest

    try:
        fleet = calls.fleet(ListPoliciesRequest(domain="grpc", with_yaml=True))
    except UnsupportedError:
        return {}
    return {one.policy.name: one for one in fleet if not one.policy.namespace}


def parameters_set(policy: FleetPolicy | None) -> dict[str, str]:
    """Return the parameters of a ready-made policy of the fleet that are not the defaults."""
    from readymade import given_in, load

    if policy is None or not policy.spec.yaml:
        return {}
    return given_in(load(policy.policy.name), policy.spec.yaml)


def _explain(policies: Iterable[str]) -> str:
    return f"tetra policies explain {' '.join(policies)}"
