"""Weights on disk: one safetensors file that also holds the configuration it was made with.

`load_checkpoint(path)` needs nothing else. Given a configuration too, thresholds and synchronisation come from there
and the network must be the same. Public files hold no configuration and need one: `syncl convert` makes them ours once;
given as they are, they are converted at every start.
"""

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file

from syncl_core.config import SynclConfig, check_config, config_from_dict, config_to_dict, load_config, with_values
from syncl_core.convert import Converted, convert
from syncl_core.devices import check_device
from syncl_core.errors import InputError, one_line
from syncl_core.public_sources import BACKBONE
from syncl_core.shipped import shipped_weights
from syncl_core.tracking.base import Tracker
from syncl_core.tracking.build import build_tracker
from syncl_core.weights import (
    PICKLES,
    TRACKER_FORMAT,
    Tensors,
    check_tensors,
    read_pickle,
    read_safetensors,
    shared_names,
)

BOX_CONVENTION = (
    "cx, cy, log w, log l, cz, log h, sin a, cos a, vx, vy; metres, model frame, geometric centre; "
    "a = -heading - pi/2 (mmdetection3d before 1.0)"
)
_SAME_IMAGES = ("image.channel_order", "image.mean", "image.std")  # what all weights silently depend on ...
_SAME_SPACE = (  # ... and all but a backbone's
    *("rig.cameras", "model.num_heads", "model.detr3d.ground"),
    *("model.depth_bins", "model.depth_start", "model.position_range", "model.pc_range"),
)
_CLASS_HEADS = ("cls_branches", "track_cls")  # parts of the names of what says classes
_NO_FORMAT = "pt"  # what safetensors files that PyTorch users write say of themselves, if anything
_INITIAL_ONLY = ("dropout", "class_prior", "neutral_start")  # model keys that do not change a trained network


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Content:
    tensors: Tensors  # shared ones once
    config: SynclConfig
    lacking: tuple[str, ...] = ()  # parts of the network (first component of a name) that were never trained


def save_checkpoint(path: str | Path, tracker: Tracker) -> None:
    """Write weights and configuration. The file appears whole or not at all."""
    aliases = shared_names(tracker)
    tensors = {name: value for name, value in tracker.state_dict().items() if name not in aliases}
    _write(Path(path), tensors, tracker.config, {})


def save_converted(path: str | Path, converted: Converted, config: SynclConfig, origin: dict[str, str]) -> None:
    """Write converted public weights; `origin` says where they are from (file, sha256, licence, ...)."""
    _write(Path(path), converted.tensors, config, {"origin": json.dumps(origin)}, converted.lacking)


