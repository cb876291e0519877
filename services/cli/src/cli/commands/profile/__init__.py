"""``tetra profile``: what a program or container does, and profiles made from it."""

from __future__ import annotations

from cli.command import Group

_HERE = "cli.commands.profile"

COMMAND = Group(
    "profile",
    {name: f"{_HERE}.{name}:COMMAND" for name in ("show", "write", "diff")},
    summary="what a program or container does; security profiles",
    text="""Collect from the recorded events of all nodes what a program, systemd unit or container
did: executables started, files by directory, peers, capabilities, system calls. The ready-made
policies report it; enable them before the program starts, since a fact is reported once: tetra
policies enable files network capabilities syscalls.

examples:
  tetra profile show /usr/sbin/nginx
  tetra profile write /usr/sbin/nginx --as seccomp > nginx.json
  tetra profile diff /usr/sbin/nginx --new 1d
""",
)
