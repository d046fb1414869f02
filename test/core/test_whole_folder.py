"""Folders are there whole or not at all, and nothing is left of processes that were killed."""

import pytest

from syncl_core.io import folder_lock
from syncl_core.io.folder_lock import locked
from syncl_core.io.whole_folder import whole_folder


@pytest.fixture
def leftover(tmp_path):
    (tmp_path / ".data.partial-1").mkdir()
    (tmp_path / ".data.partial-1" / "half").write_text("of a process that was killed")
    return tmp_path / ".data.partial-1"


def _names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_it_appears_when_it_is_complete(tmp_path, leftover):
    folder = tmp_path / "deep" / "data"
    with whole_folder(folder) as partial:
        (partial / "a").write_text("a")
        assert not folder.exists()
    assert _names(folder) == ["a"] and _names(folder.parent) == ["data"]
    assert leftover.exists()  # of another folder


def test_nothing_is_left_of_a_failure(tmp_path):
    with pytest.raises(ZeroDivisionError), whole_folder(tmp_path / "data") as partial:
        (partial / "a").write_text("a")
        raise ZeroDivisionError
    assert _names(tmp_path) == []


def test_what_a_killed_process_left_is_removed_and_a_living_ones_is_not(tmp_path, leftover):
    with locked(tmp_path / ".data.partial-2"), whole_folder(tmp_path / "data"):
        pass
    assert _names(tmp_path) == [".data.partial-2", "data"]


def test_without_locks_nobody_knows_who_lives(tmp_path, leftover, monkeypatch):
    def no_locks(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(folder_lock.fcntl, "flock", no_locks)
    with whole_folder(tmp_path / "data"):
        pass
    assert _names(tmp_path) == [".data.partial-1", "data"]
