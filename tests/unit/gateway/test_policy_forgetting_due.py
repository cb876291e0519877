"""Which deleted policies are due to leave the bucket."""

from bus.policies import Key
from gateway.policies import forget
from gateway.policies.forget import KEEP_LEAST_S, KEEP_S, due
from gateway.policies.stored import Stored
from tetra.v1.policies_pb2 import PolicyCandidate, PolicySpec, StoredPolicy

NOW_S = 10 * KEEP_S


def stored(age_s, **fields):
    options = {name: fields.pop(name) for name in ("damaged", "expires") if name in fields}
    return Stored(7, StoredPolicy(**fields), stored_ns=int((NOW_S - age_s) * 1e9), **options)


def names(kept):
    return [key.name for key, _ in due({Key(name): one for name, one in kept.items()}, NOW_S)]


DELETED = PolicySpec(revision=2, deleted=True)


def test_only_policies_deleted_long_ago_are_due():
    old_s = KEEP_S + 1
    assert names({
        "deleted": stored(old_s, current=DELETED),
        "deleted recently": stored(KEEP_S - 1, current=DELETED),
        "disabled": stored(old_s, current=PolicySpec(revision=2)),
        "canary": stored(old_s, current=DELETED, candidate=PolicyCandidate()),
        "never loaded": stored(KEEP_LEAST_S + 1),
        "refused recently": stored(KEEP_LEAST_S - 1),
        "forgotten": stored(old_s, expires=True),
        "damaged": stored(old_s, current=DELETED, damaged=True),
    }) == ["deleted", "never loaded"]  # fmt: skip


def test_above_the_limit_the_oldest_are_due_after_an_hour(monkeypatch):
    monkeypatch.setattr(forget, "MOST_KEPT", 2)
    kept = {str(hours): stored(hours * 3600, current=DELETED) for hours in (9, 2, 5, 3, 0.5)}
    assert names(kept) == ["9", "5", "3"]
    kept["0.1"] = stored(360, current=DELETED)
    assert names(kept) == ["9", "5", "3", "2"]
    kept |= {f"0.{n}": stored(n * 60, current=DELETED) for n in range(2, 9)}
    assert names(kept) == ["9", "5", "3", "2"]
