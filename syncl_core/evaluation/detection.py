"""Official nuScenes detection metrics (detection_cvpr_2019), computed by nuscenes-devkit itself: mAP and NDS.

Attributes, which the network does not predict, follow from class and speed as in mmdetection3d, so that a tenth of NDS
is comparable with published figures.
"""

import contextlib
import io
import json
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from syncl_core.data import tables
from syncl_core.errors import InputError
from syncl_core.evaluation.selection import SPLIT, cannot_evaluate, link_root, samples_of, select_scenes
from syncl_core.io.submission import CAMERA_ONLY, MAX_BOXES_PER_SAMPLE
from syncl_core.types import ObjectSet

MOVING_SPEED = 0.2  # m/s
_MOVING = {
    **dict.fromkeys(("car", "truck", "bus", "trailer", "construction_vehicle"), "vehicle.moving"),
    **dict.fromkeys(("bicycle", "motorcycle"), "cycle.with_rider"),
    "pedestrian": "pedestrian.moving",
}
_RESTING = {
    **dict.fromkeys(("car", "truck", "trailer", "construction_vehicle"), "vehicle.parked"),
    **dict.fromkeys(("bicycle", "motorcycle"), "cycle.without_rider"),
    "bus": "vehicle.stopped",
    "pedestrian": "pedestrian.standing",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectionMetrics:
    """Higher is better for the first two, lower for the errors, which are 1 where nothing was matched."""

    nds: float  # nuScenes detection score
    mean_ap: float  # over all ten classes; a class without ground truth counts as 0
    errors: Mapping[str, float]  # mATE (metres), mASE (1 - IoU), mAOE (radians), mAVE (m/s), mAAE (1 - accuracy)
    class_ap: Mapping[str, float]  # of the classes with ground truth
    scenes: tuple[str, ...]
    num_samples: int

    @property
    def present_ap(self) -> float:
        """Mean AP over the classes with ground truth; NaN without any."""
        return float(np.mean(list(self.class_ap.values()))) if self.class_ap else float("nan")


def evaluate_detection(
    root: str | Path, version: str, split_or_scenes: str | Sequence[str], results: Mapping[str, ObjectSet]
) -> DetectionMetrics:
    """Compare boxes by sample token with the ground truth of a split (its name) or of scenes (names).

    "" as a split means every scene with a sample in `results`. A missing sample has no boxes; of more than 500 boxes of
    a sample the best count. Raises InputError for an unusable root or selection.
    """
    version = tables.find_version(root, version)
    scenes = select_scenes(Path(root), version, split_or_scenes, results)
    samples = samples_of(Path(root), version, scenes)
    if not samples:
        raise InputError(f"{root}: no key frame in {', '.join(scenes)}: nothing to evaluate")
    boxes = {token: _boxes(token, results[token]) if token in results else [] for token in samples}
    if not any(boxes.values()):
        boxes[samples[0]] = [_far_away(samples[0])]  # the devkit fails without any box; this one is out of range
    with tempfile.TemporaryDirectory(prefix="syncl-eval-") as folder:
        linked_root = link_root(Path(root), version, scenes, Path(folder))
        file = Path(folder) / "results.json"
        file.write_text(json.dumps({"meta": CAMERA_ONLY, "results": boxes}))
        summary, present = _run_devkit(root, linked_root, version, file, Path(folder) / "metrics")
    errors = {f"m{_SHORT[name]}": value for name, value in summary["tp_errors"].items()}
    return DetectionMetrics(
        nds=summary["nd_score"],
        mean_ap=summary["mean_ap"],
        errors=errors,
        class_ap={name: ap for name, ap in summary["mean_dist_aps"].items() if name in present},
        scenes=scenes,
        num_samples=len(samples),
    )


_SHORT = {"trans_err": "ATE", "scale_err": "ASE", "orient_err": "AOE", "vel_err": "AVE", "attr_err": "AAE"}


def _boxes(token: str, objects: ObjectSet) -> list[dict]:
    best = np.argsort(-objects.scores, kind="stable")[:MAX_BOXES_PER_SAMPLE]
    velocities = np.nan_to_num(objects.velocities)
    return [
        {
            "sample_token": token,
            "translation": objects.centers[i].tolist(),
            "size": objects.sizes[i, [1, 0, 2]].tolist(),
            "rotation": objects.rotations[i].tolist(),
            "velocity": velocities[i].tolist(),
            "detection_name": objects.labels[i],
            "detection_score": float(objects.scores[i]),
            "attribute_name": attribute(objects.labels[i], float(np.linalg.norm(velocities[i]))),
        }
        for i in map(int, best)
    ]


def attribute(label: str, speed: float) -> str:
    """The attribute of a class at a speed (m/s); "" for classes that have none."""
    return (_MOVING if speed > MOVING_SPEED else _RESTING).get(label, "")


def _far_away(token: str) -> dict:
    return {
        **{"sample_token": token, "translation": [1e9, 1e9, 0.0], "size": [1.0, 1.0, 1.0]},
        **{"rotation": [1.0, 0.0, 0.0, 0.0], "velocity": [0.0, 0.0]},
        **{"detection_name": "car", "detection_score": 0.0, "attribute_name": "vehicle.parked"},
    }


def _run_devkit(root, linked_root: Path, version: str, results: Path, output_dir: Path) -> tuple[dict, set[str]]:
    """The devkit's summary, and the classes with ground truth in range. Its prints go nowhere."""
    try:
        from nuscenes.eval.common.config import config_factory
        from nuscenes.eval.detection.evaluate import DetectionEval
    except ImportError as error:
        raise InputError(f"the official metrics need nuscenes-devkit: {error}") from None
    silence = io.StringIO()
    with contextlib.redirect_stdout(silence), contextlib.redirect_stderr(silence), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = config_factory("detection_cvpr_2019")
        nusc = tables.open_devkit(linked_root, version)
        try:
            evaluation = DetectionEval(nusc, config, str(results), SPLIT, str(output_dir), verbose=False)
        except Exception as error:
            raise cannot_evaluate(error, root, linked_root, version) from error
        summary = evaluation.main(render_curves=False)
    return summary, {box.detection_name for box in evaluation.gt_boxes.all}
