"""From desired policies to loaded ones, with a backend whose steps the test controls."""

import asyncio
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from collector.errors import VerifierError
from collector.policies.entry import Identity, Revision, State, Wanted
from collector.policies.files import Document
from collector.policies.manager import PolicyManager
from collector.policies.plan import HookState, HookStatus, Mechanism
from collector.policies.statistics import PolicyCounters, SelectorCounters
from collector.policies.table import EventKind, Hook, LoadedPolicy, PolicyTable
from tracingpolicy.model import Kprobe, Options, Policy
from tracingpolicy.position import Mistake, PolicyErrors
from tracingpolicy.selectors import LabelSelector
from tracingpolicy.values import Mode


@dataclass
class FakeInstallation:
    loaded: LoadedPolicy
    log: list[object]
    statuses: tuple[HookStatus, ...] = ()
    posted: int = 0
    losses: int = 0

    def switch(self, mode):
        self.log.append((self.loaded.name, self.loaded.revision, mode and mode.value))

    def counters(self):
        return PolicyCounters(selectors={(0, 0): SelectorCounters(posted=self.posted)})

    def lost(self):
        return Counter({"ring full": self.losses})

    async def remove(self):
        await asyncio.sleep(0)
        self.log.append((self.loaded.name, self.loaded.revision, "removed"))


@dataclass
class FakeBackend:
    log: list[object] = field(default_factory=list)
    fail: dict[str, Exception] = field(default_factory=dict)
    installed: list[FakeInstallation] = field(default_factory=list)
    statuses: tuple[HookStatus, ...] = ()

    async def prepare(self, policies):
        self.log.append(("prepare", [policy.name for policy in policies]))

    async def settle(self):
        self.log.append("settled")

    async def install(self, policy, number, revision):
        await asyncio.sleep(0)
        if error := self.fail.get(policy.name):
            raise error
        hooks = tuple(Hook(EventKind.KPROBE, function=one.call) for one in policy.kprobes)
        loaded = LoadedPolicy(number, revision, policy.name, policy.namespace, hooks=hooks)
        installation = FakeInstallation(loaded, self.log, self.statuses)
        self.installed.append(installation)
        self.log.append((policy.name, revision, "attached"))
        return installation


def parse(text, file):
    """A policy a word: NAME or NAME/FUNCTION or NAME/FUNCTION/MODE; "!" is a mistake."""
    if "!" in text:
        raise PolicyErrors([Mistake(file, 3, 7, "bad word")])
    name, function, mode = (text.split("#")[0].strip() + "//").split("/")[:3]
    return Policy(
        name=name,
        kprobes=(Kprobe(call=function or "fd_install", syscall=False),),
        options=Options(mode=Mode(mode) if mode else None),
        file=file,
    )


def parse_for_nodes(text, file):
    """The same with a selector of nodes: NAME@ZONE."""
    name, _, zone = text.partition("@")
    selector = LabelSelector(labels=(("zone", zone),)) if zone else None
    return replace(parse(name, file), node_selector=selector)


def documents(**texts):
    return [Document(Path(f"/p/{name}.yaml"), text) for name, text in texts.items()]


@pytest.fixture
def backend():
    return FakeBackend()


@pytest.fixture
def recorded():
    return []


@pytest.fixture
def manager(backend, recorded):
    return PolicyManager(backend, PolicyTable(), parse, recorded.append)


def states(manager):
    return {entry.identity.name: entry.state for entry in manager.entries}


async def test_policies_are_compiled_together_and_each_is_switched_on(manager, backend, recorded):
    await manager.set_documents(documents(a="one", b="two"))
    assert backend.log[0] == ("prepare", ["one", "two"])
    for name in ("one", "two"):
        steps = [one for one in backend.log[1:] if one[0] == name]
        assert steps == [(name, 1, "attached"), (name, 1, "enforce")]
    assert len(backend.log) == 5
    assert states(manager) == {"one": State.ENABLED, "two": State.ENABLED}
    assert [(p.number, p.revision, p.name) for p in recorded] == [(2, 1, "one"), (3, 1, "two")]
    assert [entry.file for entry in manager.entries] == ["/p/a.yaml", "/p/b.yaml"]


async def test_a_changed_file_replaces_its_policy_without_a_gap(manager, backend):
    await manager.set_documents(documents(a="one"))
    del backend.log[:]
    await manager.set_documents(documents(a="one/vfs_read/monitor"))
    assert backend.log == [
        ("prepare", ["one"]),
        ("one", 2, "attached"),
        ("one", 2, "monitor"),
        "settled",
        ("one", 1, None),
        ("one", 1, "removed"),
    ]
    (entry,) = manager.entries
    assert entry.number == 2
    assert entry.installation.loaded.revision == 2
    assert entry.mode is Mode.MONITOR


