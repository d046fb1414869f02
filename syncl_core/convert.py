"""Public checkpoints -> tensors under our names, in our class order and box convention.

Strict: every tensor is used, renamed or dropped by a rule of `public_sources`; copies of shared tensors must be equal;
whatever the network needs and the file lacks must be whole parts that this kind of file does not hold.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from syncl_core.config import SynclConfig
from syncl_core.errors import InputError, list_names
from syncl_core.public_sources import PublicSource, recognise, rename
from syncl_core.tracking.build import make_tracker
from syncl_core.weights import TRACKER_FORMAT, Tensors, check_tensors, read_pickle, read_safetensors, shared_names

CLASS_LAYERS = r"pts_bbox_head\.cls_branches\.\d+\.6|STReasoner\.track_cls\.6"
BOX_LAYERS = r"pts_bbox_head\.reg_branches\.\d+\.4|STReasoner\.track_reg\.6"
_COUNTER = ".num_batches_tracked"  # of batch norm: some files lack it, inference does not read it


@dataclass(frozen=True, slots=True, kw_only=True)
class Converted:
    tensors: Tensors  # under our names, float32, shared ones once
    source: PublicSource
    mmdet3d: str  # box convention the file was in
    dropped: tuple[str, ...]  # the file's names for what is left out
    lacking: tuple[str, ...]  # parts of the network that the file does not hold


def convert_file(path: str | Path, config: SynclConfig, mmdet3d: str = "") -> Converted:
    """Convert a public file for the network of `config`. Raises InputError, one line that starts with the path."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such checkpoint")
    try:
        tensors, metadata = read_safetensors(path) if path.suffix == ".safetensors" else (read_pickle(path), {})
        if metadata.get("format") == TRACKER_FORMAT:
            raise InputError("is a checkpoint of this program already; use it as it is")
        return convert(tensors, config, mmdet3d)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def convert(tensors: Tensors, config: SynclConfig, mmdet3d: str = "", only: tuple[str, ...] = ("",)) -> Converted:
    """Convert a public state dictionary. `mmdet3d`, "0.17" or "1.0", is its box convention; "" = as published.

    `only`: beginnings of our names for what is asked for; the rest is dropped and need not fit. Raises InputError
    naming the tensors that are left over, missing, of another shape, not finite, or unequal copies.
    """
    tensors = {name.removeprefix("module."): value for name, value in tensors.items()}
    source = recognise(tensors)
    _check_ranges(tensors, config)
    mmdet3d = mmdet3d or source.mmdet3d
    with torch.device("meta"):  # names and shapes without numbers
        network = make_tracker(config)
    expected = {name: value for name, value in network.state_dict().items() if name.startswith(only)}

    renamed, dropped = _rename_all(tensors, source, expected, only)
    converted = {name: value.long() if name.endswith(_COUNTER) else value.float() for name, value in renamed.items()}
    check_tensors(converted, expected)
    aliases = shared_names(network)
    converted = _add_counters(_merge_copies(converted, aliases), expected)
    if not source.classes:
        converted = _add_offsets(converted, expected)
    lacking = _find_lacking(converted, expected.keys() - aliases.keys(), source)
    if source.classes and _layers(converted, CLASS_LAYERS):
        _reorder(converted, CLASS_LAYERS, _class_order(source.classes, config.classes))
    if source.center_first:
        _reorder(converted, BOX_LAYERS, _BOX_ROWS_FROM_CENTER_FIRST)
    if source.classes and mmdet3d == "1.0":
        if not source.other_boxes:
            raise InputError(f"a {source.name} checkpoint, whose boxes are those of mmdetection3d 0.17; leave 1.0 out")
        _reorder(converted, BOX_LAYERS, *_BOX_ROWS_FROM_1_0)
    return Converted(tensors=converted, source=source, mmdet3d=mmdet3d, dropped=dropped, lacking=lacking)


def _check_ranges(tensors: Tensors, config: SynclConfig) -> None:
    """Files that tell the ranges in which they were trained must agree with the configuration."""
    for key in ("pc_range", "position_range"):
        theirs, ours = tensors.get(f"pts_bbox_head.{key}"), getattr(config.model, key)
        if theirs is not None and not torch.allclose(theirs.double().flatten(), torch.tensor(ours).double()):
            raise InputError(f"model.{key}: the checkpoint has {theirs.flatten().tolist()}, the configuration {ours}")


