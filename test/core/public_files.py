"""Checkpoints as others write them, with made-up numbers; shared by the tests of names and of conversion."""

import ast
import dataclasses
import os
from pathlib import Path

import torch
from tiny_tracker import tiny_config

from syncl_core.config import load_config
from syncl_core.tracking.base import Tracker
from syncl_core.tracking.build import make_tracker

CONFIGS = Path(__file__).parents[2] / "config"
KEYS = Path(__file__).with_name("pftrack_keys.tsv")
PETR_ROWS = [0, 1, 3, 4, 6, 7, 8, 2, 9, 5]  # class i of PF-Track is class PETR_ROWS[i] of PETR


def public_shapes() -> dict[str, tuple[int, ...]]:
    rows = [line.split("\t") for line in KEYS.read_text(encoding="ascii").splitlines()[1:]]
    return {name: tuple(ast.literal_eval(shape)) for name, shape in rows}


def published_tracker(name: str) -> Tracker:
    """A network of config/: shapes without numbers."""
    with torch.device("meta"):
        return make_tracker(load_config(CONFIGS / f"{name}.yaml"))


def detector_config():
    config = tiny_config()
    return dataclasses.replace(config, model=dataclasses.replace(config.model, framework="none"))


def with_backbone(name: str):
    config = tiny_config()
    return dataclasses.replace(config, model=dataclasses.replace(config.model, backbone=name))


def pftrack_file(tracker: Tracker) -> dict[str, torch.Tensor]:
    """The weights as PF-Track writes them: the six heads again and again, and the loss's weights."""
    return {**{k: v.clone() for k, v in tracker.state_dict().items()}, "criterion.code_weights": torch.ones(10)}


def petr_file(tracker: Tracker) -> dict[str, torch.Tensor]:
    """The weights as PETR writes them: queries inside the head, its own class order."""
    tensors = {"pts_bbox_head.code_weights": torch.ones(10)}
    for name, value in tracker.state_dict().items():
        if ".cls_branches." in name and ".6." in name:
            rows = torch.empty_like(value)
            rows[PETR_ROWS] = value
            value = rows
        inside = name.startswith(("reference_points.", "query_embedding."))
        tensors[f"pts_bbox_head.{name}" if inside else name] = value.clone()
    return tensors


def numbered(shapes: dict[str, tuple[int, ...]], shared_heads: bool = True) -> dict[str, torch.Tensor]:
    """Every tensor full of one number of its own, without using memory; `shared_heads`: all layers' are copies."""
    values, tensors = {}, {}
    for name, shape in shapes.items():
        parts = name.split(".")
        if shared_heads and "_branches" in name:
            parts[2] = "*"
        value = values.setdefault(".".join(parts), float(len(values)))
        tensors[name] = torch.full((1,) * len(shape), value).expand(shape)
    return tensors


class Trap:
    """Makes a folder when it is unpickled, as a hostile file could do worse."""

    def __init__(self, folder: Path):
        self._folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self._folder),)
