"""Events: the protobuf bytes that clients receive, one module per kind."""