def _rename_all(
    tensors: Tensors, source: PublicSource, expected: Tensors, only: tuple[str, ...]
) -> tuple[Tensors, tuple[str, ...]]:
    """The tensors under our names, and the original names of those that a rule drops or nobody asks for."""
    renamed, dropped, unknown = {}, [], []
    for original, value in tensors.items():
        name = rename(original, source)
        if not name or not name.startswith(only) or (name.endswith(_COUNTER) and name not in expected):
            dropped.append(original)
        elif name not in expected:
            unknown.append(original)
        elif name in renamed:
            raise InputError(f"{original} is there twice, under an old and a new name")
        else:
            renamed[name] = value
    if unknown:
        raise InputError(
            f"a {source.name} checkpoint, but the network of this configuration has no place for {list_names(unknown)}"
        )
    return renamed, tuple(dropped)


def _add_counters(tensors: Tensors, expected: Tensors) -> Tensors:
    """Frozen batch norms have none."""
    counters = [name for name in expected if name.endswith(_COUNTER) and _part(name) in _parts(tensors)]
    return {name: torch.zeros((), dtype=torch.int64) for name in counters} | tensors


def _add_offsets(tensors: Tensors, expected: Tensors) -> Tensors:
    """A plain backbone starts a deformable one: its convolutions look straight ahead until they have learned."""
    if any(".conv_offset." in name for name in tensors):
        return tensors
    missing = [name for name in expected if ".conv_offset." in name and _part(name) in _parts(tensors)]
    return {name: torch.zeros(expected[name].shape) for name in missing} | tensors


def _merge_copies(tensors: Tensors, aliases: dict[str, str]) -> Tensors:
    """The public files repeat shared layers under every name; equal copies become one."""
    for name, first in aliases.items():
        if name in tensors and first in tensors and not torch.equal(tensors[name], tensors[first]):
            raise InputError(f"{name} differs from {first}, but this network has one head for all layers")
    return {name: value for name, value in tensors.items() if name not in aliases}


def _find_lacking(tensors: Tensors, needed: set[str], source: PublicSource) -> tuple[str, ...]:
    """Parts that are missing as a whole and may be. Raises InputError if anything else is missing."""
    lacking = _parts(needed) - _parts(tensors)
    as_usual = lacking == _parts(needed).intersection(source.may_lack)  # all of it or nothing: not a damaged file
    missing = [name for name in needed - tensors.keys() if not (as_usual and _part(name) in lacking)]
    if missing:
        raise InputError(f"a {source.name} checkpoint, but it lacks {list_names(missing)}")
    return tuple(sorted(lacking))


def _part(name: str) -> str:
    return name.split(".")[0]


def _parts(names: Iterable[str]) -> set[str]:
    return {_part(name) for name in names}


def _class_order(theirs: tuple[str, ...], ours: tuple[str, ...]) -> list[int]:
    if set(theirs) != set(ours):
        raise InputError(f"classes: the checkpoint has {', '.join(theirs)}; the configuration {', '.join(ours)}")
    return [theirs.index(name) for name in ours]


# Row i of ours is row index[i] of theirs, times sign[i]. With the heading y, theirs are log l, log w, sin y, cos y;
# ours are log w, log l, sin a, cos a with a = -y - pi/2, so sin a = -cos y and cos a = -sin y.
_BOX_ROWS_FROM_1_0 = ([0, 1, 3, 2, 4, 5, 7, 6, 8, 9], [1, 1, 1, 1, 1, 1, -1, -1, 1, 1])
# Theirs begin with cx, cy, cz.
_BOX_ROWS_FROM_CENTER_FIRST = [0, 1, 3, 4, 2, 5, 6, 7, 8, 9]


def _layers(tensors: Tensors, layers: str) -> list[str]:
    """The names of their weights and biases."""
    return [name for name in tensors if re.fullmatch(rf"(?:{layers})\.(?:weight|bias)", name)]


def _reorder(tensors: Tensors, layers: str, index: list[int], sign: list[int] | None = None) -> None:
    for name in _layers(tensors, layers):
        value = tensors[name][index]
        tensors[name] = value if sign is None else value * torch.tensor(sign).view(-1, *[1] * (value.ndim - 1))
