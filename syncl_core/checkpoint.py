"""Weights on disk: one safetensors file that also holds the configuration it was made with.

`load_checkpoint(path)` needs nothing else. Given a configuration too, thresholds and synchronisation come from there
and the network must be the same. Public .pth files hold no configuration and need one; they are read with
`weights_only=True`, so that no code in them runs.
"""

import contextlib
import dataclasses
import json
import os
import pickle
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from syncl_core.config import SynclConfig, check_config, config_from_dict, config_to_dict, load_config
from syncl_core.errors import InputError
from syncl_core.tracking.tracker import Tracker, build_tracker

FORMAT = "syncl-tracker-1"
_PICKLES = (".pth", ".pt", ".ckpt")
_TRAINING_ONLY = ("criterion.",)  # prefixes of foreign checkpoints that inference has no use for
_INITIAL_ONLY = ("dropout", "class_prior", "neutral_start")  # model keys that do not change a trained network


def save_checkpoint(path: str | Path, tracker: Tracker) -> None:
    """Write weights and configuration. The file appears whole or not at all."""
    path = Path(path)
    aliases = _aliases(tracker)
    tensors = {name: value.contiguous().cpu() for name, value in tracker.state_dict().items() if name not in aliases}
    metadata = {"format": FORMAT, "config": json.dumps(config_to_dict(tracker.config))}
    temporary = path.with_name(path.name + ".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, temporary, metadata=metadata)
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise InputError(f"{path}: cannot write the checkpoint: {_one_line(error)}") from None


def load_checkpoint(path: str | Path, config: SynclConfig | None = None) -> Tracker:
    """A tracker in evaluation mode with the weights of `path`, on the CPU.

    Raises InputError, one line that starts with the path, if the file cannot be read, was cut short, holds NaN or
    infinite weights, or belongs to another network than `config` describes.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such checkpoint")
    try:
        tensors, stored = _read_pickle(path) if path.suffix in _PICKLES else _read_safetensors(path)
        if stored is None and config is None:
            raise InputError("holds no configuration; give the one it was trained with")
        if stored is not None and config is not None:
            _check_same_network(stored, config)
        tracker = build_tracker(config or stored)
        _load(tracker, tensors)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return tracker


def load_tracker(config: str | Path = "", checkpoint: str | Path = "", seed: int = 0, device: str = "cpu") -> Tracker:
    """The tracker that a configuration file and a checkpoint file name, on `device`; "" = not given.

    Without a checkpoint the weights are untrained, the same for the same seed. Raises InputError naming the culprit.
    """
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device {device!r} cannot be used: {str(error).splitlines()[0]}") from None
    given = load_config(config) if config else None
    tracker = load_checkpoint(checkpoint, given) if checkpoint else build_tracker(given or SynclConfig(), seed)
    return tracker.to(device)


def _read_safetensors(path: Path) -> tuple[dict[str, torch.Tensor], SynclConfig]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dictionary)
    except (SafetensorError, OSError) as error:
        raise InputError(f"truncated or not a safetensors file ({_one_line(error)})") from None
    if metadata.get("format") != FORMAT:
        raise InputError(f"not a tracker of this program: format {metadata.get('format')!r}, expected {FORMAT!r}")
    try:
        config = config_from_dict(SynclConfig, json.loads(metadata["config"]))
        check_config(config)
    except (KeyError, ValueError) as error:  # InputError and JSONDecodeError are ValueErrors
        raise InputError(f"its stored configuration cannot be used: {_one_line(error)}") from None
    return tensors, config


def _read_pickle(path: Path) -> tuple[dict[str, torch.Tensor], None]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise InputError("holds more than tensors, or is no PyTorch file; it is not opened for safety") from None
    except (RuntimeError, OSError, EOFError, ValueError) as error:
        raise InputError(f"truncated or not a PyTorch file ({_one_line(error)})") from None
    tensors = content.get("state_dict", content) if isinstance(content, dict) else None
    if not tensors or not all(isinstance(value, torch.Tensor) for value in tensors.values()):
        raise InputError("holds no dictionary of tensors (state_dict)")
    return {name: value for name, value in tensors.items() if not name.startswith(_TRAINING_ONLY)}, None


def _check_same_network(stored: SynclConfig, given: SynclConfig) -> None:
    """Everything the weights depend on must agree; how they are used (thresholds, timing) may differ."""
    for name in ("classes", "num_tracking_classes", "image", "rig.cameras", "model"):
        ours, theirs = stored, given
        for part in name.split("."):
            ours, theirs = getattr(ours, part), getattr(theirs, part)
        if dataclasses.is_dataclass(ours):
            for f in dataclasses.fields(ours):
                if f.name not in _INITIAL_ONLY:
                    _check_equal(f"{name}.{f.name}", getattr(ours, f.name), getattr(theirs, f.name))
        else:
            _check_equal(name, ours, theirs)


def _check_equal(key: str, stored: object, given: object) -> None:
    if stored != given:
        raise InputError(f"{key}: the checkpoint has {stored}, the configuration {given}")


def _load(tracker: Tracker, tensors: dict[str, torch.Tensor]) -> None:
    aliases = _aliases(tracker)
    expected = tracker.state_dict()
    complete = tensors | {name: tensors[first] for name, first in aliases.items() if first in tensors}
    missing, unknown = sorted(expected.keys() - complete.keys()), sorted(complete.keys() - expected.keys())
    if missing or unknown:
        what, names = ("lacks", missing) if missing else ("has unknown", unknown)
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        raise InputError(f"{what} tensor {names[0]}{more}; it belongs to another network")
    for name, value in complete.items():
        if value.shape != expected[name].shape:
            raise InputError(f"{name} has shape {list(value.shape)}, the network needs {list(expected[name].shape)}")
        if value.is_floating_point() and not value.isfinite().all():
            raise InputError(f"{name} holds NaN or infinite weights")
    tracker.load_state_dict(complete)


def _aliases(tracker: Tracker) -> dict[str, str]:
    """Second names of shared tensors (the head used by every layer) -> the first name, under which they are stored."""
    first_name: dict[int, str] = {}
    aliases = {}
    for name, value in tracker.state_dict(keep_vars=True).items():
        first = first_name.setdefault(id(value), name)
        if first != name:
            aliases[name] = first
    return aliases


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
