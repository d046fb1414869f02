"""The tracker configurations that come with the package."""

import sys
from pathlib import Path

from syncl_core.errors import InputError

_NODE_PARAMETERS = ("replay.yaml", "tracker.yaml")
_PLACES = (Path(__file__).resolve().parents[2] / "config", Path(sys.prefix, "share", "syncl_ros", "config"))


def shipped_configs() -> list[Path]:
    """All of them, sorted by name, from the source tree or an installation. Raises InputError if there are none."""
    for place in _PLACES:
        if found := sorted(path for path in place.glob("*.yaml") if path.name not in _NODE_PARAMETERS):
            return found
    raise InputError(f"no tracker in {' nor in '.join(map(str, _PLACES))}; name a configuration with -c")
