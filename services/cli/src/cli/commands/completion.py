"""``tetra completion``: scripts made from the parser itself, so they know every flag."""

from __future__ import annotations

import argparse

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
    print(make(_words()), end="")
    return 0


class _Flag:
    def __init__(self, action: argparse.Action) -> None:
        self.names = list(action.option_strings)
        self.help = (action.help or "").replace("'", "").replace("[", "(").replace("]", ")")
        self.values = [str(choice) for choice in action.choices or ()]
        self.takes_value = action.nargs is None


def _words() -> dict[str, tuple[str, list[str], list[_Flag]]]:
    """Return, for each command, its help, its own words and its flags."""
    from cli.main import make_parser

    found = {}
    subparsers = next(
        a for a in make_parser()._actions if isinstance(a, argparse._SubParsersAction)
    )
    helps = {choice.dest: choice.help or "" for choice in subparsers._choices_actions}
    for name, parser in subparsers.choices.items():
        actions = parser._actions
        words = [str(w) for a in actions if not a.option_strings for w in a.choices or ()]
        found[name] = (helps[name], words, [_Flag(a) for a in actions if a.option_strings])
    return found


def _bash(words: dict[str, tuple[str, list[str], list[_Flag]]]) -> str:
    cases = []
    for name, (_, own, flags) in words.items():
        names = " ".join(n for flag in flags for n in flag.names)
        valued = [
            f"      {name}:{'|'.join(f'{name}:{n}' for n in flag.names).removeprefix(f'{name}:')}) "
            f'COMPREPLY=($(compgen -W "{" ".join(flag.values)}" -- "$cur")); return;;'
            for flag in flags
            if flag.values
        ]
        cases += valued
        cases.append(f'      {name}:*) words="{" ".join([*own, names])}";;')
    return "\n".join(
        [
            "# bash completion for tetra",
            "_tetra() {",
            '  local cur="${COMP_WORDS[COMP_CWORD]}" prev="${COMP_WORDS[COMP_CWORD-1]}"',
            f'  local commands="{" ".join(words)}" command="" word words',
            '  for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do',
            '    case " $commands " in *" $word "*) command="$word"; break;; esac',
            "  done",
            '  if [ -z "$command" ]; then words="$commands --server-address --help"; else',
            '    case "$command:$prev" in',
            *cases,
            "    esac",
            "  fi",
            '  COMPREPLY=($(compgen -W "$words" -- "$cur"))',
            "}",
            "complete -o default -F _tetra tetra",
            "",
        ]
    )


def _zsh(words: dict[str, tuple[str, list[str], list[_Flag]]]) -> str:
    lines = ["#compdef tetra", "_tetra() {", "  local -a commands", "  commands=("]
    lines += [f"    '{name}:{help}'" for name, (help, _, _) in words.items()]
    lines += [
        "  )",
        "  if (( CURRENT == 2 )); then _describe command commands; return; fi",
        '  case "$words[2]" in',
    ]
    for name, (_, own, flags) in words.items():
        specs = []
        for flag in flags:
            text = flag.help.replace(":", "\\:")
            value = f":value:({' '.join(flag.values)})" if flag.values else ":value:_files"
            end = value if flag.takes_value else ""
            specs += [f"      '*{option}[{text}]{end}'" for option in flag.names]
        if own:
            specs.append(f"      '*:word:({' '.join(own)})'")
        lines += [f"    {name}) _arguments \\", " \\\n".join(specs), "    ;;"]
    lines += [
        "  esac",
        "}",
        'if [ "$funcstack[1]" = _tetra ]; then _tetra "$@"; else',
        "compdef _tetra tetra; fi",
        "",
    ]
    return "\n".join(lines)


def _fish(words: dict[str, tuple[str, list[str], list[_Flag]]]) -> str:
    names = " ".join(words)
    lines = ["# fish completion for tetra", "complete -c tetra -f"]
    for name, (help, own, flags) in words.items():
        lines.append(
            f"complete -c tetra -n 'not __fish_seen_subcommand_from {names}' -a {name} -d '{help}'"
        )
        seen = f"complete -c tetra -n '__fish_seen_subcommand_from {name}'"
        lines += [f"{seen} -a '{word}'" for word in own]
        for flag in flags:
            options = " ".join(
                f"-l {n[2:]}" if n.startswith("--") else f"-s {n[1:]}" for n in flag.names
            )
            value = (
                f" -xa '{' '.join(flag.values)}'"
                if flag.values
                else " -r"
                if flag.takes_value
                else ""
            )
            lines.append(f"{seen} {options}{value} -d '{flag.help}'")
    return "\n".join([*lines, ""])
