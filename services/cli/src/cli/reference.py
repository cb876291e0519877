"""The reference part of docs/cli.md, made from the parser: ``python -m cli.reference docs/cli.md``.

What stands above the marker is written by hand and stays.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from cli.main import make_parser

MARKER = "<!-- below: python -m cli.reference docs/cli.md -->\n"


def reference() -> str:
    """Return every command with its description and flags as Markdown."""
    parser = make_parser()
    commands = _commands(parser)
    parts = ["\n## Flags of every command\n", _flags(parser._actions)]
    for name, command in commands.items():
        text, _, examples = (command.description or "").partition("\nexamples:\n")
        parts.append(f"\n## tetra {name}\n\n{text.strip()}\n")
        shown = "\n".join(line.removeprefix("  ") for line in examples.rstrip().splitlines())
        parts.append(f"\n```sh\n{shown}\n```\n")
        own = [
            action
            for action in command._actions
            if not set(action.option_strings)
            & {o for a in parser._actions for o in a.option_strings}
        ]
        parts.append(_flags(own))
        for verb, sub in _commands(command).items():
            words = [action for action in sub._actions if not action.option_strings]
            parts.append(
                f"\n`tetra {name} {verb}`" + "".join(f" {a.metavar}" for a in words) + "\n"
            )
    return "".join(parts)


def _commands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            names = [choice.dest for choice in action._choices_actions]  # without aliases
            return {name: action.choices[name] for name in names}
    return {}


def _flags(actions: list[argparse.Action]) -> str:
    rows = [
        f"| {_names(action)} | {(action.help or '').replace('|', chr(92) + '|')} |\n"
        for action in actions
        if action.option_strings
    ]
    return "\n| flag | meaning |\n|---|---|\n" + "".join(rows) if rows else ""


def _names(action: argparse.Action) -> str:
    names = ", ".join(f"`{name}`" for name in action.option_strings)
    if action.choices:
        return f"{names} {', '.join(f'`{choice}`' for choice in action.choices)}"
    if action.metavar and action.nargs is None:
        return f"{names} {action.metavar}".replace("|", "\\|")
    return names


def main() -> int:
    """Rewrite what stands below the marker in the file named on the command line."""
    page = Path(sys.argv[1])
    above, _, _ = page.read_text().partition(MARKER)
    page.write_text(above + MARKER + reference())
    return 0


if __name__ == "__main__":
    sys.exit(main())
