"""The process table follows the rules of its reference counts, in any order of records."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from collector.processes.table import KERNEL_KEY, Image, Process, ProcessTable, forked_from

GRACE_S = 30.0


def root():
    return Process(0, KERNEL_KEY[1], KERNEL_KEY, 4, 1, False, Image("<kernel>"))


def started(capacity=10_000, **options):
    """Return a table with the kernel and pid 1 in it."""
    cache = ProcessTable(capacity=capacity, grace_s=GRACE_S, **options)
    cache.add(root(), 0.0)
    first = Process(1, 10, KERNEL_KEY, 4, 10, False, Image("/sbin/init"))
    cache.add(first, 0.0)
    cache.adopt(first)
    return cache, first


def fork(cache, parent, pid, ktime):
    child = forked_from(
        parent, pid=pid, ktime_ns=ktime, flags=0x4000, start_time_ns=ktime, start_boottime_ns=ktime
    )
    cache.fork(child, ktime / 1e9)
    return child


def exec_(cache, parent_key, pid, ktime, replaced, binary="/bin/x"):
    image = Process(pid, ktime, parent_key, 1, ktime, False, Image(binary))
    cache.exec(image, replaced, ktime / 1e9)
    return image


def test_a_fork_that_execs_leaves_one_image():
    cache, first = started()
    child = fork(cache, first, 5, 100)
    image = exec_(cache, first.key, 5, 101, 100)
    assert cache.living(5) is image
    assert cache.parent_of(image) is first
    assert first.references == 2
    cache.collect(child.ktime_ns / 1e9 + GRACE_S + 1)
    assert cache.get(child.key) is None
    cache.exit(image.key, 0.0)
    assert (image.references, first.references) == (0, 1)
    assert cache.living(5) is None


def test_the_return_of_an_execve_finds_the_fork_that_called_it():
    cache, first = started()
    child = fork(cache, first, 5, 100)
    exec_(cache, first.key, 5, 101, 100)
    assert cache.get(child.key) is child
    assert cache.parent_of(child) is first


def test_forks_that_execd_are_bounded_in_a_storm():
    cache, first = started()
    for pid in range(2, 2000):
        fork(cache, first, pid, pid * 10)
        exec_(cache, first.key, pid, pid * 10 + 1, pid * 10)
    assert len(cache) == 2 + 1998 + 256
    cache.collect(GRACE_S + 1)
    assert len(cache) == 2 + 1998
    assert cache.statistics.evictions == 0


def test_a_dead_parent_stays_while_a_child_refers_to_it():
    cache, first = started()
    parent = exec_(cache, first.key, 5, 100, 0)
    child = fork(cache, parent, 6, 101)
    cache.exit(parent.key, 1.0)
    cache.collect(1000.0)
    assert cache.parent_of(child) is parent
    cache.exit(child.key, 1000.0)
    cache.collect(1000.0 + GRACE_S - 1)
    assert cache.get(parent.key) is parent
    cache.collect(1000.0 + GRACE_S + 1)
    assert cache.get(parent.key) is cache.get(child.key) is None
    assert len(cache) == 2


def test_a_placeholder_with_a_child_stays_for_it():
    cache, first = started()
    placeholder = fork(cache, first, 5, 100)
    child = fork(cache, placeholder, 6, 101)
    exec_(cache, first.key, 5, 102, 100)
    assert cache.parent_of(child) is placeholder


def test_a_full_table_evicts_processes_without_children_and_counts_them():
    cache, first = started(capacity=64)
    for pid in range(2, 200):
        exec_(cache, first.key, pid, pid * 10, 0)
    assert len(cache) == 64
    assert cache.statistics.evictions == 2 + 198 - 64
    assert cache.get(first.key) is first
    assert cache.get(KERNEL_KEY) is not None


def test_released_entries_are_bounded_in_a_storm():
    cache, first = started(released_max=100)
    for pid in range(2, 5000):
        image = exec_(cache, first.key, pid, pid * 10, 0)
        cache.exit(image.key, 0.0)
    assert len(cache) == 102
    assert cache.statistics.evictions == 0


class Lives(RuleBasedStateMachine):
    """Forks, execs, exits and time, against what the rules say of each image."""

    def __init__(self):
        super().__init__()
        self.cache, first = started()
        self.alive = {1: first.key}
        self.refers = {first.key: KERNEL_KEY}  # living image: its parent
        self.now_ns = 1000
        self.next_pid = 2

    def tick(self):
        self.now_ns += 1_000_000_000
        return self.now_ns

    @rule(data=st.data())
    def fork(self, data):
        pid = data.draw(st.sampled_from(sorted(self.alive)))
        parent = self.cache.get(self.alive[pid])
        child = fork(self.cache, parent, self.next_pid, self.tick())
        self.alive[child.pid] = child.key
        self.refers[child.key] = parent.key
        self.next_pid += 1

    @rule(data=st.data())
    def exec(self, data):
        pid = data.draw(st.sampled_from(sorted(self.alive)))
        old = self.alive[pid]
        clone = self.cache.get(old).is_clone
        parent = self.refers[old] if clone else old
        image = exec_(self.cache, parent, pid, self.tick(), old[1])
        del self.refers[old]
        self.alive[pid] = image.key
        self.refers[image.key] = parent

    @precondition(lambda self: len(self.alive) > 1)
    @rule(data=st.data())
    def exit(self, data):
        pid = data.draw(st.sampled_from(sorted(p for p in self.alive if p != 1)))
        key = self.alive.pop(pid)
        self.cache.exit(key, self.tick() / 1e9)
        del self.refers[key]

    @rule(seconds=st.integers(1, 60))
    def wait(self, seconds):
        self.now_ns += seconds * 1_000_000_000
        self.cache.collect(self.now_ns / 1e9)

    @invariant()
    def counts_are_right(self):
        held = {}
        for parent in self.refers.values():
            held[parent] = held.get(parent, 0) + 1
        for pid, key in self.alive.items():
            process = self.cache.get(key)
            assert process is not None
            assert not process.ended
            assert process.references == 1 + held.get(key, 0)
            assert self.cache.living(pid) is process
            assert self.cache.parent_of(process) is not None
        for process in self.cache:
            if process.ended:
                assert process.references == held.get(process.key, 0)
        assert self.cache.statistics == type(self.cache.statistics)()


TestLives = Lives.TestCase
TestLives.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
