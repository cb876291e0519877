"""Policy documents on disk: which files count, and how soon a change is seen."""

import asyncio
import os

import pytest

from collector.policies.files import LARGEST_BYTES, PolicyFiles


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "tetragon.tp.d"
    folder.mkdir()
    return folder


def names(documents):
    return [document.path.name for document in documents]


async def until(changes, check):
    """Return the first documents for which ``check`` holds."""
    async with asyncio.timeout(10):
        async for documents in changes:
            if check(documents):
                return documents
    raise AssertionError("no more changes")


def test_files_of_the_folder_and_of_its_sub_folders_by_name(folder, tmp_path):
    (folder / "b.yaml").write_text("b")
    (folder / "a").write_text("a")
    (folder / "sub").mkdir()
    (folder / "sub" / "c.json").write_text("c")
    (folder / "sub" / "deep").mkdir()
    (folder / "sub" / "deep" / "d.yaml").write_text("d")
    (folder / ".hidden").write_text("x")
    (folder / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").write_text("e")
    (folder / "broken").symlink_to(tmp_path / "nothing")
    os.mkfifo(folder / "fifo")
    (tmp_path / "single.yaml").write_text("s")
    documents = PolicyFiles(folder, [tmp_path / "single.yaml"]).documents()
    assert names(documents) == ["a", "b.yaml", "link", "c.json", "single.yaml"]
    assert [document.text for document in documents] == ["a", "b", "e", "c", "s"]


def test_a_volume_of_kubernetes_has_each_file_once(folder):
    version = folder / "..2026_11_27"
    version.mkdir()
    (version / "p.yaml").write_text("one")
    (folder / "..data").symlink_to(version)
    (folder / "p.yaml").symlink_to("..data/p.yaml")
    assert names(PolicyFiles(folder).documents()) == ["p.yaml"]


def test_unreadable_file_has_a_reason(folder, tmp_path):
    (folder / "binary").write_bytes(b"a\xff")
    (folder / "large").write_bytes(b" " * (LARGEST_BYTES + 1))
    documents = PolicyFiles(folder, [tmp_path / "missing.yaml"]).documents()
    assert [document.error for document in documents] == [
        "byte 1 is not UTF-8",
        "larger than 1048576 bytes",
        "no such file or directory",
    ]


def test_a_missing_folder_is_empty(tmp_path):
    assert PolicyFiles(tmp_path / "nothing").documents() == ()


async def test_changes_are_seen_by_events(folder, monkeypatch):
    monkeypatch.setattr("collector.policies.files._LOOK_EVERY_S", 3600)
    changes = PolicyFiles(folder).changes()
    assert await until(changes, lambda _: True) == ()
    (folder / "a.yaml").write_text("1")
    found = await until(changes, names)
    assert found[0].text == "1"
    (folder / "a.yaml").write_text("22")
    await until(changes, lambda documents: documents[0].text == "22")
    (folder / "new").write_text("333")
    (folder / "new").rename(folder / "a.yaml")
    await until(changes, lambda d: names(d) == ["a.yaml"] and d[0].text == "333")
    (folder / "sub").mkdir()
    (folder / "sub" / "b.yaml").write_text("b")
    await until(changes, lambda d: names(d) == ["a.yaml", "b.yaml"])
    (folder / "sub" / "b.yaml").write_text("bb")
    await until(changes, lambda d: d[1].text == "bb")
    (folder / "a.yaml").unlink()
    await until(changes, lambda d: names(d) == ["b.yaml"])
    await changes.aclose()


async def test_a_folder_created_later_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr("collector.policies.files._LOOK_EVERY_S", 3600)
    changes = PolicyFiles(tmp_path / "later", [tmp_path / "x" / "p.yaml"]).changes()
    first = await until(changes, lambda _: True)
    assert [document.error for document in first] == ["no such file or directory"]
    (tmp_path / "later").mkdir()
    (tmp_path / "later" / "a.yaml").write_text("a")
    await until(changes, lambda d: names(d) == ["a.yaml", "p.yaml"])
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "p.yaml").write_text("p")
    await until(changes, lambda d: d[-1].text == "p")
    await changes.aclose()


async def test_changes_without_events_are_found_by_looking(folder, monkeypatch):
    monkeypatch.setattr("collector.policies.files._LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(PolicyFiles, "_watch", lambda self, inotify: None)
    changes = PolicyFiles(folder).changes()
    assert await until(changes, lambda _: True) == ()
    (folder / "a.yaml").write_text("1")
    await until(changes, names)
    await changes.aclose()


async def test_a_file_that_is_being_written_is_not_read(folder):
    changes = PolicyFiles(folder).changes()
    await until(changes, lambda _: True)
    seen = []

    async def follow():
        async for documents in changes:
            seen.append(documents[0].text)
            if documents[0].text.endswith("end"):
                return

    task = asyncio.create_task(follow())
    with (folder / "a.yaml").open("w") as file:
        for number in range(20):
            file.write(f"{number}\n")
            file.flush()
            await asyncio.sleep(0.03)
        file.write("end")
    async with asyncio.timeout(10):
        await task
    assert seen == ["\n".join(map(str, range(20))) + "\nend"]
    await changes.aclose()


async def test_the_same_text_again_is_no_change(folder):
    (folder / "a.yaml").write_text("a")
    changes = PolicyFiles(folder).changes()
    await until(changes, names)
    os.utime(folder / "a.yaml", ns=(1, 1))
    (folder / "b.yaml").write_text("b")
    assert names(await until(changes, lambda _: True)) == ["a.yaml", "b.yaml"]
    await changes.aclose()
