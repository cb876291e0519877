"""The plan of a document here: its mistakes, or its hooks and C text. Loads nothing."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from chassis.errors import ServiceError
from collector.bpf.kernel import KernelInfo
from tetra.v1 import plans_pb2 as pb

MAX_DOCUMENT_BYTES = 256 << 10


@dataclass(slots=True)
class Explainer:
    """Plans documents on this kernel, one at a time, in a thread.

    The kernel's types are read for each document and freed with it: 0.05 s of CPU and, while it
    lasts, the memory that a loaded policy needs.
    """

    kernel: KernelInfo
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def explain(self, request: pb.PlanOnNode) -> pb.NodePlan:
        """Return the plan; it includes mistakes."""
        answer = pb.NodePlan(kernel=self.kernel.release, machine=self.kernel.machine)
        if len(request.yaml.encode()) > MAX_DOCUMENT_BYTES:
            answer.error = f"document larger than {MAX_DOCUMENT_BYTES} bytes"
            return answer
        async with self._turn:
            try:
                found = await asyncio.to_thread(self._plan, request.yaml, request.with_source)
            except ServiceError as error:
                answer.error = str(error)
                return answer
        answer.MergeFrom(found)
        return answer

    def _plan(self, yaml: str, with_source: bool) -> pb.NodePlan:
        from collector.policies.node_plan import node_plan  # the planner, which few nodes need

        return node_plan(self.kernel.btf, yaml, with_source=with_source)
