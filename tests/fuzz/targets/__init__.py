"""One module a target: what it is fed, and what must hold. Names and packages: fuzz.inputs."""
