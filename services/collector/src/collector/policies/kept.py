"""The last desired policies of the fleet, in the state folder, for a start without NATS."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import structlog
from google.protobuf.message import DecodeError

from bus.policies import Key
from chassis.folders import replace_durably
from tetra.v1.policies_pb2 import StoredPolicy
from tetra.v1.state_pb2 import SavedFleetPolicies

_FILE = "fleet-policies.pb"

log = structlog.get_logger()


def load(folder: Path) -> dict[Key, tuple[int, StoredPolicy]]:
    """Return sequence number and content of each key; nothing where the file is unreadable."""
    try:
        saved = SavedFleetPolicies.FromString((folder / _FILE).read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, DecodeError) as error:
        log.warning("saved policies of the fleet unreadable", error=str(error))
        return {}
    return {
        Key(one.policy.policy.name, one.policy.policy.namespace, one.policy.policy.domain): (
            one.sequence,
            one.policy,
        )
        for one in saved.policies
    }


def save(folder: Path, policies: Mapping[Key, tuple[int, StoredPolicy]]) -> None:
    """Replace the file; a failure is logged, and the older file stays."""
    saved = SavedFleetPolicies()
    for sequence, policy in policies.values():
        saved.policies.add(sequence=sequence, policy=policy)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        replace_durably(folder / _FILE, saved.SerializeToString())
    except OSError as error:
        log.warning("policies of the fleet not saved", error=error.strerror or str(error))
