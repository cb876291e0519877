"""peer: an event of a policy names an address in one of the networks."""

from __future__ import annotations

import ipaddress

from eventfilters.accesses import peers
from eventfilters.errors import FilterError
from eventfilters.event import Event
from eventfilters.limits import Allowance
from eventfilters.predicate import Predicate
from tetragon.events_pb2 import Filter


def build(wanted: Filter, allowance: Allowance) -> Predicate | None:
    """Return the predicate, or None where the field is not set."""
    if not wanted.peer:
        return None
    try:
        networks = [ipaddress.ip_network(text, strict=False) for text in wanted.peer]
    except ValueError as error:
        raise FilterError(f"peer: {error}") from None

    def match(event: Event) -> bool:
        body = event.inner
        if body is None or "policy_name" not in body.DESCRIPTOR.fields_by_name:
            return False
        for one in peers(body):
            try:
                address = ipaddress.ip_address(one.address)
            except ValueError:
                continue
            if any(address in network for network in networks):
                return True
        return False

    return match