async def test_a_document_that_means_the_same_is_not_loaded_again(manager, backend):
    await manager.set_documents(documents(a="one"))
    del backend.log[:]
    await manager.set_documents(documents(a="one # a comment"))
    assert backend.log == []


async def test_a_policy_whose_name_changed_is_new_before_the_old_goes(manager, backend):
    await manager.set_documents(documents(a="one"))
    del backend.log[:]
    await manager.set_documents(documents(a="other"))
    assert backend.log[2:] == [("other", 1, "enforce"), ("one", 1, None), ("one", 1, "removed")]
    assert states(manager) == {"other": State.ENABLED}


async def test_a_bad_file_changes_nothing(manager, backend, capsys):
    await manager.set_documents(documents(a="one", b="two"))
    del backend.log[:]
    await manager.set_documents(documents(a="one!", b="two"))
    assert backend.log == []
    assert states(manager) == {"one": State.ENABLED, "two": State.ENABLED}
    assert manager.refused == [("/p/a.yaml", "/p/a.yaml:3:7: bad word")]
    printed = capsys.readouterr().out
    assert "/p/a.yaml:3:7: bad word" in printed
    await manager.set_documents(documents(a="one!", b="two"))  # reported once
    assert "bad word" not in capsys.readouterr().out
    await manager.set_documents(documents(a="one/vfs_read", b="two"))
    assert manager.refused == []
    assert manager.get(Identity("one")).installation.loaded.revision == 2


async def test_an_unreadable_file_keeps_its_policy_and_a_removed_one_does_not(manager, backend):
    await manager.set_documents(documents(a="one"))
    await manager.set_documents([Document(Path("/p/a.yaml"), "", "input/output error")])
    assert states(manager) == {"one": State.ENABLED}
    assert manager.refused == [("/p/a.yaml", "/p/a.yaml: input/output error")]
    await manager.set_documents([])
    assert manager.entries == []
    assert manager.refused == []
    assert backend.log[-2:] == [("one", 1, None), ("one", 1, "removed")]


async def test_a_policy_that_fails_leaves_the_others_alone(manager, backend):
    backend.fail["two"] = VerifierError("p", "fentry", 22, "R1 invalid mem access")
    await manager.set_documents(documents(a="one", b="two", c="three"))
    assert states(manager) == {
        "one": State.ENABLED,
        "two": State.LOAD_ERROR,
        "three": State.ENABLED,
    }
    assert "R1 invalid mem access" in manager.get(Identity("two")).error
    del backend.fail["two"]
    await manager.set_documents(documents(a="one", b="two/vfs_read", c="three"))
    assert states(manager)["two"] is State.ENABLED
    assert manager.get(Identity("two")).error == ""


async def test_an_unexpected_error_does_not_keep_others_from_being_loaded(manager, backend):
    backend.fail = {"p3": RuntimeError("unexpected")}
    with pytest.raises(RuntimeError, match="unexpected"):
        await manager.set_documents(documents(**{f"d{n}": f"p{n}" for n in range(70)}))
    found = states(manager)
    del found["p3"]
    assert len(found) == 69
    assert set(found.values()) == {State.ENABLED}


async def test_a_revision_that_fails_leaves_the_one_before(manager, backend):
    await manager.set_documents(documents(a="one"))
    del backend.log[:]
    backend.fail["one"] = PolicyErrors([Mistake("/p/a.yaml", 2, 1, "no such function")])
    await manager.set_documents(documents(a="one/nonsense"))
    assert backend.log == [("prepare", ["one"])]
    entry = manager.get(Identity("one"))
    assert entry.state is State.ENABLED
    assert entry.installation.loaded.hooks[0].function == "fd_install"
    assert entry.error == "/p/a.yaml:2:1: no such function"


async def test_a_policy_for_other_nodes_is_skipped(backend):
    labels = {"zone": "here", "kubernetes.io/os": "linux"}
    manager = PolicyManager(backend, PolicyTable(), parse_for_nodes, labels=labels)
    await manager.set_documents(documents(a="one@here", b="two@there", c="three@there"))
    assert states(manager) == {"one": State.ENABLED, "two": State.SKIPPED, "three": State.SKIPPED}
    assert backend.log[0] == ("prepare", ["one"])
    await manager.set_documents(documents(a="one@there", b="two@here", c="three@there"))
    assert states(manager) == {"one": State.SKIPPED, "two": State.ENABLED, "three": State.SKIPPED}
    assert ("one", 1, None) in backend.log
    await manager.set_documents(documents(b="two"))
    assert states(manager) == {"two": State.ENABLED}


