"""The three examples of docs/enforcement.md, as they stand there, do what the page says."""

import ctypes
import errno
import os
import re
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from collector.policies.install import ModeWord
from collector.policies.plan import Mechanism as M
from kernel.test_policy_overrides import load_module, opening, result_of
from support.modules import DUMMY, is_loaded, unload
from support.policies import host, plan_of

pytestmark = pytest.mark.kernel

SHADOW, PASSWD = Path("/etc/shadow"), Path("/usr/bin/passwd")
PAGE = Path(__file__).parents[2] / "docs" / "enforcement.md"
EXAMPLES = {
    text.partition("name: ")[2].partition("}")[0]: text
    for text in re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
}


@pytest.fixture(autouse=True)
def functions_can_be_hooked():
    """Guests run these: where fentry does not work no gate can stand behind it."""
    if reason := host().why_not(M.FENTRY, False) or host().why_not(M.FMOD_RET, False):
        pytest.skip(reason)


@pytest.fixture
def example(policies):
    """Return what enforces an example of the page in a block."""
    return lambda name, mode=ModeWord.ENFORCE: policies.loaded(plan_of(EXAMPLES[name]), mode)


@pytest.fixture
def allowed_reader():
    """A listed program that reads the file; a guest has neither, then they exist meanwhile."""
    made, command = [], [PASSWD, "-S", "root"]
    if not SHADOW.exists():
        SHADOW.write_text("root:*:20000:0:99999:7:::\n")
        made.append(SHADOW)
    if not PASSWD.exists():
        shutil.copy("/bin/cat", PASSWD)
        made.append(PASSWD)
        command = [PASSWD, SHADOW]
    yield command
    for one in made:
        one.unlink()


def test_only_listed_programs_open_the_file(example, allowed_reader):
    with example("shadow-is-for-login") as loaded:
        assert result_of(opening(SHADOW))[1] == errno.EACCES
        other_path = "/proc/self/root/etc/../etc/shadow"
        assert result_of(opening(other_path))[1] == errno.EACCES
        subprocess.run(allowed_reader, check=True, stdout=subprocess.DEVNULL)
        assert loaded.counts().override == 2
    with example("shadow-is-for-login", ModeWord.MONITOR):
        assert result_of(opening(SHADOW))[1] == 0


def init_module(path):
    """init_module(2): the module comes from memory."""
    number = {"x86_64": 175, "aarch64": 105}[os.uname().machine]
    image = path.read_bytes()
    if ctypes.CDLL(None, use_errno=True).syscall(number, image, ctypes.c_ulong(len(image)), b""):
        raise OSError(ctypes.get_errno(), "init_module")


def test_no_module_is_loaded(example):
    if not DUMMY.exists() or is_loaded("dummy"):
        pytest.skip("no module to load: guests have one")
    try:
        with example("no-modules"):
            for load in (load_module, init_module):
                assert result_of(lambda load=load: load(DUMMY))[1] == errno.EPERM
            assert not is_loaded("dummy")
        assert result_of(lambda: init_module(DUMMY))[1] == 0
    finally:
        if is_loaded("dummy"):
            unload("dummy")


def connecting(address):
    """Return what asks for a connection without waiting for it."""

    def connect():
        with socket.socket() as one:
            one.setblocking(False)
            one.connect((address, 9))

    return connect


def test_process_that_connects_to_the_network_is_killed(example):
    before = result_of(connecting("169.254.169.254"))[1]
    with example("no-metadata-service") as loaded:
        assert result_of(connecting("169.254.169.254"))[1] == -9
        assert result_of(connecting("127.0.0.1"))[1] in (errno.EINPROGRESS, errno.ECONNREFUSED)
        assert (loaded.counts().override, loaded.counts().signal) == (1, 1)
    assert before >= 0
    assert result_of(connecting("169.254.169.254"))[1] == before
