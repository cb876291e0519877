"""``tetra completion``: scripts made from the parser itself, so they know every flag."""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass
from shlex import quote

HELP = "print a completion script for a shell"
DESCRIPTION = """Print a completion script for bash, zsh or fish.

examples:
  source <(tetra completion bash)
  tetra completion zsh > "${fpath[1]}/_tetra"
  tetra completion fish > ~/.config/fish/completions/tetra.fish
"""
USAGE = "bash|zsh|fish "


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the shell."""
    parser.add_argument("shell", choices=("bash", "zsh", "fish"), help="bash, zsh or fish")


def run(args: argparse.Namespace) -> int:
    """Print the script."""
    make = {"bash": _bash, "zsh": _zsh, "fish": _fish}[args.shell]
    print(make(_commands()), end="")
    return 0


@dataclass(frozen=True, slots=True)
class _Flag:
    names: list[str]
    help: str
    values: list[str]  # what it may be, where that is known
    takes_value: bool
    takes_file: bool


@dataclass(frozen=True, slots=True)
class _Command:
    name: str
    help: str
    words: list[str]
    flags: list[_Flag]


def _commands() -> list[_Command]:
    from cli.main import make_parser

    subparsers = next(
        a for a in make_parser()._actions if isinstance(a, argparse._SubParsersAction)
    )
    names = [choice.dest for choice in subparsers._choices_actions]  # without aliases
    found = []
    for choice in subparsers._choices_actions:
        actions = subparsers.choices[choice.dest]._actions
        words = [str(w) for a in actions if not a.option_strings for w in a.choices or ()]
        if choice.dest == "help":
            words = names
        flags = [_flag(action) for action in actions if action.option_strings]
        found.append(_Command(choice.dest, choice.help or "", words, flags))
    return found


def _flag(action: argparse.Action) -> _Flag:
    return _Flag(
        names=list(action.option_strings),
        help=action.help or "",
        values=[str(choice) for choice in action.choices or ()],
        takes_value=action.nargs is None,
        takes_file=str(action.metavar).startswith("FILE"),
    )


def _bash(commands: list[_Command]) -> str:
    cases = []
    for command in commands:
        for flag in command.flags:
            if flag.takes_value:
                pattern = "|".join(f"{command.name}:{name}" for name in flag.names)
                answer = f'_tetra_words "{" ".join(flag.values)}"' if flag.values else ":"
                cases.append(f"    {pattern}) {answer}; return;;")
        names = [name for flag in command.flags for name in flag.names]
        cases.append(f'    {command.name}:*) _tetra_words "{" ".join([*command.words, *names])}";;')
    all_names = " ".join(command.name for command in commands)
    return f"""# bash completion for tetra
_tetra_words() {{
  mapfile -t COMPREPLY < <(compgen -W "$1" -- "${{COMP_WORDS[COMP_CWORD]}}")
}}
_tetra() {{
  local previous="${{COMP_WORDS[COMP_CWORD-1]}}" commands="{all_names}" command="" word
  COMPREPLY=()
  for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
    case " $commands " in *" $word "*) command="$word"; break;; esac
  done
  case "$command:$previous" in
    :*) _tetra_words "$commands --server-address --version --help";;
{chr(10).join(cases)}
  esac
}}
# Where there is no answer, such as behind --tls-cert-file, it is a file.
complete -o default -F _tetra tetra
"""


def _zsh(commands: list[_Command]) -> str:
    cases = []
    for command in commands:
        specs = []
        for flag in command.flags:
            values = "_files" if flag.takes_file else f"({' '.join(flag.values)})"
            end = f":value:{values}" if flag.takes_value else ""
            specs += [quote(f"*{name}[{_zsh_text(flag.help)}]{end}") for name in flag.names]
        if command.words:
            specs.append(quote(f"*:word:({' '.join(command.words)})"))
        lines = " \\\n".join(f"      {spec}" for spec in specs)
        cases.append(f"    {command.name}) shift at words; (( CURRENT -= at ))")
        cases.append(f"    _arguments \\\n{lines};;")
    described = [f"    {quote(f'{c.name}:{_zsh_text(c.help)}')}" for c in commands]
    return f"""#compdef tetra
_tetra() {{
  local -a commands
  commands=(
{chr(10).join(described)}
  )
  local at=1
  while (( at < CURRENT - 1 )) && [[ -z ${{(M)commands:#${{words[at+1]}}:*}} ]]; do (( at++ )); done
  if (( at >= CURRENT - 1 )); then _describe command commands; return; fi
  case "${{words[at+1]}}" in
{chr(10).join(cases)}
  esac
}}
if [ "$funcstack[1]" = _tetra ]; then _tetra "$@"; else compdef _tetra tetra; fi
"""


def _zsh_text(text: str) -> str:
    return re.sub(r"([\[\]:\\])", r"\\\1", text)


def _fish(commands: list[_Command]) -> str:
    names = " ".join(command.name for command in commands)
    lines = ["# fish completion for tetra", "complete -c tetra -f"]
    for command in commands:
        lines.append(
            f"complete -c tetra -n 'not __fish_seen_subcommand_from {names}' -a {command.name}"
            f" -d {_fish_text(command.help)}"
        )
        seen = f"complete -c tetra -n '__fish_seen_subcommand_from {command.name}'"
        lines += [f"{seen} -a {word}" for word in command.words]
        for flag in command.flags:
            options = " ".join(
                f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}"
                for name in flag.names
            )
            value = ""
            if flag.takes_value:
                value = " -rF" if flag.takes_file else f" -xa {_fish_text(' '.join(flag.values))}"
            lines.append(f"{seen} {options}{value} -d {_fish_text(flag.help)}")
    return "\n".join([*lines, ""])


def _fish_text(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
