"""The comparison of two hosts' events: it ignores names, and nothing else."""

import json

import pytest

from vm import compare


def life(pid, parent, binary, **more):
    process = {
        "exec_id": f"id-{pid}",
        "pid": pid,
        "tid": pid,
        "parent_exec_id": f"id-{parent}",
        "binary": binary,
        "start_time": f"2026-01-01T00:00:{pid % 60:02}Z",
        **more,
    }
    return {"process_exec": {"process": process}, "node_name": f"host-{pid}", "time": str(pid)}


def folder(path, events, lines=("🚀 process 1: root: /bin/sh",)):
    path.mkdir()
    (path / "events.json").write_text("".join(json.dumps(event) + "\n" for event in events))
    (path / "lines.txt").write_text("".join(f"{line}\n" for line in lines))
    return path


HERE = [life(10, 1, "/bin/sh"), life(11, 10, "/bin/true"), life(12, 10, "/bin/false")]


def test_events_are_equal_up_to_pids_times_and_names(tmp_path):
    there = [life(70, 3, "/bin/sh"), life(75, 70, "/bin/true"), life(79, 70, "/bin/false")]
    lines = ["🚀 process 70: root: /bin/sh"]
    assert not compare.difference(
        folder(tmp_path / "a", HERE), folder(tmp_path / "b", there, lines)
    )


@pytest.mark.parametrize(
    ("there", "line"),
    [
        ([*HERE[:2], life(12, 11, "/bin/false")], "parent_exec_id"),  # another parent
        ([*HERE[:2], life(12, 10, "/bin/false", cwd="/")], "cwd"),  # a field too many
        ([*HERE[:2], life(12, 10, "/bin/true")], "binary"),
        ([HERE[0], HERE[2], HERE[1]], "binary"),  # another order
        (HERE[:2], "binary"),  # one missing
        ([], "binary"),
    ],
)
def test_any_other_difference_is_reported(tmp_path, there, line):
    found = compare.difference(folder(tmp_path / "a", HERE), folder(tmp_path / "b", there))
    assert any(line in difference for difference in found)


def test_rendered_lines_are_compared(tmp_path):
    there = folder(tmp_path / "b", HERE, ["🚀 process 1: 0: /bin/sh"])
    assert compare.difference(folder(tmp_path / "a", HERE), there)


def test_two_empty_recordings_prove_nothing(tmp_path):
    nothing = [folder(tmp_path / name, [], ()) for name in "ab"]
    assert compare.difference(*nothing) == ["no events"]
