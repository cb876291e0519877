"""Fuzz what comes from outside, guided by coverage (Atheris), against the code that runs.

targets:
  records    ring records through decoder, process table, enricher and encoder
  tracing    records of tracing policies, with every type of argument
  ring       the ring's memory: lengths that lie, records that are never finished
  spool      any bytes in the folder of the collector's spool
  table      any bytes as the saved process table
  journal    that table and a journal, as a killed collector leaves them
  batches    messages of the bus, as a gateway takes them in and sends them on
  requests   GetEvents and StreamEvents requests; their filters applied to events
  rendered   events through everything that `tetra` prints them with
  policies   documents of policies: read, checked against a kernel, planned

examples:
  make fuzz                                        every target for a minute
  make fuzz FUZZ="--seconds 600 spool table"       two of them, ten minutes each
  make fuzz FUZZ="--replay"                        only what is kept; needs no Atheris
  make fuzz FUZZ="--try tests/fuzz/corpus/spool/0123456789abcdef-broke"
  make fuzz FUZZ="--minimize"                      keep what covers something, drop the rest

Inputs that cover something new are kept in .cache/fuzz/ and are the start of the next run; those
of tests/fuzz/corpus/ are in git, and `make test` replays them. An input that breaks something is
written there at once, and its traceback shown.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
import platform
import re
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import cast

import structlog

from fuzz import inputs, minimize

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".cache" / "fuzz"
_REQUIREMENTS = ROOT / "requirements" / "fuzz.txt"
_INPUT_TIMEOUT_S = 25  # on a loaded machine; most take less than a millisecond
_MEMORY_MB = 1500
_STATUS = re.compile(r"cov: (\d+) ft: (\d+)")


def _target(name: str) -> str:
    if name not in inputs.TARGETS:
        raise argparse.ArgumentTypeError(f"{name!r}: one of {', '.join(inputs.TARGETS)}")
    return name


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r}: not a number of seconds above 0")
    return int(text)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make fuzz",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage='make fuzz FUZZ="[options] [TARGET ...]"',
    )
    parser.add_argument("target", nargs="*", type=_target, help="[all]")
    parser.add_argument("--seconds", type=_positive, default=60, help="for each target [60]")
    parser.add_argument("--seed", type=int, default=0, help="of the mutations [by the clock]")
    parser.add_argument("--json", type=Path, help="write the figures there, too")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--replay", action="store_true", help="run the kept inputs once")
    instead.add_argument("--try", type=Path, metavar="FILE", dest="once", help="run one input")
    instead.add_argument("--minimize", action="store_true", help="make the corpus small again")
    return parser.parse_args()


def main() -> int:
    """Return 0 if nothing broke, 1 if something did, 2 if it cannot run here."""
    args = parse()
    names = args.target or list(inputs.TARGETS)
    if args.once:
        return _try(args.once)
    if args.replay:
        return max(_replay(name) for name in names)
    if args.minimize:
        for name in names:
            minimize.minimize(name, CACHE / name)
        return 0
    if not _has_atheris():
        return 2
    results: list[dict[str, object]] = []
    try:
        for name in names:
            results.append(_fuzz(name, args.seconds, args.seed))
            if args.json:
                args.json.write_text(json.dumps(results, indent=2) + "\n")
    except KeyboardInterrupt:
        _show(results)
        return 130
    _show(results)
    return int(any(result["found"] for result in results))


def _has_atheris() -> bool:
    if importlib.util.find_spec("atheris"):
        return True
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    pip += ["--require-hashes", "--only-binary", ":all:", "-r", str(_REQUIREMENTS)]
    print("fuzz: installing Atheris (requirements/fuzz.txt)", file=sys.stderr)
    installed = subprocess.run(pip, check=False).returncode == 0
    importlib.invalidate_caches()
    if installed and importlib.util.find_spec("atheris"):
        return True
    where = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
    print(
        f"fuzz: error: no Atheris for {where}: its wheels are for Linux on x86-64\n"
        'fuzz: what is kept can be replayed anywhere: make fuzz FUZZ="--replay"',
        file=sys.stderr,
    )
    return False


def _load(name: str) -> inputs.Target:
    return cast(inputs.Target, importlib.import_module(f"fuzz.targets.{name}"))


def _replay(name: str) -> int:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    target, paths, broken = _load(name), inputs.kept(name), 0
    for path in paths:
        try:
            target.check(*inputs.split(path.read_bytes()))
        except Exception:
            traceback.print_exc()
            print(f"{name}: {path.relative_to(ROOT)} breaks it", file=sys.stderr)
            broken += 1
    print(f"{name}: {len(paths) - broken} of {len(paths)} inputs hold")
    return int(broken > 0)


def _try(path: Path) -> int:
    path = ROOT / path  # make runs it elsewhere
    name = path.resolve().parent.name
    if name not in inputs.TARGETS:
        print(f"fuzz: error: {path}: not in a folder named for a target", file=sys.stderr)
        return 2
    try:
        data = path.read_bytes()
    except OSError as error:
        print(f"fuzz: error: {path}: {error.strerror}", file=sys.stderr)
        return 2
    _load(name).check(*inputs.split(data))
    print(f"{name}: {path.name} holds")
    return 0


def _fuzz(name: str, seconds: int, seed: int) -> dict[str, object]:
    working, broken = CACHE / name, CACHE / f"{name}-broken"
    working.mkdir(parents=True, exist_ok=True)
    broken.mkdir(exist_ok=True)
    for number, data in enumerate(_load(name).seeds()):
        (working / f"seed-{number}").write_bytes(data)
    before = set(broken.iterdir())
    log = CACHE / f"{name}.log"
    print(f"fuzz: {name}: {seconds} s (log: {log.relative_to(ROOT)})", flush=True)
    command = [
        sys.executable, "-m", "fuzz.one", name,
        f"-max_total_time={seconds}", f"-max_len={inputs.MAX_BYTES}", f"-seed={seed}",
        f"-timeout={_INPUT_TIMEOUT_S}", f"-rss_limit_mb={_MEMORY_MB}",
        f"-artifact_prefix={broken}/", "-print_final_stats=1", "-use_value_profile=1",
        str(working), str(inputs.CORPUS / name),
    ]  # fmt: skip
    (inputs.CORPUS / name).mkdir(parents=True, exist_ok=True)
    start_s = time.monotonic()
    with log.open("wb") as out:
        # Coverage needs Python's own hashes to be the same each time.
        environment = os.environ | {"PYTHONHASHSEED": "0"}
        code = subprocess.run(
            command, stdout=out, stderr=out, env=environment, cwd=ROOT / "tests", check=False
        ).returncode
    text = log.read_text(errors="replace")
    found = [
        str(inputs.keep(name, path.read_bytes(), broke=True).relative_to(ROOT))
        for path in sorted(set(broken.iterdir()) - before)
    ]
    if code and not found:
        found = [f"exit code {code}"]
    if found:
        print("\n".join(text.splitlines()[-60:]))
        print(f"fuzz: {name}: broke: {' '.join(found)}")
    executions = re.search(r"stat::number_of_executed_units: (\d+)", text)
    covered = _STATUS.findall(text) or [("0", "0")]
    return {
        "target": name,
        "seconds": round(time.monotonic() - start_s),
        "executions": int(executions[1]) if executions else 0,
        "branches": int(covered[-1][0]),
        "features": int(covered[-1][1]),
        "inputs": len(list(working.iterdir())),
        "found": found,
    }


def _show(results: list[dict[str, object]]) -> None:
    columns = ("target", "seconds", "executions", "branches", "features", "inputs")
    print("".join(f"{column:>12}" for column in columns) + "  broke")
    for result in results:
        found = cast(list[str], result["found"])
        print("".join(f"{result[column]!s:>12}" for column in columns) + f"  {len(found)}")


if __name__ == "__main__":
    sys.exit(main())
