"""``tetra profile``: what a program or container really does, and profiles made of it."""

from __future__ import annotations

from cli.command import Group

_HERE = "cli.commands.profile"

COMMAND = Group(
    "profile",
    {name: f"{_HERE}.{name}:COMMAND" for name in ("show", "write", "diff")},
    summary="what a program or container really does; security profiles",
    text="""Collect what a program or container did from the stream's past, over all nodes:
executables started, files by directory, peers, capabilities, system calls. The ready-made policies
report it; enable them before the program starts, since a fact is reported once: tetra policies
enable files network capabilities syscalls.

examples:
  tetra profile show /usr/sbin/nginx
  tetra profile write /usr/sbin/nginx --as seccomp > nginx.json
  tetra profile diff /usr/sbin/nginx --new 1d
""",
)
