"""What the records of the nuScenes tables must hold, where this project reads them; checked once, when loaded."""

from collections.abc import Callable, Sequence
from pathlib import Path

from syncl_core.errors import InputError

_END_OF_TIME_US = 2**31 * 10**6  # seconds of a ROS time stamp are an int32


def check_records(path: Path, table: str, records: Sequence[dict]) -> None:
    """Raise InputError naming file, record and field for the first value that cannot be used."""
    fields = _FIELDS.get(table, {})
    for index, record in enumerate(records):
        if not isinstance(record, dict):
            raise InputError(f"{path}: record {index}: expected an object, got {record!r}")
        for name, is_fit in fields.items():
            if not is_fit(record.get(name)):
                known = repr(record[name]) if name in record else "missing"
                raise InputError(f"{path}: record {record.get('token', index)}: {name!r} is {known[:60]}")


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_file_name(value: object) -> bool:
    """Scene names become names of folders."""
    return isinstance(value, str) and value not in ("", ".", "..") and not set(value) & set("/\\\0")


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_count(value: object) -> bool:
    return _is_integer(value) and value >= 0


def _is_time_us(value: object) -> bool:
    return _is_integer(value) and 0 <= value < _END_OF_TIME_US


def _is_number_list(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(v, (int, float)) for v in value)


def _is_size(value: object) -> bool:
    return _is_number_list(value) and len(value) == 3


def _is_matrix(value: object) -> bool:
    """Three rows, or nothing for a sensor that is no camera."""
    return isinstance(value, list) and len(value) in (0, 3) and all(map(_is_size, value))


_FIELDS: dict[str, dict[str, Callable[[object], bool]]] = {
    "scene": {"token": _is_text, "name": _is_file_name, "description": _is_text},
    "sample": {"token": _is_text, "scene_token": _is_text, "timestamp": _is_time_us},
    "sample_data": {
        **dict.fromkeys(("token", "sample_token", "ego_pose_token", "calibrated_sensor_token", "filename"), _is_text),
        "timestamp": _is_time_us,
        "width": _is_count,
        "height": _is_count,
    },
    "calibrated_sensor": {"token": _is_text, "camera_intrinsic": _is_matrix},
    "sample_annotation": {
        **dict.fromkeys(("token", "sample_token", "instance_token"), _is_text),
        "size": _is_size,
        "num_lidar_pts": _is_count,
        "num_radar_pts": _is_count,
    },
}
