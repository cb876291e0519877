"""BCC as a compiler and nothing else: C text in, bytecode out, in a child without rights.

The only module that imports BCC, and only the child does: LLVM's 100 MB never enter the collector.
Maps are numbers in the text (``MAP(n)`` of bpf/shim), so the compiler makes no map and needs no
right; the loader of the bytecode inserts the descriptors (see bytecode.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import importlib.util
import json
import os
import resource
import shutil
import sys
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from collector.errors import CompileError

_NEXT = "\0next text\n"  # in the log, before the compiler's output for each text
_CPU_LIMIT_S = 300  # limit for the child, in seconds: the longest accepted policy takes 20
_NOBODY = 65534
_PR_SET_NO_NEW_PRIVS = 38
_LINUX_CAPABILITY_VERSION_3 = 0x20080522
# BCC's own helpers.h and copy of uapi/linux/bpf.h stay out: bpf/shim declares what we call.
_FLAGS = (
    "-D__BPF_HELPERS_H",
    "-D_UAPI__LINUX_BPF_H__",
    "-DLINUX_VERSION_CODE=0x50800",
    "-Wno-macro-redefined",
    "-Wno-pragma-once-outside-header",
    "-Wno-unused-function",
    "-Wno-int-conversion",
)

# BCC looks for these helpers in /proc/kallsyms, finds no addresses there without CAP_SYSLOG, and
# then puts a #define to an older helper before the text (b_frontend_action.cc).
_PREFIX = "".join(
    f"#undef bpf_probe_read_{name}\n" for name in ("kernel", "kernel_str", "user", "user_str")
)


class Source(NamedTuple):
    """C text, the headers that it includes, and the functions in it that become programs."""

    text: str
    programs: tuple[str, ...]
    flags: tuple[str, ...] = ()
    headers: tuple[tuple[str, str], ...] = ()  # name and text; the shim's need not be named


@cache
def identity() -> str:
    """Return what distinguishes this compiler from another; empty where none is installed.

    Imports nothing, since it is called at every start and for each policy.
    """
    spec = importlib.util.find_spec("bcc")
    if spec is None or spec.origin is None:
        return ""
    version = Path(spec.origin).with_name("version.py")
    libraries = sorted(Path("/usr/lib").glob("*/libbcc.so.0"))
    try:
        # The size stands for LLVM's version, which BCC does not say.
        sizes = [str(library.stat().st_size) for library in libraries]
        return " ".join([version.read_text().strip(), *sizes])
    except OSError:
        return "unknown"


async def compile_source(source: Source, shim: Path) -> dict[str, bytes]:
    """Return the bytecode of each program; raise `CompileError` with the compiler's first words."""
    (found,) = await compile_sources([source], shim)
    if isinstance(found, CompileError):
        raise found
    return found


