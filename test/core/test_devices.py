"""Which device computes where none is named."""

import pytest
import torch

from syncl_core import devices
from syncl_core.cli import main


@pytest.mark.parametrize("sees, name", [(True, "cuda"), (False, "cpu")])
def test_a_gpu_if_there_is_one(monkeypatch, sees, name):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: sees)
    assert devices.default_device() == name


@pytest.mark.parametrize("command", ["track nowhere -o out", "robustness nowhere -o out", "bench"])
def test_commands_take_it_unless_one_is_named(monkeypatch, capsys, command):
    monkeypatch.setattr(devices, "default_device", lambda: "abacus")
    assert main(command.split()) == 2 and "'abacus'" in capsys.readouterr().err
    assert main([*command.split(), "--device", "lyre"]) == 2 and "'lyre'" in capsys.readouterr().err
