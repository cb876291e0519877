"""State stays in folders and files that are our own."""

import os

import pytest

from chassis import folders
from chassis.errors import ServiceError

OTHER = 12345


@pytest.fixture
def folder(tmp_path):
    own = tmp_path / "state"
    folders.make_own(own)
    return own


def test_folder_is_created_for_its_owner_only(folder):
    assert folder.stat().st_mode & 0o777 == 0o700
    folders.write_own(folder / "secret", "one")
    folders.write_own(folder / "secret", "2")
    assert (folder / "secret").read_text() == "2"
    assert (folder / "secret").stat().st_mode & 0o777 == 0o600
    folders.make_own(folder)  # as the next start does


@pytest.mark.parametrize("append", [False, True])
def test_link_is_not_followed(folder, tmp_path, append):
    target = tmp_path / "target"
    target.write_text("untouched")
    (folder / "secret").symlink_to(target)
    with pytest.raises(ServiceError, match="secret: is a link"):
        folders.open_own(folder / "secret", append=append)
    with pytest.raises(ServiceError, match="secret: is a link"):
        folders.make_own(folder)
    assert target.read_text() == "untouched"


def test_second_name_of_another_file_is_refused(folder, tmp_path):
    target = tmp_path / "target"
    target.write_text("untouched")
    os.link(target, folder / "secret")
    with pytest.raises(ServiceError, match="not a file of this folder alone"):
        folders.write_own(folder / "secret", "x")
    assert target.read_text() == "untouched"


def test_link_in_the_place_of_the_folder_is_refused(folder, tmp_path):
    (tmp_path / "link").symlink_to(folder)
    with pytest.raises(ServiceError, match="link: is a link"):
        folders.make_own(tmp_path / "link")


def test_folder_that_others_may_change_is_refused(folder):
    folder.chmod(0o770)
    with pytest.raises(ServiceError, match="others may change it: chmod go-w"):
        folders.make_own(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
@pytest.mark.parametrize("what", ["folder", "file"])
def test_files_of_another_user_are_rejected(folder, what):
    file = folder / "nats.password"
    file.write_text("")
    os.chown(folder if what == "folder" else file, OTHER, OTHER)
    with pytest.raises(ServiceError, match=f"belongs to user {OTHER}, not to root"):
        folders.make_own(folder)
