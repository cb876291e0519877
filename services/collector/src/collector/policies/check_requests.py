"""GetUrl and DnsLookup: whether a policy may cause these requests."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tracingpolicy.actions import ActionKind

if TYPE_CHECKING:
    from tracingpolicy.selectors import Action

_SETTING = "hosts in the setting --policy-request-hosts (TETRA_POLICY_REQUEST_HOSTS)"


def why_refused(action: Action, hosts: frozenset[str] | None) -> tuple[str, str, str] | None:
    """Return the key, the mistake and the allowed values; None if the request is allowed.

    ``hosts``: names, and ``.domain`` for every name below a domain; None: not checked here.
    """
    if action.kind is ActionKind.DNS_LOOKUP:
        if not _is_name(action.arg_fqdn):
            return "argFqdn", f'"{action.arg_fqdn}" is not a host name', ""
        return _unless_allowed("argFqdn", action.arg_fqdn, hosts)
    try:
        url = urlsplit(action.arg_url)
        host = url.hostname or ""
        _ = url.port  # raises for one that is none
    except ValueError as error:
        return "argUrl", f'"{action.arg_url}": {str(error).lower()}', ""
    if url.scheme not in ("http", "https") or not host or url.username is not None:
        return "argUrl", f'"{action.arg_url}" is not a URL', "http://HOST/... or https://HOST/..."
    if not all("!" <= char <= "~" for char in action.arg_url):
        return "argUrl", "a URL has printable ASCII characters only", ""
    return _unless_allowed("argUrl", host, hosts)


def is_allowed(host: str, hosts: frozenset[str]) -> bool:
    """Return whether requests to a host are allowed."""
    name = host.lower().rstrip(".")
    labels = name.split(".")
    return name in hosts or any(
        "." + ".".join(labels[place:]) in hosts for place in range(1, len(labels))
    )


def _unless_allowed(
    key: str, host: str, hosts: frozenset[str] | None
) -> tuple[str, str, str] | None:
    if hosts is None or is_allowed(host, hosts):
        return None
    return key, f"requests to {host} are not allowed", _SETTING


def _is_name(text: str) -> bool:
    labels = text.rstrip(".").split(".")
    return len(text) <= 253 and all(
        0 < len(label) <= 63 and label.isascii() and all(c.isalnum() or c in "-_" for c in label)
        for label in labels
    )
