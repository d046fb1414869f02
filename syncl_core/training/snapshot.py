"""Everything a run needs to go on exactly where it was, in one file that appears whole or not at all.

The random numbers of data are functions of the clip's number (data.clips), so they need no memory. Dropout's do.
"""

import json
import pickle
from pathlib import Path

import torch

from syncl_core.config import SynclConfig, config_to_dict, with_defaults
from syncl_core.errors import InputError, one_line
from syncl_core.io.files import whole_file
from syncl_core.train_config import FREE_TO_CHANGE
from syncl_core.weights import SNAPSHOT_FORMAT


def save_snapshot(
    path: Path,
    iteration: int,
    config: SynclConfig,
    key_frames: str,
    states: dict,
    ranks: list[dict],
    best: float,
    owed: bool,
) -> None:
    """`iteration`: the next one. `key_frames`: those of the run, in words. `states`: whole state_dicts by name.
    `ranks`: `random_state` of every process. `owed`: an evaluation is due before the next iteration."""
    content = {
        "format": SNAPSHOT_FORMAT,
        "iteration": iteration,
        "config": json.dumps(config_to_dict(config)),
        "key_frames": key_frames,
        "best": best,
        "owed": owed,
        "ranks": ranks,
        **states,
    }
    with whole_file(path) as partial:
        try:
            torch.save(content, partial)
        except RuntimeError as error:  # torch's word for a disk that is full
            raise InputError(f"{path}: cannot write it: {one_line(error)}") from None


def load_snapshot(path: Path, config: SynclConfig, processes: int) -> dict:
    """The content of a snapshot, on the CPU. Raises InputError if it is of another kind, run or number of processes."""
    if not path.is_file():
        raise InputError(f"{path}: no such snapshot; nothing to resume")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, OSError, EOFError, ValueError) as error:
        raise InputError(f"{path}: truncated or not a snapshot ({one_line(error)})") from None
    if not isinstance(content, dict) or content.get("format") != SNAPSHOT_FORMAT:
        raise InputError(f"{path}: not a training snapshot of this program, expected {SNAPSHOT_FORMAT!r}")
    if len(content["ranks"]) != processes:
        raise InputError(f"{path}: is of {len(content['ranks'])} processes, not {processes}; use as many to resume")
    stored, given = _flat(with_defaults(json.loads(content["config"]))), _flat(config_to_dict(config))
    for key in stored.keys() | given.keys():
        if stored.get(key) != given.get(key) and key not in {f"train.{name}" for name in FREE_TO_CHANGE}:
            raise InputError(f"{path}: {key}: the run has {stored.get(key)}, the configuration {given.get(key)}")
    return content


def check_key_frames(path: Path, content: dict, key_frames: str) -> None:
    """Raises InputError if a snapshot's run learned from other scenes. Where they lie does not matter."""
    if content.get("key_frames") not in (None, key_frames):  # earlier versions did not say
        raise InputError(
            f"{path}: is of a run on other scenes; give the --data, --version and --split that it began with"
        )


def random_state(device: torch.device) -> dict[str, torch.Tensor]:
    """State of the generators dropout draws from."""
    cuda = {"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {}
    return {"cpu": torch.get_rng_state()} | cuda


def set_random_state(state: dict[str, torch.Tensor], device: torch.device) -> None:
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"], device)


def _flat(values: dict, prefix: str = "") -> dict:
    flat = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat
