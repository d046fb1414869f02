"""A vehicle in one YAML file: its cameras' topics, frames and time offsets, where its pose comes from, remappings.

    image_topic: /sensing/{camera}/image_raw      # any parameter of the node, by its name
    cameras:
      cam_front: {image_topic: /front/image_raw, frame_id: front_optical, stamp_offset: 0.012}
    remaps: {/tf: /vehicle/tf}                    # applied by the launch file and the doctor

`cameras` and every other mapping stand for dotted parameter names: `cameras.cam_front.frame_id`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from syncl_core.errors import InputError, did_you_mean
from syncl_core.io.yaml_file import read_yaml
from syncl_ros import params
from syncl_ros.environment import share_file


@dataclass(frozen=True, slots=True, kw_only=True)
class Vehicle:
    """What a vehicle file says."""

    path: Path
    parameters: dict[str, object]  # by dotted ROS name
    remaps: dict[str, str]  # from -> to


def load_vehicle(name: str | Path) -> Vehicle:
    """Read a vehicle file: a path, or the bare name of a file in config/vehicles. Raises InputError naming the key."""
    path = vehicle_path(name)
    content = read_yaml(path, "vehicle")
    if not isinstance(content, Mapping):
        raise InputError(f"{path}: expected keys and values of a vehicle, see config/vehicles/template.yaml")
    remaps = content.get("remaps") or {}
    if not isinstance(remaps, Mapping) or not all(isinstance(x, str) for pair in remaps.items() for x in pair):
        raise InputError(f"{path}: remaps: expected a mapping from topic to topic")
    parameters = dict(_flat({key: value for key, value in content.items() if key != "remaps"}, ""))
    _check_names(path, parameters)
    # A file named beside the vehicle's own travels with it.
    for key in ("config", "checkpoint", "calibration.file"):
        if isinstance(value := parameters.get(key), str) and value and (path.parent / value).is_file():
            parameters[key] = str(path.parent / value)
    return Vehicle(path=path, parameters=parameters, remaps=dict(remaps))


def vehicle_path(name: str | Path) -> Path:
    """The file of a vehicle: as it is, or of that name among the shipped ones."""
    path = Path(name)
    if not path.is_file() and path.suffix == "" and len(path.parts) == 1:
        try:
            return share_file(f"config/vehicles/{name}.yaml")
        except InputError:
            raise InputError(f"vehicle {name}: no such file, and no vehicle of that name comes with us") from None
    return path


def _flat(values: Mapping, prefix: str):
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        elif value is not None:
            yield f"{prefix}{key}", value


def _check_names(path: Path, parameters: dict[str, object]) -> None:
    known = [spec.name for spec in params.all_specs() if spec.name != "vehicle"]
    patterns = [re.compile(re.sub("<[a-z]+>", "[^.]+", re.escape(name))) for name in known]
    for name in parameters:
        if not any(pattern.fullmatch(name) for pattern in patterns):
            hint = did_you_mean(name, known) or "see config/vehicles/template.yaml"
            raise InputError(f"{path}: {name}: no such parameter; {hint}")
