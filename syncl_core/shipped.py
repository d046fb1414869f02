"""What comes with the package: configurations of trackers, and weights of one of them."""

import sys
from pathlib import Path

from syncl_core.errors import InputError, did_you_mean

_NODE_PARAMETERS = ("replay.yaml", "tracker.yaml")
_HERE = Path(__file__).resolve()
_PLACES = (
    _HERE.parents[1] / "config",  # the source tree
    *(Path(prefix, "share", "syncl_ros", "config") for prefix in (*_HERE.parents[4:5], sys.prefix)),  # pip, colcon
)
_WEIGHTS = "weights/mutr3d_world_256x704.safetensors"


def shipped_configs() -> list[Path]:
    """All of them, sorted by name, from the source tree or an installation. Raises InputError if there are none."""
    for place in _PLACES:
        if found := sorted(path for path in place.glob("*.yaml") if path.name not in _NODE_PARAMETERS):
            return found
    raise InputError(f"no tracker in {_places()}; name a configuration with -c")


def named_config(name: str | Path) -> Path:
    """The file that is meant: a name without folder and ending is one of these, unless such a file is there.

    Raises InputError with a better guess for a name that none of them has, and for a file of theirs that is elsewhere.
    """
    path = Path(name)
    if path.is_file():
        return path
    known = {config.stem: config for config in shipped_configs()}
    if path.suffix or path.parent != Path():
        if path.suffix == ".yaml" and path.stem in known:
            raise InputError(f"{name}: no such file; by its name, {path.stem}, it is found from everywhere")
        return path
    if path.name not in known:
        hint = did_you_mean(path.name, known) or "`syncl models` lists those that come with the package"
        raise InputError(f"{name}: no such configuration; {hint}")
    return known[path.name]


def shipped_weights() -> Path:
    """A small tracker trained on the synthetic world alone; the card beside it says how. Raises InputError."""
    for place in _PLACES:
        if (place / _WEIGHTS).is_file():
            return place / _WEIGHTS
    raise InputError(f"{_WEIGHTS}: not in {_places()}; name a checkpoint")


def _places() -> str:
    return " nor in ".join(map(str, _PLACES))
