"""Changes of the fleet's policies while things break, and the state in which the fleet must end.

The fleet is the collector of this host and three nodes without a kernel. At the end the bucket has
what the changes can have made of it, each node's status is what the bucket wants, and so is what
is loaded: by the events of the real collector, and by what the other nodes have switched on.
"""

from __future__ import annotations

import contextlib
import os
import random
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import grpc

from chaos.policy_model import ACTIONS, Possible
from tetra.v1 import policies_pb2 as pb
from tetra.v1 import policies_pb2_grpc

NAMES = tuple(f"chaos-{letter}" for letter in "abcdef")
CALLS = ("sys_openat", "sys_unlinkat")  # a policy is on one of them; both name a file second
DOCUMENT = """\
apiVersion: cilium.io/v1alpha1
kind: TracingPolicy
metadata: {{name: {name}}}
spec:
  kprobes:
  - call: {call}
    syscall: true
    args: [{{index: 1, type: string}}]
    selectors: [{{matchArgs: [{{index: 1, operator: Prefix, values: ["/{mark}/{name}/"]}}]}}]
"""
WORKERS = 2  # each has policies of its own: changes of one policy follow each other
PAUSE_S = 0.7  # between two changes of a worker, on average
NODE_TIMEOUT_S = 12  # longer than a node that was killed counts as alive
CALL_TIMEOUT_S = 20.0
# The change has no effect: a mistake of the request, or another change came first.
REFUSED = (
    grpc.StatusCode.NOT_FOUND, grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.ABORTED,
)  # fmt: skip


def document(mark: str, name: str, call: str) -> str:
    """Return one of a policy's two documents."""
    return DOCUMENT.format(mark=mark, name=name, call=call)


class Change(NamedTuple):
    """A change that a worker made, and how it ended."""

    action: str
    name: str
    call: str
    outcome: str


@dataclass
class PolicyChanges:
    """Changes policies through any gateway until it is stopped."""

    addresses: list[str]
    mark: str
    seed: int
    possible: dict[str, Possible] = field(default_factory=lambda: {n: Possible() for n in NAMES})
    made: list[Change] = field(default_factory=list)
    mistakes: list[str] = field(default_factory=list)  # answers that cannot be
    _stopping: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> None:
        """Begin; nothing is stored yet."""
        for number in range(WORKERS):
            arguments = (random.Random(f"{self.seed} {number}"), NAMES[number::WORKERS])
            thread = threading.Thread(target=self._work, args=arguments, daemon=True)
            self._threads.append(thread)
            thread.start()

    def stop(self) -> None:
        """Return when the last changes have ended."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(CALL_TIMEOUT_S * 2)

    @property
    def outcomes(self) -> Counter[str]:
        """How many changes ended how."""
        return Counter(change.outcome for change in self.made)

    def _work(self, chance: random.Random, names: tuple[str, ...]) -> None:
        with channels(self.addresses) as stubs:
            while not self._stopping.wait(chance.expovariate(1 / PAUSE_S)):
                name, call, stub = (chance.choice(one) for one in (names, CALLS, stubs))
                # One in six is any change, which may be refused.
                fitting = self.possible[name].fitting() if chance.random() < 5 / 6 else ACTIONS
                action = chance.choice(fitting)
                outcome = self._change(stub, action, name, call)
                self.made.append(Change(action, name, call, outcome))

    def _change(self, stub: Any, action: str, name: str, call: str) -> str:
        """Make one change; return how it ended."""
        possible = self.possible[name]
        method, request = _request(action, self.mark, name, call)
        try:
            answer = getattr(stub, method)(request, timeout=CALL_TIMEOUT_S)
        except grpc.RpcError as error:
            if error.code() in REFUSED:
                return "refused"
            possible.maybe_done(action, call)
            return f"unknown ({error.code().name.lower()})"
        if "not carried out" in answer.error:
            return "undone by nodes"
        if not possible.done(action, call):
            self.mistakes.append(f"{action} {name}: done, but it was {possible.policies}")
        return "stored, not confirmed" if answer.error else "done"


def _request(action: str, mark: str, name: str, call: str) -> tuple[str, Any]:
    ref, yaml = pb.PolicyRef(name=name), document(mark, name, call)
    added = pb.AddPolicyRequest(yaml=yaml)
    added.timeout.FromSeconds(NODE_TIMEOUT_S)
    if action in ("add", "replace", "canary"):
        added.replace = action != "add"
        if action == "canary":
            added.canary.percent = 50
        return "AddPolicy", added
    if action in ("enable", "disable"):
        configured = pb.ConfigurePolicyRequest(policy=ref, enable=action == "enable")
        configured.timeout.FromSeconds(NODE_TIMEOUT_S)
        return "ConfigurePolicy", configured
    if action == "promote":
        promoted = pb.PromotePolicyRequest(policy=ref)
        promoted.timeout.FromSeconds(NODE_TIMEOUT_S)
        return "PromotePolicy", promoted
    if action == "abort":
        return "AbortPolicy", pb.AbortPolicyRequest(policy=ref)
    return "DeletePolicy", pb.DeletePolicyRequest(policy=ref)


@contextlib.contextmanager
def channels(addresses: list[str]) -> Iterator[list[Any]]:
    """Yield a stub of each gateway; a channel connects again as soon as its gateway is back."""
    options = [("grpc.max_reconnect_backoff_ms", 500)]
    opened = [grpc.insecure_channel(one, options) for one in addresses]
    try:
        yield [policies_pb2_grpc.PoliciesStub(one) for one in opened]
    finally:
        for one in opened:
            one.close()


def open_and_unlink(mark: str, number: int) -> None:
    """Make the calls of all policies' documents, with ``number`` as the file's name."""
    root = os.open("/", os.O_RDONLY)
    try:
        for name in NAMES:
            path = f"/{mark}/{name}/{number}"
            for missing in (lambda p: os.open(p, 0), lambda p: os.unlink(p, dir_fd=root)):
                with contextlib.suppress(FileNotFoundError):
                    missing(path)
    finally:
        os.close(root)
