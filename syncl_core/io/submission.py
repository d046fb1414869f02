"""The nuScenes tracking submission: one JSON file with the tracked boxes of every key frame, in the global frame.

Format: https://www.nuscenes.org/tracking. `size` is width, length, height there and length, width, height here.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from syncl_core.classes import TRACKING_CLASSES
from syncl_core.config import SynclConfig
from syncl_core.errors import InputError
from syncl_core.io.files import write_text
from syncl_core.types import ObjectSet

MAX_BOXES_PER_SAMPLE = 500
"""The rule of the benchmark."""

RANGE_M = {"car": 50, "truck": 50, "bus": 50, "trailer": 50, "pedestrian": 40, "motorcycle": 40, "bicycle": 40}
"""Boxes at this horizontal distance from the vehicle, or farther, are not evaluated (tracking_nips_2019)."""

CAMERA_ONLY = {
    "use_camera": True,
    "use_lidar": False,
    "use_radar": False,
    "use_map": False,
    "use_external": False,
}
"""The `meta` of a submission: which inputs the tracker used."""

_BOX_FIELDS = {"translation": 3, "size": 3, "rotation": 4, "velocity": 2, "tracking_score": 0}


def check_submittable(config: SynclConfig) -> None:
    """Before the work: whether what a tracker says can stand in tracks.json. Raises InputError naming the key."""
    others = [label for label in config.tracking_classes if label not in TRACKING_CLASSES]
    if others:
        raise InputError(
            f"classes: {', '.join(others)} cannot stand in tracks.json, which belongs to a recording with key frames; "
            f"nuScenes tracks {', '.join(TRACKING_CLASSES)}"
        )
    if config.track.max_output > MAX_BOXES_PER_SAMPLE:
        raise InputError(
            f"track.max_output: {config.track.max_output} boxes cannot stand in tracks.json, which belongs to a "
            f"recording with key frames; nuScenes allows {MAX_BOXES_PER_SAMPLE} in each"
        )


def tracking_submission(results: Mapping[str, ObjectSet], meta: Mapping[str, bool] = CAMERA_ONLY) -> dict:
    """The JSON value of a submission, from objects by sample token.

    Raises InputError, naming sample and object, for what the benchmark forbids: see `check_objects`.
    """
    for token, objects in results.items():
        check_objects(token, objects)
    return {"meta": dict(meta), "results": {token: _boxes(token, objects) for token, objects in results.items()}}


def check_objects(sample_token: str, objects: ObjectSet) -> None:
    """Reject what the evaluation cannot use or would silently get wrong. Raises InputError naming sample and object.

    Two boxes with one id in a frame are such a case: nuscenes-devkit scores them without a word.
    """
    if len(objects) > MAX_BOXES_PER_SAMPLE:
        raise InputError(f"sample {sample_token}: {len(objects)} boxes, {MAX_BOXES_PER_SAMPLE} are allowed")
    seen = set()
    for track_id, label in zip(objects.ids, objects.labels, strict=True):
        if track_id in seen:
            raise InputError(f"sample {sample_token}: id {track_id!r} occurs twice; an id names one object per frame")
        seen.add(track_id)
        if label not in TRACKING_CLASSES:
            raise InputError(
                f"sample {sample_token}: object {track_id!r} has class {label!r}; "
                f"the tracking classes are {', '.join(TRACKING_CLASSES)}"
            )
    for name in ("scores", "centers", "sizes", "rotations"):
        values = getattr(objects, name)
        values = values[:, None] if values.ndim == 1 else values
        bad = ~np.isfinite(values).all(axis=1)
        if name == "rotations":
            bad |= np.linalg.norm(values, axis=1) < 1e-6
        if name == "sizes":
            bad |= (values <= 0).any(axis=1)
        if bad.any():
            index = int(np.flatnonzero(bad)[0])
            raise InputError(
                f"sample {sample_token}: object {objects.ids[index]!r}: unusable {name}: {values[index].tolist()}"
            )


def filter_range(objects: ObjectSet, global_from_base: np.ndarray) -> ObjectSet:
    """The objects within `RANGE_M` of the vehicle. The evaluation drops the others anyway; the file gets smaller."""
    distances = np.linalg.norm(objects.centers[:, :2] - global_from_base[:2, 3], axis=1)
    limits = np.array([RANGE_M.get(label, np.inf) for label in objects.labels])
    return objects.select(distances < limits)


def write_submission(path: str | Path, submission: Mapping) -> None:
    """Write the JSON file, all or nothing. Raises InputError naming the file."""
    write_text(path, json.dumps(submission))


def read_submission(path: str | Path, t_ns: Mapping[str, int] | None = None) -> dict[str, ObjectSet]:
    """The objects of a submission file by sample token; `t_ns` knows the samples' times (0 where it does not).

    Raises InputError naming the file, the sample and the box.
    """
    path = Path(path)
    try:
        submission = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot read it: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not valid JSON: {error}") from None
    if not isinstance(submission, dict) or not all(isinstance(submission.get(k), dict) for k in ("meta", "results")):
        raise InputError(f"{path}: not a nuScenes tracking submission: it lacks 'meta' or 'results'")
    try:
        return {
            token: _read_boxes(token, boxes, (t_ns or {}).get(token, 0))
            for token, boxes in submission["results"].items()
        }
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _boxes(sample_token: str, objects: ObjectSet) -> list[dict]:
    return [
        {
            "sample_token": sample_token,
            "translation": objects.centers[i].tolist(),
            "size": objects.sizes[i, [1, 0, 2]].tolist(),
            "rotation": objects.rotations[i].tolist(),
            # Unknown velocities become 0: JSON has no NaN, and the tracking metrics do not look.
            "velocity": np.nan_to_num(objects.velocities[i]).tolist(),
            "tracking_id": objects.ids[i],
            "tracking_name": objects.labels[i],
            "tracking_score": float(objects.scores[i]),
        }
        for i in range(len(objects))
    ]


def _read_boxes(sample_token: str, boxes: object, t_ns: int) -> ObjectSet:
    if not isinstance(boxes, list):
        raise InputError(f"sample {sample_token}: expected a list of boxes")
    rows = [_read_box(f"sample {sample_token}, box {index}", sample_token, box) for index, box in enumerate(boxes)]
    objects = _object_set(t_ns, rows)
    check_objects(sample_token, objects)
    return objects


def _object_set(t_ns: int, rows: list[tuple[str, str, list[float]]]) -> ObjectSet:
    numbers = np.array([row for _, _, row in rows], dtype=np.float64).reshape(-1, 13)
    return ObjectSet(
        t_ns=t_ns,
        ids=tuple(track_id for track_id, _, _ in rows),
        labels=tuple(label for _, label, _ in rows),
        centers=numbers[:, 0:3],
        sizes=numbers[:, [4, 3, 5]],
        rotations=numbers[:, 6:10],
        velocities=numbers[:, 10:12],
        scores=numbers[:, 12],
    )


def _read_box(where: str, sample_token: str, box: object) -> tuple[str, str, list[float]]:
    """Id, class and the numbers of `_BOX_FIELDS`, in its order."""
    if not isinstance(box, dict):
        raise InputError(f"{where}: expected an object, got {box!r}")
    for name in ("sample_token", *_BOX_FIELDS, "tracking_id", "tracking_name"):
        if name not in box:
            raise InputError(f"{where}: lacks {name!r}")
    if box["sample_token"] != sample_token:
        raise InputError(f"{where}: its 'sample_token' is {box['sample_token']!r}")
    row = []
    for name, length in _BOX_FIELDS.items():
        values = box[name] if length else [box[name]]
        if not isinstance(values, list) or len(values) != (length or 1) or not all(map(_is_number, values)):
            raise InputError(
                f"{where}: {name!r} must be {f'{length} numbers' if length else 'a number'}, got {box[name]!r}"
            )
        row += map(float, values)
    return str(box["tracking_id"]), str(box["tracking_name"]), row


def _is_number(value: object) -> bool:
    """A number that fits into float64; NaN and infinity are judged by `check_objects`."""
    return isinstance(value, float) or (isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1e300)
