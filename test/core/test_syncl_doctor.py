"""`syncl doctor` says what to change."""

import sys

import pytest
import torch

from syncl_core import cli


@pytest.mark.parametrize(
    "version, old", [("2.6.0+cu124", True), ("1.13.1", True), ("2.7.0", False), ("2.13.0a0", False)]
)
def test_a_torch_too_old_to_start_with_is_named(version, old, monkeypatch, capsys):
    monkeypatch.setattr(torch, "__version__", version)
    code = cli.main(["doctor"])
    said = [line for line in capsys.readouterr().out.splitlines() if f"torch {version}" in line]
    assert len(said) == 1 and said[0].startswith("CHANGE" if old else "ok ")
    assert ("2.7 or newer" in said[0]) == old
    assert code == 1 or not old


@pytest.mark.parametrize("missing", ["simplejpeg", "rosbags"])
def test_a_missing_package_is_named(missing, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, missing, None)
    assert cli.main(["doctor"]) == 1
    assert f"CHANGE  {missing} cannot be imported" in (said := capsys.readouterr().out), said
    assert f"pip install {missing}" in said
