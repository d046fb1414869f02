"""Long work says how far it is, to a terminal and to a file."""

import sys

import pytest

from syncl_core import progress_bar as module
from syncl_core.progress_bar import progress_bar


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(module, "SAY_EVERY", 0.0)


def test_a_file_gets_lines(impatient, capsys):
    with progress_bar(total=4, desc="eval", unit="class", mininterval=0.0) as bar:
        bar.update(3)
    assert capsys.readouterr().err.splitlines()[-1].startswith("eval: 3 of 4 in 00:00, 00:0")


def test_what_has_no_end_is_counted(impatient, capsys):
    assert list(progress_bar(iter("abc"), desc="drive", mininterval=0.0)) == ["a", "b", "c"]
    assert "drive: 2 in 00:00\n" in capsys.readouterr().err


def test_short_work_says_nothing(capsys):
    assert sum(progress_bar(range(5), desc="short", mininterval=0.0)) == 10
    assert capsys.readouterr().err == ""


def test_who_is_disabled_says_nothing(impatient, capsys):
    assert sum(progress_bar(range(5), disable=True)) == 10
    assert capsys.readouterr().err == ""


def test_a_terminal_gets_a_bar(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert sum(progress_bar(range(5), desc="short", mininterval=0.0)) == 10
    assert "100%|" in capsys.readouterr().err