async def test_a_policy_of_the_fleet_for_other_nodes_is_skipped(backend):
    manager = PolicyManager(backend, PolicyTable(), parse_for_nodes, labels={"zone": "here"})
    names = {zone: Identity(zone, "", "grpc") for zone in ("here", "there")}
    revisions = {
        zone: Revision(1, parse_for_nodes(f"{zone}@{zone}", ""), mode=Mode.MONITOR)
        for zone in names
    }
    await manager.apply([Wanted(names[zone], None, revisions[zone]) for zone in names])
    prepared = {zone: manager.get(name).prepared for zone, name in names.items()}
    assert {zone: one.error for zone, one in prepared.items()} == {"here": "", "there": ""}
    assert [one.loaded.name for one in backend.installed] == ["here"]
    await manager.apply([Wanted(names[zone], revisions[zone]) for zone in names])
    assert states(manager) == {"here": State.ENABLED, "there": State.SKIPPED}


async def test_one_name_in_two_files_is_the_first_file(manager, backend):
    await manager.set_documents(documents(a="one", b="one/vfs_read"))
    (entry,) = manager.entries
    assert entry.file == "/p/a.yaml"
    assert manager.refused == [("/p/b.yaml", "/p/b.yaml: policy one is also in /p/a.yaml")]
    await manager.set_documents(documents(b="one/vfs_read"))
    (entry,) = manager.entries
    assert entry.file == "/p/b.yaml"
    assert entry.installation.loaded.revision == 2
    assert manager.refused == []


async def test_one_name_in_a_file_and_in_the_fleet_is_named_once(manager, backend, capsys):
    await manager.set_documents([Document(Path("/p/a"), "one"), Document(Path("/p/b"), "two")])
    assert "loaded twice" not in capsys.readouterr().out
    identity = Identity("one", domain="grpc")
    for number in (1, 2):
        wanted = Wanted(identity, Revision(number, parse("one", "")))
        await manager.apply([wanted])
    printed = capsys.readouterr().out
    assert printed.count("policy loaded twice: what both match is reported twice") == 1
    assert "policy=grpc:one" in printed
    assert "other=static:one" in printed
    assert "file=/p/a" in printed


async def test_missing_functions_make_a_policy_partially_enabled(manager, backend):
    hook = Kprobe(call="x", syscall=False)
    backend.statuses = (
        HookStatus(hook=hook, state=HookState.LOADED, mechanisms=(Mechanism.FENTRY,)),
        HookStatus(hook=hook, state=HookState.CALL_NOT_FOUND),
    )
    await manager.set_documents(documents(a="one"))
    assert states(manager) == {"one": State.PARTIALLY_ENABLED}


async def test_counters_continue_over_revisions(manager, backend):
    await manager.set_documents(documents(a="one"))
    backend.installed[0].posted = 5
    await manager.set_documents(documents(a="one/vfs_read"))
    backend.installed[1].posted = 3
    assert manager.get(Identity("one")).counters().total.posted == 8


async def test_numbers_of_an_earlier_collector_are_not_used_again(backend):
    table = PolicyTable()
    table.add(LoadedPolicy(7, 4, "one"))
    manager = PolicyManager(backend, table, parse)
    await manager.set_documents(documents(a="one"))
    assert manager.entries[0].installation.loaded.key == (8, 1)


async def test_close_detaches_every_program(manager, backend):
    await manager.set_documents(documents(a="one", b="two"))
    del backend.log[:]
    await manager.close()
    assert backend.log == [
        ("one", 1, None),
        ("one", 1, "removed"),
        ("two", 1, None),
        ("two", 1, "removed"),
    ]
    assert manager.entries == []


def test_counters_add_up():
    one = PolicyCounters(3, {(0, 0): SelectorCounters(1, 2, 3, 4, 5)}, memory_bytes=9, runs=1)
    two = replace(one, memory_bytes=5)
    assert (one + two).filtered == 6
    assert (one + two).total == SelectorCounters(2, 4, 6, 8, 10)
    assert (one + two).memory_bytes == 5
    assert (one + two).runs == 2


async def test_seconds_without_a_collector_are_counted_once(monkeypatch):
    """Only of a policy that an earlier collector had, and from its end on."""
    monkeypatch.setattr("collector.policies.lifecycle.time.time", lambda: 1030.0)
    table = PolicyTable()
    table.restore([LoadedPolicy(2, 1, "a"), LoadedPolicy(3, 1, "gone")])
    table.all_off_since(1000.0)
    manager = PolicyManager(FakeBackend(), table, parse)
    for text in ("a/f", "a/g"):
        await manager.set_documents([Document(Path("a"), text), Document(Path("new"), "new/f")])
    assert table.inactive_s == {("a", ""): 30.0}
