"""Calls about policies: of our own service, or of a plain Tetragon that knows the public API alone.

A plain Tetragon is one node: what only a fleet has (selectors, canaries, history) is refused there,
never left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import grpc
from google.protobuf.duration_pb2 import Duration

from cli.client import Client
from cli.errors import RefusedError, UnsupportedError
from tetra.v1 import policies_pb2 as own
from tetra.v1.plans_pb2 import NodePlan, PlanPolicyRequest
from tetra.v1.plans_pb2_grpc import PolicyPlansStub
from tetra.v1.policies_pb2_grpc import PoliciesStub
from tetragon import sensors_pb2 as public
from tetragon.sensors_pb2_grpc import FineGuidanceSensorsStub

_T = TypeVar("_T")
_With = dict[str, Any]

DEFAULT_DOMAIN = "grpc"


def seconds(value: float) -> Duration:
    """Return a duration message."""
    duration = Duration()
    duration.FromNanoseconds(int(value * 1e9))
    return duration


class PolicyCalls:
    """The calls, over a `Client`."""

    def __init__(self, client: Client) -> None:
        self.client = client

    # Changes

    def add(self, request: own.AddPolicyRequest) -> own.PolicyChange | None:
        """Load a policy; return None where the server is a plain Tetragon."""
        wait_s = request.timeout.ToTimedelta().total_seconds()
        simple = own.AddPolicyRequest(yaml=request.yaml, domain=request.domain)
        simple.timeout.CopyFrom(request.timeout)
        plain = public.AddTracingPolicyRequest(yaml=request.yaml, domain=request.domain)
        return self._change(
            lambda stub, with_: stub.AddPolicy(request, **with_),
            lambda stub, with_: stub.AddTracingPolicy(plain, **with_),
            only_own="" if request == simple else "these flags",
            wait_s=wait_s,
        )

    def delete(self, request: own.DeletePolicyRequest) -> own.PolicyChange | None:
        """Unload a policy everywhere."""
        policy = request.policy
        plain = public.DeleteTracingPolicyRequest(
            name=policy.name, namespace=policy.namespace, domain=policy.domain
        )
        return self._change(
            lambda stub, with_: stub.DeletePolicy(request, **with_),
            lambda stub, with_: stub.DeleteTracingPolicy(plain, **with_),
        )

    def configure(self, request: own.ConfigurePolicyRequest) -> own.PolicyChange | None:
        """Enable, disable, set the mode, select other nodes."""
        policy = request.policy
        plain = public.ConfigureTracingPolicyRequest(
            name=policy.name, namespace=policy.namespace, domain=policy.domain
        )
        if request.HasField("enable"):
            plain.enable = request.enable
        if request.HasField("mode"):
            plain.mode = request.mode
        return self._change(
            lambda stub, with_: stub.ConfigurePolicy(request, **with_),
            lambda stub, with_: stub.ConfigureTracingPolicy(plain, **with_),
            only_own="a choice of nodes" if request.HasField("nodes") else "",
            wait_s=request.timeout.ToTimedelta().total_seconds(),
        )

    def rollback(self, request: own.RollbackPolicyRequest) -> own.PolicyChange:
        """Load an earlier revision again."""
        wait_s = request.timeout.ToTimedelta().total_seconds()
        return self._own(lambda stub, with_: stub.RollbackPolicy(request, **with_), wait_s)

    def promote(self, request: own.PromotePolicyRequest) -> own.PolicyChange:
        """Load a canary on all selected nodes."""
        wait_s = request.timeout.ToTimedelta().total_seconds()
        return self._own(lambda stub, with_: stub.PromotePolicy(request, **with_), wait_s)

    def abort(self, request: own.AbortPolicyRequest) -> own.PolicyChange:
        """End a canary."""
        return self._own(lambda stub, with_: stub.AbortPolicy(request, **with_))

    # Questions

    def statuses(self, domain: str) -> public.ListTracingPoliciesResponse:
        """Return what Tetragon's own client lists."""
        request = public.ListTracingPoliciesRequest(domain=domain)
        return self._public(lambda stub, with_: stub.ListTracingPolicies(request, **with_))

    def domains(self) -> public.ListDomainsResponse:
        """Return the domains that have policies."""
        return self._public(
            lambda stub, with_: stub.ListDomains(public.ListDomainsRequest(), **with_)
        )

    def fleet(self, request: own.ListPoliciesRequest) -> list[own.FleetPolicy]:
        """Return every policy with its state on each node."""
        answer: own.ListPoliciesResponse = self._own(
            lambda stub, with_: stub.ListPolicies(request, **with_)
        )
        return list(answer.policies)

    def history(self, request: own.GetPolicyHistoryRequest) -> list[own.PolicySpec]:
        """Return the revisions of a policy, newest first."""
        answer: own.GetPolicyHistoryResponse = self._own(
            lambda stub, with_: stub.GetPolicyHistory(request, **with_)
        )
        return list(answer.revisions)

    def plan(self, request: PlanPolicyRequest) -> list[NodePlan]:
        """Return what a policy would become on each selected node."""

        def ask(channel: grpc.Channel, with_: _With) -> list[NodePlan]:
            return list(PolicyPlansStub(channel).PlanPolicy(request, **with_).nodes)

        return self.client.ask(ask)

    def stream(self, request: own.ListPoliciesRequest) -> Iterator[own.ListPoliciesResponse]:
        """Yield every policy at once, and again after each change."""
        return self.client.stream_of(
            lambda channel, with_: PoliciesStub(channel).StreamPolicies(request, **with_)
        )

    def audit(self, request: own.StreamAuditRequest) -> Iterator[own.AuditEntry]:
        """Yield who changed what, oldest first."""
        return self.client.stream_of(
            lambda channel, with_: PoliciesStub(channel).StreamAudit(request, **with_)
        )

    def try_policy(self, request: own.TryPolicyRequest) -> Iterator[own.TryPolicyUpdate]:
        """Load a policy in monitor mode while the iterator is open; yield its state."""
        return self.client.stream_of(
            lambda channel, with_: PoliciesStub(channel).TryPolicy(request, **with_)
        )

    def _change(
        self,
        call: Callable[[PoliciesStub, _With], own.PolicyChange],
        plain: Callable[[FineGuidanceSensorsStub, _With], object],
        *,
        only_own: str = "",
        wait_s: float = 0.0,
    ) -> own.PolicyChange | None:
        try:
            return self._own(call, wait_s)
        except UnsupportedError:
            if only_own:
                raise RefusedError(
                    f"{self.client.address} is a plain Tetragon, which does not know {only_own}"
                ) from None
        self._public(plain)
        return None

    def _own(self, call: Callable[[PoliciesStub, _With], _T], wait_s: float = 0.0) -> _T:
        def ask(channel: grpc.Channel, with_: _With) -> _T:
            return call(PoliciesStub(channel), with_)

        return self.client.ask(ask, timeout_s=wait_s)

    def _public(self, call: Callable[[FineGuidanceSensorsStub, _With], _T]) -> _T:
        def ask(channel: grpc.Channel, with_: _With) -> _T:
            return call(FineGuidanceSensorsStub(channel), with_)

        return self.client.ask(ask)
