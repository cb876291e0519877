"""All parts of the fleet's policies in this gateway, made once and run together."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass

from nats.aio.client import Client

from gateway.fleet import Fleet
from gateway.policies.audit import Audit
from gateway.policies.changes import Changer
from gateway.policies.confirm import Confirmations
from gateway.policies.finishing import Finishing
from gateway.policies.forget import Forgetting
from gateway.policies.janitor import Janitor
from gateway.policies.nodes import PolicyNodes
from gateway.policies.requests import Requests
from gateway.policies.rollout import Rollout
from gateway.policies.store import PolicyStore
from gateway.policies.view import View
from gateway.settings import Settings


@dataclass(frozen=True, slots=True)
class FleetPolicies:
    """The desired state, the state of the nodes, and the changes."""

    name: str  # of this gateway, in origins
    store: PolicyStore
    nodes: PolicyNodes
    view: View
    audit: Audit
    requests: Requests
    janitor: Janitor

    async def close(self) -> None:
        """Finish cancelled changes; NATS is still connected."""
        await self.requests.changer.finishing.close()

    async def run(self) -> None:
        """Follow bucket and nodes until cancelled; NATS is connected."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.store.run())
            tasks.create_task(self.nodes.run())
            tasks.create_task(self.janitor.run())


def fleet_policies(nc: Client, settings: Settings, fleet: Fleet) -> FleetPolicies:
    """Return the parts, put together."""
    store, nodes, audit = PolicyStore(nc, settings), PolicyNodes(nc, fleet), Audit(nc)
    view, finishing = View(store, nodes), Finishing()
    confirmations = Confirmations(store, nodes)
    rollout = Rollout(store, confirmations, view, finishing)
    changer = Changer(store, nodes, rollout, audit, finishing)
    name = os.uname().nodename
    janitor = Janitor(changer, Forgetting(store, confirmations), name)
    return FleetPolicies(name, store, nodes, view, audit, Requests(changer), janitor)
