"""tetra.v1.Policies: policies of the fleet, beyond what Tetragon's API can say."""

from __future__ import annotations

from typing import Any

import grpc

from gateway.streams import Context
from tetra.v1 import policies_pb2

NAME = "tetra.v1.Policies"


class Policies:
    """The methods of the service."""

    def handlers(self) -> list[grpc.GenericRpcHandler]:
        """Return what a server needs."""
        methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            method.name: grpc.unary_unary_rpc_method_handler(_unimplemented(method.name))
            for method in policies_pb2.DESCRIPTOR.services_by_name["Policies"].methods
        }
        return [grpc.method_handlers_generic_handler(NAME, methods)]


def _unimplemented(name: str) -> Any:
    async def handle(request: bytes, context: Context) -> None:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, f"{name} is not served by this version")

    return handle
