"""Up to where a tracker can be relied on: which objects have a box, and which boxes an object, by distance.

No official metric: those mix all distances. A box is of an object if it has its class and their centres are within two
metres on the ground, as in the official ones; of several boxes the best has the first choice, and takes the nearest.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from syncl_core.classes import TRACKING_CLASSES
from syncl_core.data.nuscenes import NuScenesScenes
from syncl_core.evaluation.selection import check_classes, select_scenes
from syncl_core.io.submission import filter_range, read_submission
from syncl_core.types import ObjectSet

EDGES_M = (0, 10, 20, 30, 40, 50)
"""Of the rings around the vehicle; farther out nothing is evaluated, two-wheelers and pedestrians only up to 40 m."""

NEAR_M = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ring:
    """Counts over key frames, of what is between two distances from the vehicle."""

    low_m: float
    high_m: float
    objects: Mapping[str, int]  # by class: annotated, with a lidar or radar point
    tracked: Mapping[str, int]  # by class: those of them that have a box
    boxes: int
    right: int  # those of them that are of an object


def measure_rings(
    root: str | Path,
    version: str,
    split_or_scenes: str | Sequence[str],
    submission_path: str | Path,
    classes: Sequence[str] = TRACKING_CLASSES,
) -> tuple[Ring, ...]:
    """By ring, of the same scenes and classes as `evaluate_tracking`. A key frame that the submission lacks has no box.

    Raises InputError as that does.
    """
    check_classes(classes)
    submission = read_submission(submission_path)
    data = NuScenesScenes(root, version)
    scenes = select_scenes(data.root, data.version, split_or_scenes, submission)
    found, right = [np.zeros((0, 3))], [np.zeros((0, 3))]
    for token in (sample.token for scene in scenes for sample in data.samples(scene)):
        pose = data.ego_pose(token)
        truth = filter_range(data.ground_truth(token, classes), pose)
        boxes = filter_range(submission.get(token, truth.select(np.zeros(len(truth), bool))), pose)
        boxes = boxes.select(np.isin(boxes.labels, classes))
        for rows, more in zip((found, right), compare_boxes(boxes, truth, pose), strict=True):
            rows.append(more)
    found, right = np.concatenate(found), np.concatenate(right)
    return tuple(_ring(found, right, *edges) for edges in zip(EDGES_M, EDGES_M[1:], strict=False))


def compare_boxes(boxes: ObjectSet, truth: ObjectSet, global_from_base: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of a key frame, the objects that a sensor hit, and the boxes that are not of one that none did.

    Rows [..., 3] float64: index of the class in TRACKING_CLASSES, metres from the vehicle on the ground, 1 if there is
    a counterpart and 0 otherwise. Boxes and objects are in the global frame.
    """
    match = match_boxes(boxes, truth)
    counts, matched = np.ones(len(boxes), bool), match >= 0
    counts[matched] = truth.num_points[match[matched]] > 0
    found = _rows(truth, global_from_base, np.isin(np.arange(len(truth)), match))
    return found[truth.num_points > 0], _rows(boxes, global_from_base, matched)[counts]


def match_boxes(boxes: ObjectSet, truth: ObjectSet, near_m: float = NEAR_M) -> np.ndarray:
    """For every box the row [M] int64 of its object in `truth`, -1 = none. No object has two boxes.

    Both are of one moment and in the same fixed frame.
    """
    match = np.full(len(boxes), -1)
    if not len(truth):
        return match
    distance = np.linalg.norm(boxes.centers[:, None, :2] - truth.centers[None, :, :2], axis=-1)
    distance[np.array(boxes.labels)[:, None] != np.array(truth.labels)[None, :]] = np.inf
    for row in np.argsort(-boxes.scores, kind="stable"):
        nearest = int(distance[row].argmin())
        if distance[row, nearest] < near_m:
            match[row] = nearest
            distance[:, nearest] = np.inf
    return match


def format_rings(rings: Sequence[Ring]) -> str:
    """A text table, one row per ring."""
    classes = [name for name in TRACKING_CLASSES if any(ring.objects[name] for ring in rings)]
    header = f"{'distance':<12}{'objects':>9}{'tracked':>9}{'boxes':>9}{'right':>9}"
    lines = [
        f"Boxes within {NEAR_M:g} m of an object of their class; by class the share of objects that are tracked",
        header + "".join(f"{name:>12}" for name in classes),
    ]
    for ring in rings:
        objects, tracked = sum(ring.objects.values()), sum(ring.tracked.values())
        cells = f"{objects:>9}{_share(tracked, objects):>9}{ring.boxes:>9}{_share(ring.right, ring.boxes):>9}"
        of_class = "".join(f"{_share(ring.tracked[name], ring.objects[name]):>12}" for name in classes)
        lines.append(f"{f'{ring.low_m:g}-{ring.high_m:g} m':<12}{cells}{of_class}")
    return "\n".join(lines)


def _rows(objects: ObjectSet, global_from_base: np.ndarray, has_counterpart: np.ndarray) -> np.ndarray:
    distance = np.linalg.norm(objects.centers[:, :2] - global_from_base[:2, 3], axis=1)
    labels = np.array([TRACKING_CLASSES.index(label) for label in objects.labels], dtype=float)
    return np.stack([labels, distance, has_counterpart], axis=1)


def _ring(found: np.ndarray, right: np.ndarray, low_m: float, high_m: float) -> Ring:
    found, right = (rows[(rows[:, 1] >= low_m) & (rows[:, 1] < high_m)] for rows in (found, right))
    of_class = {name: found[found[:, 0] == i, 2] for i, name in enumerate(TRACKING_CLASSES)}
    return Ring(
        low_m=low_m,
        high_m=high_m,
        objects={name: len(values) for name, values in of_class.items()},
        tracked={name: int(values.sum()) for name, values in of_class.items()},
        boxes=len(right),
        right=int(right[:, 2].sum()),
    )


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.2f}" if whole else "-"
