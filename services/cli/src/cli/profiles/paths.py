"""Written directories in a drop-in of systemd: which stay writable, and their text."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable
from typing import NamedTuple

from cli.profiles.model import Profile

MOST_PATHS = 50
# As ProtectSystem=full, which would replace a unit's ProtectSystem=strict.
_READ_ONLY = ("/boot", "/efi", "/etc", "/usr")
_NOT_UTF8 = "\ufffd"  # what the collector puts in place of bytes that are not UTF-8
# Double quotes around an entry, C-style escapes within (systemd.syntax, "Quoting"); specifiers are
# expanded afterwards (config_parse_namespace_path_strv in src/core/load-fragment.c).
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "%": "%%"})


class Writable(NamedTuple):
    """Directories that a unit writes."""

    paths: list[str]
    read_only: list[str]
    unclear: int  # whose names are not printable: left out
    beyond: int  # behind the first ``MOST_PATHS``: left out

    def lines(self) -> list[str]:
        """Return the settings of the drop-in."""
        folders = " ".join(f"-{path}" for path in self.read_only)
        return [
            *([f"ReadOnlyPaths={folders}"] if folders else []),
            *(f'ReadWritePaths="-{path.translate(_ESCAPES)}"' for path in self.paths),
        ]


def writable(profiles: Iterable[Profile]) -> Writable:
    """Return what stays writable.

    The profiled process chooses the names: with a newline in it, one would be a setting of its own.
    """
    written = {path for one in profiles for path in one.written}
    clear = {path for path in written if path.isprintable() and _NOT_UTF8 not in path}
    kept = sorted(path for path in clear if not _is_covered(path, clear))
    return Writable(
        kept[:MOST_PATHS],
        # Of equal paths systemd keeps the more restrictive entry (drop_duplicates in
        # src/core/namespace.c).
        [path for path in _READ_ONLY if path not in written],
        len(written) - len(clear),
        len(kept[MOST_PATHS:]),
    )


def _is_covered(path: str, written: set[str]) -> bool:
    """Return whether a written directory above makes ``path`` writable, too.

    One above a read-only folder does not: the folder stays read-only.
    """
    while path not in _READ_ONLY and (above := posixpath.dirname(path)) != path:
        if above in written:
            return True
        path = above
    return False
