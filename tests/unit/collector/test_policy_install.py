"""Policies that are installed together: an error of one, and of the machine, and a late cancel."""

import asyncio
import errno
import os
import threading
from contextlib import suppress
from types import SimpleNamespace

import pytest

from chassis.errors import ServiceError
from collector.bpf import maps, programs
from collector.bpf.programs import Kind, Program, ProgramSpec
from collector.policies import backend as backends
from collector.policies.backend import KernelBackend
from collector.policies.dispatch import Dispatcher
from collector.policies.enforcement import Enforcement
from collector.policies.gates import Gates, _Gate
from collector.policies.install import Installed, SharedMaps, install_together
from collector.policies.ready import Ready

TIMEOUT_S = 3  # of what never takes so long, unless it never ends
SPECS = [ProgramSpec(f"p{n}", Kind.RAW_TRACEPOINT, b"") for n in range(16)]


def full_disk():
    return OSError(errno.ENOSPC, "no space")


class FakeInstalled(Installed):
    """Counts its ends."""

    closed = 0

    def close(self):
        self.closed += 1


@pytest.fixture
def installed(monkeypatch):
    """What was installed, by the policy's number."""
    found = {}

    def steps(translation, codes, shared, *, slot, policy, revision):
        yield from ()
        found[policy] = FakeInstalled()
        return found[policy]

    monkeypatch.setattr(backends, "install_steps", steps)
    monkeypatch.setattr(
        backends, "loaded_policy", lambda plan, number, revision: (number, revision)
    )
    return found


@pytest.fixture
def backend(installed):
    shared = SimpleNamespace(
        images=SimpleNamespace(enter_running=lambda: None),
        set_mode=lambda slot, mode: None,
        keep=lambda slot, one: None,
        lost=lambda slot: {},
    )
    return KernelBackend(None, shared, None, None)


def ready(name, *, acting=False):
    plan = SimpleNamespace(policy=SimpleNamespace(name=name), statuses=())
    return Ready(plan, SimpleNamespace(acting=acting), {})


async def load_all(backend, *policies):
    loads = (backend._load(one, number, 1) for number, one in enumerate(policies))
    return await asyncio.wait_for(asyncio.gather(*loads, return_exceptions=True), TIMEOUT_S)


def free(backend):
    return set(backend._slots._free)


async def test_an_unexpected_error_before_the_steps_is_of_one_policy(backend, installed):
    def set_mode(slot, mode):
        if slot == 1:
            raise full_disk()

    backend.shared.set_mode = set_mode
    one, two, three = await load_all(backend, ready("a"), ready("b"), ready("c"))
    assert (one.loaded, three.loaded) == ((0, 1), (2, 1))
    assert isinstance(two, ServiceError)
    assert str(two) == "install: OSError: [Errno 28] no space"
    assert installed.keys() == {0, 2}
    assert 1 in free(backend)
    assert not {0, 2} & free(backend)


async def test_an_unexpected_error_behind_the_steps_detaches_one_policy(backend, installed):
    kept = {}

    def keep(slot, one):
        kept[slot] = one
        if slot == 1 and one is not None:
            raise full_disk()

    backend.shared.keep = keep
    policies = [ready(name, acting=True) for name in "abc"]
    one, two, three = await load_all(backend, *policies)
    assert (one.loaded, three.loaded) == ((0, 1), (2, 1))
    assert isinstance(two, ServiceError)
    assert [made.closed for made in installed.values()] == [0, 1, 0]
    assert kept == {0: installed[0], 1: None, 2: installed[2]}


async def test_a_revision_that_comes_during_a_failure_is_installed(backend, monkeypatch):
    running, come = threading.Event(), threading.Event()

    def fail(*_):
        monkeypatch.setattr(backends, "install_together", install_together)
        running.set()
        assert come.wait(TIMEOUT_S)
        raise MemoryError

    monkeypatch.setattr(backends, "install_together", fail)
    first = asyncio.create_task(load_all(backend, ready("a")))
    assert await asyncio.to_thread(running.wait, TIMEOUT_S)
    second = asyncio.create_task(load_all(backend, ready("b")))
    await asyncio.sleep(0)
    come.set()
    (failed,), (made,) = await asyncio.gather(first, second)
    assert isinstance(failed, ServiceError)
    assert made.loaded == (0, 1)
    assert backend._installing is None


