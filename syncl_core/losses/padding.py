"""Rows of padding hold what they like; this keeps it from being read as a class."""

import dataclasses

import torch

from syncl_core.tensors import Targets


def clean_targets(targets: Targets) -> Targets:
    """The same objects with class 0 in empty rows, and one row at least."""
    if targets.valid.shape[1] == 0:
        targets = Targets(**{f.name: _one_row(getattr(targets, f.name)) for f in dataclasses.fields(targets)})
    return dataclasses.replace(targets, label=torch.where(targets.valid, targets.label, 0))


def _one_row(value: torch.Tensor) -> torch.Tensor:
    """[B, 0, ...] -> [B, 1, ...] zeros."""
    return value.new_zeros(value.shape[0], 1, *value.shape[2:])
