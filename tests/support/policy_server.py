"""A server of policies with answers that a test chooses, on real gRPC."""

from __future__ import annotations

import threading

import grpc

from tetra.v1 import policies_pb2 as own
from tetra.v1.plans_pb2 import PlanPolicyResponse
from tetra.v1.plans_pb2_grpc import PolicyPlansServicer
from tetra.v1.policies_pb2_grpc import PoliciesServicer
from tetragon import sensors_pb2 as public
from tetragon.sensors_pb2_grpc import FineGuidanceSensorsServicer


def node_policy(name, state=public.TP_STATE_ENABLED, **fields):
    """Return a policy on one node, alive and selected."""
    return own.NodePolicy(
        **{"node_name": name, "alive": True, "selected": True, "state": state, **fields}
    )


class FleetServer(PoliciesServicer):
    """Records requests; answers with `change`, `policies`, `revisions`, `updates`, `entries`."""

    def __init__(self):
        self.requests = []  # but those for the list of policies
        self.listed = None  # the last of those
        self.metadata = {}
        self.refuse = None  # status and text
        self.change = own.PolicyChange(revision=1)
        self.policies = []  # of a list, and the first of a stream
        self.later = []  # further answers of a stream
        self.revisions = []
        self.updates = []  # of a try
        self.entries = []  # of the audit
        self.ended = threading.Event()  # a stream was ended by the client
        self.released = threading.Event()

    def _answer(self, request, context):
        self.requests.append(request)
        self.metadata = dict(context.invocation_metadata())
        if self.refuse:
            context.abort(*self.refuse)
        return self.change

    AddPolicy = DeletePolicy = ConfigurePolicy = _answer
    RollbackPolicy = PromotePolicy = AbortPolicy = _answer

    def ListPolicies(self, request, context):
        self.listed = request
        return own.ListPoliciesResponse(policies=self.policies)

    def StreamPolicies(self, request, context):
        self._answer(request, context)
        yield own.ListPoliciesResponse(policies=self.policies)
        for policies in self.later:
            yield own.ListPoliciesResponse(policies=policies)
        self._hold(context)

    def GetPolicyHistory(self, request, context):
        self._answer(request, context)
        return own.GetPolicyHistoryResponse(revisions=self.revisions)

    def TryPolicy(self, request, context):
        self._answer(request, context)
        yield from self.updates
        if not (self.updates and self.updates[-1].last):
            self._hold(context)

    def StreamAudit(self, request, context):
        self._answer(request, context)
        yield from self.entries
        if request.follow:
            self._hold(context)

    def _hold(self, context):
        context.add_callback(self.released.set)
        self.released.wait(30)
        if not context.is_active():
            self.ended.set()


class PlanServer(PolicyPlansServicer):
    """Answers with `plans`."""

    def __init__(self, *plans):
        self.plans = list(plans)
        self.requests = []

    def PlanPolicy(self, request, context):
        self.requests.append(request)
        return PlanPolicyResponse(nodes=self.plans)


class PlainPolicies(FineGuidanceSensorsServicer):
    """The public API of a plain Tetragon: refusals are UNKNOWN."""

    def __init__(self):
        self.requests = []
        self.refuse = None
        self.policies = []

    def _answer(self, request, context, answer):
        self.requests.append(request)
        if self.refuse:
            context.abort(grpc.StatusCode.UNKNOWN, self.refuse)
        return answer

    def AddTracingPolicy(self, request, context):
        return self._answer(request, context, public.AddTracingPolicyResponse())

    def DeleteTracingPolicy(self, request, context):
        return self._answer(request, context, public.DeleteTracingPolicyResponse())

    def ConfigureTracingPolicy(self, request, context):
        return self._answer(request, context, public.ConfigureTracingPolicyResponse())

    def ListTracingPolicies(self, request, context):
        answer = public.ListTracingPoliciesResponse(policies=self.policies)
        return self._answer(request, context, answer)

    def ListDomains(self, request, context):
        domains = sorted({policy.domain for policy in self.policies})
        return self._answer(request, context, public.ListDomainsResponse(domains=domains))
