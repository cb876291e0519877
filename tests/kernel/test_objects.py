"""Starting from cached bytecode: no compiler in the way, and no object that does not fit."""

import asyncio
import json
import os
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from collector.bpf import base, bytecode, compiler, kernel, probes
from collector.bpf.cache import BlobCache
from collector.bpf.loader import load_object
from collector.bpf.objects import Objects

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(300)]  # compiles, maybe emulated

COLLECTOR = Path(sys.executable).parent / "tetra-collector"
FOLDER = base.bpf_folder()
RETURN = bytes.fromhex("9500000000000000")
# Instructions that the verifier may follow for all base programs: at 181,000 it took 150 ms. It
# follows a loop once where the kernel has may_goto, and else each of its steps.
VERIFIED_MAX = {True: 10_000, False: 120_000}


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """A cache folder that has the base programs."""
    folder = tmp_path_factory.mktemp("compiled")
    assert opened(folder) == "compiled"
    return folder


@pytest.fixture
def cache(compiled, tmp_path):
    """A copy of it, to damage."""
    folder = tmp_path / "cache"
    folder.mkdir(mode=0o700)
    for file in compiled.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def flags_of(info):
    return base.compiler_flags(info, ring_size_bytes=1 << 20, process_map_entries=4096)


def opened(folder, logs=None):
    """Open and close the probes; return where their object came from."""
    with capture_logs() as entries:
        info = kernel.detect(folder)
        found = asyncio.run(probes.open_probes(info, flags_of(info), FOLDER))
        try:
            assert set(base.HOOKS) <= set(found.hooks)
        finally:
            found.close()
            found.free()
    if logs is not None:
        logs += entries
    [entry] = [entry for entry in entries if entry["event"] == "probes loaded"]
    return entry["object"]


def object_file(folder):
    """Return the file of the programs: the other has the kernel's features."""
    return max(folder.glob("*.obj"), key=lambda file: file.stat().st_size)


def object_in(folder):
    """Return the cached object."""
    return bytecode.decode(object_file(folder).read_bytes()[80:].partition(b"\0")[2])


def rewrite(folder, change):
    """Replace the cached object by another in a file that is whole."""
    file = object_file(folder)
    data = file.read_bytes()
    made_by, _, content = data[80:].partition(b"\0")
    changed = bytecode.encode(change(bytecode.decode(content)))
    key = data[8:40]
    BlobCache(folder).write(key, made_by + b"\0" + changed)


def test_second_start_compiles_nothing(cache, monkeypatch):
    monkeypatch.setattr(compiler, "compile_source", None)
    assert opened(cache) == "cached"


def test_start_from_the_cache_needs_no_compiler(cache, monkeypatch):
    monkeypatch.setattr(compiler, "identity", str)
    monkeypatch.setattr(compiler, "compile_source", None)
    assert opened(cache) == "cached"


def test_other_version_of_the_compiler_compiles_again(cache, monkeypatch):
    monkeypatch.setattr(compiler, "identity", lambda: "of tomorrow")
    assert opened(cache) == "compiled"
    assert opened(cache) == "cached"


