"""What a written form lacks, or holds for beyond the subjects."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Sequence

from cli.profiles.forms import matched_binaries
from cli.profiles.model import Profile
from cli.profiles.paths import MOST_PATHS, writable
from cli.words import counted

_INTERPRETER = re.compile(
    r"(?:(?:a|ba|rba|da|z|k|mk|c|tc|fi|pw)?sh|busybox|toybox|python|pypy|perl|ruby|php|php-fpm|"
    r"php-cgi|lua|luajit|tclsh|wish|expect|guile|[gmn]?awk|node|nodejs|deno|bun|java|mono|dotnet|"
    r"Rscript|R|beam\.smp|escript)[-.\d]*"
)


def notices(form: str, profiles: Sequence[Profile], named: int) -> Iterator[str]:
    """Yield what a reader of the form has to know."""
    if form == "systemd":
        found = writable(profiles)
        if found.unclear:
            paths = counted(found.unclear, "written path")
            yield f"left out: {paths}, of names that are not printable"
        if found.beyond:
            paths = counted(found.beyond, "written path")
            yield (
                f"left out: {paths}, behind the first {MOST_PATHS}: add ReadWritePaths= of the "
                "folders above"
            )
    if form == "tracingpolicy":
        shared = [path for path in matched_binaries(profiles[:named]) if _is_interpreter(path)]
        if shared:
            yield (
                f"the policy holds for every process of a host that runs an interpreter of it: "
                f"{', '.join(shared)}"
            )


def _is_interpreter(path: str) -> bool:
    return _INTERPRETER.fullmatch(posixpath.basename(path)) is not None
