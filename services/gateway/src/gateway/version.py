"""The gateway's version."""

from __future__ import annotations

from importlib.metadata import version

VERSION = "v" + version("tetra-gateway")