def test_damaged_and_truncated_objects_are_compiled_again(cache):
    file = object_file(cache)
    whole = file.read_bytes()
    for damaged in (whole[: len(whole) // 2], whole[:-1] + b"\xff", b""):
        file.write_bytes(damaged)
        assert opened(cache) == "compiled"
        assert file.read_bytes() == whole  # compiling gives the same bytes
        assert opened(cache) == "cached"


def test_object_of_other_sources_is_ignored(compiled, cache, tmp_path):
    other = tmp_path / "bpf"
    subprocess.run(["cp", "-r", FOLDER, other], check=True)
    header = other / "lib" / "path.h"
    header.write_text(header.read_text().replace("WALK_STEPS 128", "WALK_STEPS 120"))
    info = kernel.detect(cache)
    flags = flags_of(info)
    ours, theirs = (base.parts(folder, flags, None) for folder in (FOLDER, other))
    assert ours != theirs
    built = asyncio.run(
        Objects(info.cache, info.build, other).get_by(
            theirs, lambda: base.plan(info, other, flags, None)
        )
    )
    assert not built.cached
    assert built.object != object_in(compiled)


def test_object_of_another_kernel_or_setting_is_ignored(cache):
    info = kernel.detect(cache)
    flags = flags_of(info)
    smaller = [flag.replace("ENTRIES=4096", "ENTRIES=2048") for flag in flags]
    assert smaller != flags
    assert is_cached(info, flags)
    assert not is_cached(info._replace(build=info.build + "x"), flags)
    assert not is_cached(info, [*flags, "-DENABLE_NS"])
    assert not is_cached(info, smaller)


def is_cached(info, flags):
    """Return whether the programs for a kernel and settings come from the cache."""
    objects = Objects(info.cache, info.build, FOLDER)
    parts = base.parts(FOLDER, flags, None)
    built = asyncio.run(objects.get_by(parts, partial(base.plan, info, FOLDER, flags, None)))
    return built.cached


def test_object_that_the_verifier_rejects_is_compiled_again(cache):
    def broken(built):
        first, *rest = built.programs
        return bytecode.Object(built.maps, (first._replace(instructions=RETURN), *rest))

    rewrite(cache, broken)
    logs = []
    assert opened(cache, logs) == "compiled"
    assert "cached object refused: compiling again" in [entry["event"] for entry in logs]
    assert opened(cache) == "cached"


def test_folder_that_cannot_be_written_works_with_a_warning(tmp_path):
    (tmp_path / "file").touch()
    logs = []
    assert opened(tmp_path / "file" / "cache", logs) == "compiled"
    assert "object cache not used" in [entry["event"] for entry in logs]


def test_collectors_that_start_together_share_one_folder(tmp_path):
    script = (
        "import asyncio, sys; from pathlib import Path\n"
        "from collector.bpf import base, kernel, probes\n"
        "info = kernel.detect(Path(sys.argv[1]))\n"
        "flags = base.compiler_flags(info, ring_size_bytes=1 << 20, process_map_entries=4096)\n"
        "found = asyncio.run(probes.open_probes(info, flags, base.bpf_folder()))\n"
        "print(*found.hooks)\n"
    )
    command = [sys.executable, "-c", script, tmp_path / "cache"]
    starts = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    for start in starts:
        output, errors = start.communicate(timeout=250)
        assert start.returncode == 0, errors
        assert set(base.HOOKS) <= set(output.splitlines()[-1].split())
    assert opened(tmp_path / "cache") == "cached"
    assert len(list((tmp_path / "cache").iterdir())) == 2


def start(tmp_path, *flags):
    """Start the collector; return it, its log until it is ready."""
    process = subprocess.Popen(
        [
            COLLECTOR, "--state-dir", tmp_path / "state", "--cache-dir", tmp_path / "cache",
            "--node-name", f"objects-{os.getpid()}", "--nats-url", "nats://127.0.0.1:9",
            "--docker-socket", "", *flags,
        ],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    stop = threading.Timer(250, process.kill)
    stop.start()
    log = []
    assert process.stdout
    for line in process.stdout:
        log.append(json.loads(line))
        if log[-1].get("event") == "ready":
            break
    stop.cancel()
    return process, log


def test_no_compiler_in_the_collectors_memory_whether_cached_or_not(tmp_path):
    for expected in ("compiled", "cached"):
        process, log = start(tmp_path)
        try:
            memory = Path(f"/proc/{process.pid}/maps").read_text()
            status = Path(f"/proc/{process.pid}/status").read_text()
        finally:
            process.terminate()
            process.communicate(timeout=60)
        assert [e["object"] for e in log if e["event"] == "probes loaded"] == [expected]
        files = {line.split()[-1] for line in memory.splitlines()}  # addresses have letters, too
        assert any("libc" in file for file in files)
        assert not [file for file in files if "LLVM" in file or "bcc" in file]
        print(expected, next(line for line in status.splitlines() if line.startswith("VmHWM")))


def test_verification_takes_little_of_a_cached_start(compiled):
    info = kernel.detect(compiled)
    flags = flags_of(info)
    objects = Objects(info.cache, info.build, FOLDER)
    parts = base.parts(FOLDER, flags, None)
    built = asyncio.run(objects.get_by(parts, partial(base.plan, info, FOLDER, flags, None)))
    assert built.cached
    loaded = load_object(built.object)
    try:
        followed = {name: one.info().verified_instructions for name, one in loaded.programs.items()}
    finally:
        loaded.close()
    print(followed)  # zeros before Linux 5.16
    assert sum(followed.values()) < VERIFIED_MAX["HAVE_MAY_GOTO" in info.features]


def test_collector_never_imports_the_compiler(compiled):
    script = (
        "import sys; import collector.main; from collector.bpf import base, kernel, probes\n"
        "import asyncio; from pathlib import Path\n"
        "info = kernel.detect(Path(sys.argv[1]))\n"
        "flags = base.compiler_flags(info, ring_size_bytes=1 << 20, process_map_entries=4096)\n"
        "asyncio.run(probes.open_probes(info, flags, base.bpf_folder()))\n"
        "print('bcc' in sys.modules, 'collector.bpf.compiler' in sys.modules)\n"
    )
    answer = subprocess.run(
        [sys.executable, "-c", script, compiled], capture_output=True, text=True, check=True
    )
    assert answer.stdout.splitlines()[-1] == "False True"
