"""Policy ``files``: opens, changes of names, permissions and owners."""

from __future__ import annotations

import os
from typing import Any

from cli.renderers.ready.act import Act, call_of, failure_of, numbers, signed
from eventfilters.accesses import files, text_of

# By call, where the document gives no message: functions and system calls of one kind of change.
_VERBS = {
    "unlink": "remove", "unlinkat": "remove", "rmdir": "remove",
    "mkdir": "create", "mkdirat": "create", "mknod": "create", "mknodat": "create",
    "symlink": "create", "symlinkat": "create",
    "rename": "rename", "renameat": "rename", "renameat2": "rename",
    "link": "link", "linkat": "link",
    "chmod": "chmod", "fchmod": "chmod", "fchmodat": "chmod", "fchmodat2": "chmod",
    "chown": "chown", "lchown": "chown", "fchown": "chown", "fchownat": "chown",
    "truncate": "truncate",
}  # fmt: skip
_EMOJIS = {
    "open": "📂", "denied": "🚫", "create": "📄", "remove": "❌", "rename": "🔀", "link": "🔗",
    "chmod": "🔏", "chown": "👤", "truncate": "📂",
}  # fmt: skip
_WRITES = (os.O_WRONLY, os.O_RDWR)
_UNKNOWN = -1  # io_uring's events have no flags


def act(body: Any) -> Act:
    """Return the change or access."""
    call = call_of(body)
    word = body.message or _VERBS.get(call, call)
    path, to = files(body)
    path = path or _first_text(body)
    found = numbers(body)
    to = to or _target(body)
    what = f"{path} -> {to}" if to else path
    if word in ("open", "denied"):
        what = f"{_how(found.get('flags', _UNKNOWN))}{path}"
    if word == "chmod" and "mode" in found:
        what += f" {found['mode'] & 0o7777:04o}"
    if word == "chown":
        what += "".join(
            f" {name} {found[name]}" for name in ("uid", "gid") if signed(found.get(name, -1)) >= 0
        )
    return Act(_EMOJIS.get(word, "📂"), word, what, failure_of(body), file=path)


def _target(body: Any) -> str:
    """Return what a symbolic link leads to, as it was written."""
    return next((text_of(one) for one in body.args if one.label == "target"), "")


def _how(flags: int) -> str:
    if flags == _UNKNOWN:
        return ""
    if flags & os.O_ACCMODE in _WRITES:
        return "to append " if flags & os.O_APPEND else "to write "
    return "to create " if flags & os.O_CREAT else "to read "


def _first_text(body: Any) -> str:
    """Return the name of a tracepoint's event, whose arguments have no labels."""
    return next((str(one.string_arg) for one in body.args if one.string_arg), "")
