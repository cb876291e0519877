"""Whether the fleet is as the bucket of policies wants it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from typing import Any

import grpc
import nats

from bus import direct
from bus import policies as bucket
from chaos.policies import CALLS, NAMES, PolicyChanges, channels, open_and_unlink
from chaos.policy_model import policy_of
from chaos.stack import Stack
from tetra.v1 import policies_pb2 as pb
from tetragon.sensors_pb2 import TP_STATE_DISABLED, TP_STATE_ENABLED

WITHIN_S = 120.0  # of the last change: 11 s of a node that was killed, 10 s of a lease, ...
EVENTS_WITHIN_S = 60.0


def await_desired(stack: Stack, changes: PolicyChanges) -> list[str]:
    """Return nothing when all is as wanted, else what is not, after two minutes."""
    deadline = time.monotonic() + WITHIN_S
    number = 0
    while True:
        number += 1
        found = differences(stack, changes, number)
        if not found or time.monotonic() > deadline:
            return changes.mistakes + found
        time.sleep(0.3)


def differences(stack: Stack, changes: PolicyChanges, number: int) -> list[str]:
    """Return what is not as it should be."""
    try:
        stored = {one.policy.name: one for one in asyncio.run(read_bucket(stack.url))}
        found = [*_impossible(changes, stored)]
        for address in stack.addresses.split(","):
            found += _statuses(stack, stored, address)
        return found or [
            *_loaded_elsewhere(stack, stored),
            *_loaded_here(stack, changes, stored, number),
        ]
    except (grpc.RpcError, nats.errors.Error, OSError, TimeoutError) as error:
        return [f"not to be read: {error}"]


async def read_bucket(url: str) -> list[pb.StoredPolicy]:
    """Return what the bucket has of every key."""
    nc = await nats.connect(url.split(","))
    try:
        request = {"multi_last": [bucket.KEYS_ALL]}
        messages = await direct.get_messages(nc, bucket.BUCKET_STREAM, request)
    finally:
        await nc.close()
    return [pb.StoredPolicy.FromString(message.data) for message in messages]


def wanted_on(node: str, stored: pb.StoredPolicy | None) -> pb.PolicySpec | None:
    """Return the revision that a node has to run, or None."""
    if stored is None:
        return None
    if stored.HasField("candidate") and node in stored.candidate.running:
        return stored.candidate.spec
    if stored.HasField("current") and not stored.current.deleted:
        return stored.current
    return None


def call_of(spec: pb.PolicySpec) -> str:
    """Return the call of a revision's document."""
    return next(call for call in CALLS if f"call: {call}\n" in spec.yaml)


def _impossible(changes: PolicyChanges, stored: dict[str, pb.StoredPolicy]) -> list[str]:
    """What the bucket has, and no history of changes can have made."""
    found = []
    for name in NAMES:
        policy = policy_of(stored.get(name, pb.StoredPolicy()), call_of)
        if stored.get(name, pb.StoredPolicy()).candidate.lease_s:
            found.append(f"{name}: a change that its gateway has left")
        elif policy not in changes.possible[name].policies:
            found.append(f"{name}: {policy}, not one of {changes.possible[name].policies}")
    return found


def _statuses(stack: Stack, stored: dict[str, pb.StoredPolicy], address: str) -> list[str]:
    """What a gateway shows of a node, and the bucket does not want."""
    with channels([address]) as (stub,):
        answer = stub.ListPolicies(pb.ListPoliciesRequest(), timeout=20)
    shown = {(p.policy.name, n.node_name): n for p in answer.policies for n in p.nodes}
    found = []
    for name in NAMES:
        for node in stack.policy_nodes:
            status, spec = (
                shown.get((name, node), pb.NodePolicy()),
                wanted_on(node, stored.get(name)),
            )
            wanted = (
                (spec.revision, TP_STATE_ENABLED if spec.enabled else TP_STATE_DISABLED)
                if spec
                else (0, 0)
            )
            if (status.revision, status.state) != wanted or status.prepared:
                found.append(
                    f"{address}: {name} on {node}: revision {status.revision}, state "
                    f"{status.state}, not {wanted}: {status.error}"
                )
    return found


def _loaded_elsewhere(stack: Stack, stored: dict[str, pb.StoredPolicy]) -> list[str]:
    """What a node without a kernel has on, and the bucket does not want; or the other way round."""
    active: dict[str, dict[str, str]] = json.loads((stack.nodes_folder / "active.json").read_text())
    found = []
    for node in stack.simulated:
        specs = {name: wanted_on(node, stored.get(name)) for name in NAMES}
        wanted = {f"grpc:{n}": call_of(spec) for n, spec in specs.items() if spec and spec.enabled}
        if active.get(node) != wanted:
            found.append(f"{node}: on are {active.get(node)}, not {wanted}")
    return found


def _loaded_here(
    stack: Stack, changes: PolicyChanges, stored: dict[str, pb.StoredPolicy], number: int
) -> list[str]:
    """What the real collector reports of calls, and the bucket does not want; or the other way."""
    specs = {name: wanted_on(stack.node, stored.get(name)) for name in NAMES}
    wanted = {(name, call_of(spec)) for name, spec in specs.items() if spec and spec.enabled}
    fence = f"{changes.mark}-fence-{number}"
    begin = stack.events.stat().st_size
    open_and_unlink(changes.mark, number)
    subprocess.run(["/usr/bin/true", fence], check=True)  # after all of these in the stream
    deadline = time.monotonic() + EVENTS_WITHIN_S
    while True:
        with stack.events.open("rb") as events:
            events.seek(begin)
            lines = [
                line for line in events.read().splitlines(keepends=True) if line.endswith(b"\n")
            ]
        if any(fence.encode() in line for line in lines):
            break
        if time.monotonic() > deadline:
            return [f"{stack.node}: {fence} not reported in {EVENTS_WITHIN_S:.0f} s"]
        time.sleep(0.05)
    suffix = f"/{number}"
    kprobes = [
        json.loads(line).get("process_kprobe") for line in lines if b"process_kprobe" in line
    ]
    reported = sorted(
        (kprobe["policy_name"], _plain(kprobe["function_name"]))
        for kprobe in kprobes
        if kprobe["policy_name"] in NAMES and _path(kprobe).endswith(suffix)
    )
    if reported != sorted(wanted):
        return [f"{stack.node}: reported are {reported}, not {sorted(wanted)}"]
    return []


def _path(kprobe: dict[str, Any]) -> str:
    return next((one["string_arg"] for one in kprobe.get("args", ()) if "string_arg" in one), "")


def _plain(function: str) -> str:
    """Return the name in the document: ``sys_openat`` of ``__x64_sys_openat``."""
    return function[function.index("sys_") :]