def load_checkpoint(path: str | Path, config: SynclConfig | None = None, allow_lacking: bool = False) -> Tracker:
    """A tracker in evaluation mode with the weights of `path`, on the CPU.

    Raises InputError, one line that starts with the path, if the file cannot be read, was cut short, holds NaN or
    infinite weights, or belongs to another network than `config` describes. A file that holds only a part of the
    network, such as a converted backbone, is refused too, unless `allow_lacking`: then the rest stays untrained.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such checkpoint")
    try:
        content = _read(path, config)
        if content.lacking and not allow_lacking:
            raise InputError(f"holds no weights for {', '.join(content.lacking)}: it is a start for training")
        if config is not None:
            _check_same_network(content.config, config)
        tracker = build_tracker(config or content.config)
        _load(tracker, content)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return tracker


def start_from(path: str | Path, tracker: Tracker) -> tuple[set[str], list[str]]:
    """Give a network that is about to be trained what `path` holds for it: a checkpoint of ours or a public file.

    A detector's weights start a tracker, a backbone's start anything; `train.start_with` says whether all are used.
    Returns the names of the tensors that now have weights, and lines that say what stays untrained and what is not
    used. Raises InputError, one line that starts with the path, if nothing fits or shapes differ.
    """
    only = tracker.ENCODER if tracker.config.train.start_with == "encoder" else ("",)
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such checkpoint")
    try:
        # A public file has no second class head (Table 8); ours begins as the first.
        content = _read(path, with_values(tracker.config, {"model": {"track_class_head": False}}), only)
        expected, aliases = tracker.state_dict(), shared_names(tracker)
        tensors = {name: value for name, value in content.tensors.items() if name in expected and name.startswith(only)}
        if not tensors:
            raise InputError("holds nothing for this network")
        for key in _silent_keys(tensors):
            _check_equal(key, _dotted(content.config, key), _dotted(tracker.config, key))
        check_tensors(tensors, expected)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    unused = content.tensors.keys() - tensors.keys()
    for name in expected.keys() - tensors.keys() - aliases.keys():
        if (twin := _object_branch(name)) in tensors:
            tensors[name] = tensors[twin]
    tracker.load_state_dict(tensors | {a: tensors[n] for a, n in aliases.items() if n in tensors}, strict=False)
    untrained = expected.keys() - tensors.keys() - aliases.keys()
    parts = {"untrained": _parts(untrained, tensors), "not used": _parts(unused, tensors)}
    return set(tensors), [f"{path}: {what}: {', '.join(sorted(names))}" for what, names in parts.items() if names]


def _silent_keys(tensors: Tensors) -> Iterator[str]:
    """The keys that decide what these weights mean, whatever their shapes."""
    of_backbone = {name.startswith(f"{BACKBONE}.") for name in tensors}
    yield from _SAME_IMAGES
    if True in of_backbone:
        yield "model.backbone"
    if False in of_backbone:
        yield from _SAME_SPACE
    if any(head in name for name in tensors for head in _CLASS_HEADS):
        yield "classes"


def _object_branch(name: str) -> str:
    """The weights that those of a class head for tracks alone begin as (models.heads.track_class_branches)."""
    return name.replace(".track_cls_branches.", ".cls_branches.").replace(".known_track_cls.", ".track_cls.")


def _parts(names: Iterable[str], used: Tensors) -> set[str]:
    """What tensors belong to: the first component of their names, or two where others of the first are used."""
    begun = {name.split(".")[0] for name in used}
    return {".".join(name.split(".")[: 2 if name.split(".")[0] in begun else 1]) for name in names}


def load_tracker(config: str | Path = "", checkpoint: str | Path = "", seed: int = 0, device: str = "cpu") -> Tracker:
    """The tracker that a configuration file and a checkpoint file name, on `device`: see `chosen_weights`.

    Untrained weights are the same for the same seed. Raises InputError naming the culprit.
    """
    if not 0 <= seed < 2**63:
        raise InputError(f"seed {seed}: expected a number from 0 to 2^63 - 1")
    check_device(device)
    given, weights = load_config(config) if config else None, chosen_weights(config, checkpoint)
    return (load_checkpoint(weights, given) if weights else build_tracker(given, seed)).to(device)


def tracker_config(config: str | Path = "", checkpoint: str | Path = "") -> SynclConfig:
    """The configuration of that tracker, without a network. Raises InputError naming the culprit."""
    if config:
        return load_config(config)
    weights = chosen_weights(config, checkpoint)
    if not weights.is_file():
        raise InputError(f"{weights}: no such checkpoint")
    try:
        return _read(weights, None).config
    except InputError as error:
        raise InputError(f"{weights}: {error}") from None


def chosen_weights(config: str | Path, checkpoint: str | Path) -> Path | None:
    """The weights that two file names mean, "" = not given: the checkpoint. Given neither, those of the package.

    None for a configuration alone: its weights are untrained.
    """
    if checkpoint or config:
        return Path(checkpoint) if checkpoint else None
    return shipped_weights()


def _write(
    path: Path, tensors: Tensors, config: SynclConfig, notes: dict[str, str], lacking: tuple[str, ...] = ()
) -> None:
    metadata = {
        "format": TRACKER_FORMAT,
        "config": json.dumps(config_to_dict(config)),
        "box_convention": BOX_CONVENTION,
        "complete": json.dumps(not lacking),
        "lacking": json.dumps(lacking),
        **notes,
    }
    tensors = {name: value.detach().contiguous().cpu() for name, value in tensors.items()}
    temporary = path.with_name(path.name + ".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()
        mode = temporary.stat().st_mode  # as the umask has it; save_file would leave 0600
        save_file(tensors, temporary, metadata=metadata)
        temporary.chmod(mode)
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise InputError(f"{path}: cannot write the checkpoint: {one_line(error)}") from None


def _read(path: Path, config: SynclConfig | None, only: tuple[str, ...] = ("",)) -> _Content:
    """What a file of ours holds, or of a public one `only` that, converted for the network of `config`."""
    tensors, metadata = (read_pickle(path), {}) if path.suffix in PICKLES else read_safetensors(path)
    if (kind := metadata.get("format", _NO_FORMAT)) == _NO_FORMAT:
        if config is None:
            raise InputError("holds no configuration; give the one it was trained with")
        converted = convert(tensors, config, only=only)
        return _Content(tensors=converted.tensors, config=config, lacking=converted.lacking)
    if kind != TRACKER_FORMAT:
        raise InputError(f"not a tracker of this program: format {kind!r}, expected {TRACKER_FORMAT!r}")
    try:
        config = config_from_dict(SynclConfig, json.loads(metadata["config"]))
        check_config(config)
        lacking = tuple(map(str, json.loads(metadata.get("lacking", "[]"))))
    except (KeyError, TypeError, ValueError) as error:  # InputError and JSONDecodeError are ValueErrors
        raise InputError(f"its stored configuration cannot be used: {one_line(error)}") from None
    return _Content(tensors=tensors, config=config, lacking=lacking)


def _check_same_network(stored: SynclConfig, given: SynclConfig) -> None:
    """Everything the weights depend on must agree; how they are used (thresholds, timing) may differ."""
    for name in ("classes", "num_tracking_classes", "image", "rig.cameras", "model"):
        ours, theirs = _dotted(stored, name), _dotted(given, name)
        if dataclasses.is_dataclass(ours):
            for f in dataclasses.fields(ours):
                if f.name not in _INITIAL_ONLY:
                    _check_equal(f"{name}.{f.name}", getattr(ours, f.name), getattr(theirs, f.name))
        else:
            _check_equal(name, ours, theirs)


def _dotted(config: SynclConfig, key: str):
    value = config
    for part in key.split("."):
        value = getattr(value, part)
    return value


def _check_equal(key: str, stored: object, given: object) -> None:
    if stored != given:
        raise InputError(f"{key}: the checkpoint has {stored}, the configuration {given}")


def _load(tracker: Tracker, content: _Content) -> None:
    expected = tracker.state_dict()
    copies = {name: content.tensors[first] for name, first in shared_names(tracker).items() if first in content.tensors}
    complete = content.tensors | copies
    missing = sorted(name for name in expected.keys() - complete.keys() if name.split(".")[0] not in content.lacking)
    unknown = sorted(complete.keys() - expected.keys())
    if missing or unknown:
        what, names = ("lacks", missing) if missing else ("has unknown", unknown)
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        raise InputError(f"{what} tensor {names[0]}{more}; it belongs to another network")
    check_tensors(complete, expected)
    tracker.load_state_dict(complete, strict=not content.lacking)
