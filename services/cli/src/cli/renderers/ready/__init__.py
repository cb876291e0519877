"""Lines of ready-made policies: what was done, to what, with which result.

    📂 open 812: alice: /usr/bin/vim /etc/hosts to write /etc/hosts
    🔌 connect 813: alice: /usr/bin/curl example.com tcp 93.184.216.34:443

Their events are known by the tag that the documents give each hook; events of a user's own
policies, whatever their names, keep the general form.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cli.renderers.ready import credentials, facts, files, host, network
from cli.renderers.ready.act import Act

_PREFIX = "ready/"
_ACTS: dict[str, Callable[[Any], Act]] = {
    "files": files.act,
    "network": network.act,
    "credentials": credentials.act,
    "host": host.act,
    "capabilities": facts.act,
    "syscalls": facts.act,
}


def act_of(body: Any) -> Act | None:
    """Return what an event of a ready-made policy says; None for every other event."""
    for tag in body.tags:
        if tag.startswith(_PREFIX):
            make = _ACTS.get(tag.removeprefix(_PREFIX))
            return make(body) if make is not None else None
    return None
