"""``python -m benchmarks.table RESULTS.json``: the figures of a run as Markdown."""

from __future__ import annotations

import json
import sys
from pathlib import Path


def number(value: float) -> str:
    """Return three significant digits, or whole thousands."""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def main() -> None:
    """Print one table a section."""
    run = json.loads(Path(sys.argv[1]).read_text())
    print(f"Linux {run['kernel']}, {run['cores']} cores, Python {run['python']}, {run['time']}")
    section = None
    for figure in run["figures"]:
        if figure["section"] != section:
            section = figure["section"]
            print(f"\n### {section}\n\n| what | median | least .. most | wanted | |")
            print("|---|---|---|---|---|")
        spread = figure["spread"]
        around = f"{number(spread[0])} .. {number(spread[1])}" if spread else ""
        wanted = f"{figure['wanted'][0]} {number(figure['wanted'][1])}" if figure["wanted"] else ""
        met = {True: "met", False: "**missed**", None: ""}[figure["met"]]
        name = figure["name"].strip()
        value = f"{number(figure['value'])} {figure['unit']}".strip()
        print(f"| {name} | {value} | {around} | {wanted} | {met} |")


if __name__ == "__main__":
    main()
