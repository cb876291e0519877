"""Collectors without a kernel as one process: ``python -m chaos.nodes URL FOLDER NAME...``.

What each has switched on is in ``FOLDER/active.json``, rewritten at each change.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

from support.fleet import fleet

LOOK_EVERY_S = 0.1


async def run(url: str, folder: Path, names: list[str]) -> None:
    """Run the nodes until killed."""
    async with fleet(url, folder) as found:
        for name in names:
            found.start(name)
        before = None
        while True:
            active = {
                name: {policy: call for policy, (call, _mode) in node.active().items()}
                for name, node in found.nodes.items()
            }
            if active != before:
                before = active
                written = folder / f"active.{os.getpid()}"
                written.write_text(json.dumps(active))
                written.replace(folder / "active.json")
            await asyncio.sleep(LOOK_EVERY_S)


def main() -> None:
    """Read the command line."""
    url, name, *nodes = sys.argv[1:]
    folder = Path(name)
    folder.mkdir(parents=True, exist_ok=True)
    asyncio.run(run(url, folder, nodes))


if __name__ == "__main__":
    main()
