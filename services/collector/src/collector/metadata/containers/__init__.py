"""Container names, one module per container runtime."""