async def compile_sources(
    sources: Sequence[Source], shim: Path
) -> list[dict[str, bytes] | CompileError]:
    """Return the same for each of several texts that share their headers, from one child.

    Most of a small text's cost is starting the child and LLVM.
    """
    # The texts are passed to the child: it drops its rights first, and then may not be able to read
    # the checkout.
    with tempfile.TemporaryDirectory(prefix="tetra-compile-") as folder:
        readable = Path(folder) / "shim"
        shutil.copytree(shim, readable, copy_function=shutil.copyfile)
        for name, text in sources[0].headers:
            (readable / "include" / name).write_text(text)
        for path in (Path(folder), readable, *readable.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        include = f"-I{readable / 'include'}"
        orders = [
            {"text": one.text, "programs": one.programs, "flags": [*one.flags, include]}
            for one in sources
        ]
        try:
            return await _run({"sources": orders, "shim": str(readable)})
        except CompileError as error:
            if len(sources) == 1:
                return [error]
    # The child ended early, and the text that ended it is unknown: compile each in a child of its
    # own.
    return [(await compile_sources([one], shim))[0] for one in sources]


async def _run(order: dict[str, Any]) -> list[dict[str, bytes] | CompileError]:
    output, errors, status = await run_child(json.dumps(order).encode())
    logs = errors.decode(errors="replace").split(_NEXT)
    try:
        answers: list[dict[str, Any]] = json.loads(output)
    except ValueError:
        text = f"compile: ended early: exit status {status}: {_last(logs[-1])}"
        raise CompileError(text, logs[-1]) from None
    return [_result(answer, log) for answer, log in zip(answers, logs[1:], strict=True)]


async def run_child(order: bytes) -> tuple[bytes, bytes, int | None]:
    """Return the output, the errors and the exit status of a child that compiles an order."""
    # The distribution's python3 has BCC; this interpreter may be another one that can import it.
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", "collector.bpf.compiler",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        output, errors = await child.communicate(order)
    except asyncio.CancelledError:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        await child.wait()
        raise
    return output, errors, child.returncode


def _result(answer: dict[str, Any], log: str) -> dict[str, bytes] | CompileError:
    if "error" in answer:
        return CompileError(f"compile: {answer['error']}{_first_complaint(log)}", log)
    return {name: bytes.fromhex(code) for name, code in answer["programs"].items()}


def _first_complaint(log: str) -> str:
    complaints = [line.strip() for line in log.splitlines() if "error: " in line]
    return f": {complaints[0]}" if complaints else ""


def _last(log: str) -> str:
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    return lines[-1] if lines else "no output"


# Below: the child.


def drop_rights() -> None:
    """Give up every capability, and root's own files where the process may change its user."""
    libc = ctypes.CDLL(None, use_errno=True)
    for limit, value in (
        (resource.RLIMIT_CPU, _CPU_LIMIT_S), (resource.RLIMIT_CORE, 0), (resource.RLIMIT_FSIZE, 0),
    ):  # fmt: skip
        resource.setrlimit(limit, (value, value))
    if os.geteuid() == 0:
        with contextlib.suppress(OSError):  # without CAP_SETUID it stays root, without rights
            os.setgroups([])
            os.setresgid(_NOBODY, _NOBODY, _NOBODY)
            os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    header = (ctypes.c_uint32 * 2)(_LINUX_CAPABILITY_VERSION_3, 0)
    if libc.capset(header, (ctypes.c_uint32 * 6)()):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), "capset")


def _compile(text: str, programs: Sequence[str], flags: Sequence[str]) -> dict[str, bytes]:
    try:
        from bcc import BPF
    except ImportError as error:
        raise CompileError(
            f"BCC is not installed for {sys.executable}: apt-get install python3-bpfcc ({error})"
        ) from None
    try:
        bpf = BPF(text=f"{_PREFIX}#line 1\n{text}", cflags=[*_FLAGS, *flags])
    except Exception as error:
        raise CompileError(str(error)) from error
    codes = {}
    for name in programs:
        try:
            code = bpf.dump_func(name.encode())
        except Exception:  # BCC's is a plain one
            code = None
        if not code:
            raise CompileError(f"{name}: no such function in the text")
        codes[name] = bytes(code)
    return codes


def main() -> None:
    """Run in the child: order on standard input, answer on standard output."""
    order = json.load(sys.stdin)
    answer_to = os.dup(1)
    os.dup2(2, 1)  # keeps BCC's output out of the answer
    os.environ["BCC_KERNEL_SOURCE"] = order["shim"]  # read when BCC compiles
    os.chdir(order["shim"])
    answers: list[dict[str, Any]] = []
    for number, source in enumerate(order["sources"]):
        os.write(2, _NEXT.encode())
        try:
            if not number:
                drop_rights()
            codes = _compile(source["text"], source["programs"], source["flags"])
            answers.append({"programs": {name: code.hex() for name, code in codes.items()}})
        except Exception as error:
            answers.append({"error": str(error)})
    data = memoryview(json.dumps(answers).encode())
    while data:
        data = data[os.write(answer_to, data) :]
    os._exit(0)  # skips LLVM's slow clean-up


if __name__ == "__main__":
    main()
