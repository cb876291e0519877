"""Ctrl-C and SIGTERM at the moments that are easily forgotten: imports, drains, the end."""

import subprocess
import sys

import pytest

SCRIPTS = ["tetra", "tetra-collector", "tetra-gateway", "tetra-exporter", "tetra-embedded"]
WHILE_IMPORTING = """
import importlib.metadata, signal, sys

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name.endswith(".main"):
            signal.raise_signal(signal.{number})

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's job ignores it
(script,) = importlib.metadata.entry_points(group="console_scripts", name="{script}")
main = script.load()
sys.meta_path.insert(0, Interrupt())
sys.exit(main())
"""
# importlib drops what is raised in such a callback.
IN_A_CALLBACK = """
import signal, time, weakref
from cli import interrupts

code = "def callback(ref): signal.raise_signal(signal.SIGINT)"
exec(compile(code, "<frozen importlib._bootstrap>", "exec"))
signal.signal(signal.SIGINT, signal.default_int_handler)
interrupts.enable()
lock = set()
reference = weakref.ref(lock, callback)
try:
    del lock
    time.sleep(60)
except KeyboardInterrupt:
    print("interrupted")
"""
IN_THE_DRAIN = """
import asyncio, signal, sys
from chassis import lifetime
from chassis.settings import ServiceSettings

async def serve(settings):
    signal.raise_signal(signal.SIGINT)
    try:
        await asyncio.sleep(60)
    finally:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        await asyncio.sleep(0.1)  # the loop sees both
        print("drained")

sys.argv = ["service"]
code = lifetime.run("service", ServiceSettings, serve)
signal.raise_signal(signal.SIGINT)
sys.exit(code)
"""


def run(text):
    command = [sys.executable, "-c", text]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("script", SCRIPTS)
def test_a_signal_during_imports_ends_the_program_silently(script, number):
    done = run(WHILE_IMPORTING.format(script=script, number=number))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_an_interrupt_in_an_import_callback_is_raised_after_it():
    done = run(IN_A_CALLBACK)
    assert (done.stdout, done.stderr) == ("interrupted\n", "")


def test_further_signals_do_not_interrupt_a_drain():
    done = run(IN_THE_DRAIN)
    assert (done.returncode, done.stdout, done.stderr) == (0, "drained\n", "")