async def test_a_load_without_a_thread_fails_and_nothing_of_it_runs_later(
    backend, installed, monkeypatch
):
    def refuse(_):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as limited:
        limited.setattr(threading.Thread, "start", refuse)
        (failed,) = await load_all(backend, ready("a"))
    assert isinstance(failed, ServiceError)
    assert str(failed) == "install: RuntimeError: can't start new thread"
    nothing, made = await load_all(backend, ready("b"), ready("c"))
    assert (nothing.loaded, made.loaded) == ((0, 1), (1, 1))
    assert len(installed) == 2


async def test_a_cancel_behind_the_installation_removes_it(backend, installed):
    backend._installing = asyncio.current_task()  # this test installs
    load = asyncio.create_task(backend._load(ready("a"), 0, 1))
    await asyncio.sleep(0)
    slot = backend._waiting[0].slot
    await backend._install_waiting()
    load.cancel()
    with pytest.raises(asyncio.CancelledError):
        await load
    assert installed[0].closed == 1
    assert slot in free(backend)


async def test_a_slot_is_in_use_until_a_cancelled_load_is_detached(backend, monkeypatch):
    running, cancelled, used = threading.Event(), threading.Event(), []

    class Watched(FakeInstalled):
        def close(self):
            used.append(0 not in free(backend))

    def steps(*_, **__):
        yield from ()
        running.set()
        assert cancelled.wait(TIMEOUT_S)
        return Watched()

    monkeypatch.setattr(backends, "install_steps", steps)
    load = asyncio.create_task(backend._load(ready("a"), 0, 1))
    assert await asyncio.to_thread(running.wait, TIMEOUT_S)
    load.cancel()
    with suppress(asyncio.CancelledError):
        await load
    installing = backend._installing
    cancelled.set()
    await installing
    assert used == [True]
    assert 0 in free(backend)


def test_an_error_of_all_leaves_nothing_of_any(monkeypatch):
    done, ended = FakeInstalled(), []

    def at_once():
        yield from ()
        return done

    def waiting(number):
        try:
            yield SPECS[number]
        finally:
            ended.append(number)

    def fail(*_):
        raise MemoryError

    monkeypatch.setattr(programs, "load_all", fail)
    with pytest.raises(MemoryError) as caught:
        install_together([at_once(), waiting(0), waiting(1)], SimpleNamespace())
    del caught  # its traceback holds the generators
    assert done.closed == 1
    assert sorted(ended) == [0, 1]


# --- programs of several threads


@pytest.fixture
def loaded(monkeypatch):
    """The names of the programs that were loaded, on a machine with four CPUs."""
    found = []

    def load(spec):
        found.append(spec.name)
        return Program(-1, spec.name, spec.kind)

    monkeypatch.setattr(programs, "load", load)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(4)))
    return found


@pytest.mark.parametrize("limit", [0, 1, 9])
def test_programs_are_loaded_once_with_any_limit_of_threads(loaded, monkeypatch, limit):
    start, left = threading.Thread.start, list(range(limit))

    def limited(self):
        if not left:
            raise RuntimeError("can't start new thread")
        left.pop()
        start(self)

    monkeypatch.setattr(threading.Thread, "start", limited)
    found = programs.load_all(SPECS, lambda: None)
    assert [one.name for one in found] == [spec.name for spec in SPECS]
    assert sorted(loaded) == sorted(spec.name for spec in SPECS)


def test_an_unexpected_error_leaves_no_program(loaded, monkeypatch):
    closed, load = [], programs.load

    def load_most(spec):
        if spec is SPECS[5]:
            raise MemoryError
        return load(spec)

    monkeypatch.setattr(programs, "load", load_most)
    monkeypatch.setattr(Program, "close", lambda self: closed.append(self.name))
    with pytest.raises(MemoryError):
        programs.load_all(SPECS, lambda: None)
    assert sorted(closed) == sorted(loaded)


# --- what the installing thread shares with others


class FakeMap(SimpleNamespace):
    def close(self):
        self.closed = True

    def update(self, key, value):
        assert not self.closed


class FakeLock:
    held = False

    def __enter__(self):
        self.held = True

    def __exit__(self, *error):
        self.held = False


def test_signals_are_reset_while_enforcement_starts(monkeypatch):
    enforcement, made = Enforcement(), []

    def create(spec):
        enforcement.reset_signals(3)  # as another thread does
        made.append(FakeMap(closed=False))
        return made[-1]

    monkeypatch.setattr(maps, "create", create)
    enforcement.start()
    assert enforcement.active
    enforcement.reset_signals(3)
    assert list(enforcement.maps.values()) == made


def test_enforcement_that_cannot_start_leaves_no_map(monkeypatch):
    enforcement, made = Enforcement(), []

    def create(spec):
        if len(made) == 2:
            raise full_disk()
        made.append(FakeMap(closed=False))
        return made[-1]

    monkeypatch.setattr(maps, "create", create)
    with pytest.raises(OSError, match="no space"):
        enforcement.start()
    assert not enforcement.active
    assert [one.closed for one in made] == [True, True]


@pytest.mark.parametrize("refused", ["programs", "processes"])
def test_enforcement_that_cannot_spare_leaves_no_map(monkeypatch, refused):
    programs = frozenset({("sshd", 0)} if refused == "programs" else ())
    enforcement, made = Enforcement(find_spared=lambda: {1: 1}, programs=programs), []

    class FullMap(FakeMap):
        def update(self, key, value):
            raise full_disk()

    def create(spec):
        made.append(FullMap(closed=False))
        return made[-1]

    monkeypatch.setattr(maps, "create", create)
    with pytest.raises(OSError, match="no space"):
        enforcement.start()
    assert not enforcement.active
    assert made
    assert all(one.closed for one in made)


class NoteKept:
    """Lets another thread try to close descriptors while they are given names."""

    def __init__(self, close):
        self.close, self.closed_meanwhile = close, None

    def keep(self, wanted):
        closing = threading.Thread(target=self.close)
        closing.start()
        closing.join(0.2)
        self.closed_meanwhile = not closing.is_alive()
        self.closing = closing


@pytest.mark.parametrize("part", ["dispatcher", "gate"])
def test_descriptors_stay_open_while_they_are_given_names(part):
    link = SimpleNamespace(fd=7, close=lambda: None)
    array = SimpleNamespace(fd=5, delete=lambda key: None)
    dispatcher = Dispatcher(array, array, array, memoryview(bytearray(1 << 16)))
    dispatcher._attached[False] = link, link
    dispatcher._used[False, 3] = {0}
    gates = Gates({(Kind.FMOD_RET, 9): _Gate(link, link, 1)})
    if part == "dispatcher":
        kept = NoteKept(lambda: dispatcher.remove(3, 0, at_return=False))
    else:
        kept = NoteKept(lambda: gates.release(Kind.FMOD_RET, 9))
    shared = SharedMaps(
        {}, dispatcher, None, None, {}, memoryview(b""),
        enforcement=Enforcement(gates=gates, kept=kept),
    )  # fmt: skip
    shared.keep(1, Installed())
    assert kept.closed_meanwhile is False
    kept.closing.join(TIMEOUT_S)
    assert not kept.closing.is_alive()


def test_what_is_attached_is_read_under_the_lock():
    lock = FakeLock()

    class Attached(dict[bool, object]):
        def items(self):
            assert lock.held
            return super().items()

    array = SimpleNamespace(fd=5)
    attached = Attached({True: (None, SimpleNamespace(fd=7))})
    dispatcher = Dispatcher(array, array, array, memoryview(b""), lock=lock, _attached=attached)
    assert dispatcher.kept() == {"sys-exit": 7, "sys-enter-jumps": 5, "sys-exit-jumps": 5}
    assert not lock.held
