"""Official nuScenes tracking metrics (tracking_nips_2019), computed by nuscenes-devkit itself.

What is added around the devkit: any selection of scenes, errors that name the culprit instead of bare assertions, and
defined results for a tracker that found nothing. Known quirks of the devkit (tracks with gaps are interpolated with
reversed weights, scores are averaged per track) are kept: the published numbers contain them.
"""

import contextlib
import io
import json
import math
import tempfile
import unittest
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from syncl_core.classes import TRACKING_CLASSES
from syncl_core.data import tables
from syncl_core.errors import InputError
from syncl_core.evaluation.selection import SPLIT, cannot_evaluate, check_classes, link_root, samples_of, select_scenes
from syncl_core.io.files import make_folder, write_text
from syncl_core.io.submission import read_submission
from syncl_core.types import ObjectSet


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassMetrics:
    """Tracking metrics of one class. NaN = undefined: no ground truth, or no box matched."""

    gt: float  # ground-truth boxes in range, with a lidar or radar point or interpolated between two such
    amota: float  # average over 40 recall levels of the recall-normalised MOTA; higher is better
    amotp: float  # metres, average of the position error, 2.0 for recall levels not reached; lower is better
    recall: float  # this and the following: at the score threshold with the best MOTA
    mota: float
    motp: float  # metres
    ids: float  # identity switches
    fp: float  # false positives
    fn: float  # missed boxes


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackingMetrics(ClassMetrics):
    """Metrics over the classes that count and have ground truth: counts are sums, the others means."""

    per_class: Mapping[str, ClassMetrics]
    scenes: tuple[str, ...]
    num_samples: int


def evaluate_tracking(
    root: str | Path,
    version: str,
    split_or_scenes: str | Sequence[str],
    submission_path: str | Path,
    output_dir: str | Path | None = None,
    classes: Sequence[str] = TRACKING_CLASSES,
    on_class: Callable[[], object] = lambda: None,
) -> TrackingMetrics:
    """Compare a submission file with the ground truth of a split (its name) or of scenes (a sequence of names).

    `version` "" means the only one of `root`, which is not written to. An empty split name means every scene the
    submission has a key frame of. The devkit's `metrics_summary.json` and `metrics_details.json` go to `output_dir`.
    `classes` are those that count: fewer than all for a tracker that knows fewer, whose figures are then no longer
    those of the benchmark. Takes seconds for a scene, minutes for the 150 scenes of val; `on_class` hears of every
    class that is done.

    Raises InputError for an unusable root, submission or selection, and for a class that nuScenes does not track; ids
    that occur twice in a frame are one case.
    """
    check_classes(classes)
    if output_dir is not None:
        make_folder(output_dir)  # now, not after the evaluation
    version = tables.find_version(root, version)
    submission = read_submission(submission_path)
    scenes = select_scenes(Path(root), version, split_or_scenes, submission)
    samples = samples_of(Path(root), version, scenes)
    if not samples:
        raise InputError(f"{root}: no key frame in {', '.join(scenes)}: nothing to evaluate")
    missing = [token for token in samples if token not in submission]
    if missing:
        raise InputError(
            f"{submission_path}: lacks {len(missing)} of the {len(samples)} key frames of {tables.some(scenes)}, "
            f"first {missing[0]}; a key frame without tracks needs an empty list"
        )
    with tempfile.TemporaryDirectory(prefix="syncl-eval-") as folder:
        linked_root = link_root(Path(root), version, scenes, Path(folder))
        results = _results_file(submission_path, submission, samples, Path(folder))
        summary, details = _run_devkit(root, linked_root, version, results, Path(folder) / "metrics", classes, on_class)
    if output_dir is not None:
        write_text(Path(output_dir) / "metrics_summary.json", json.dumps(summary, indent=2))
        write_text(Path(output_dir) / "metrics_details.json", json.dumps(details, indent=2))
    return _metrics(summary, scenes, len(samples))


def format_metrics(metrics: TrackingMetrics) -> str:
    """A text table, one row per class with ground truth and one over all."""
    lines = [
        f"{len(metrics.scenes)} scene(s), {metrics.num_samples} key frames",
        f"{'class':<12}{'AMOTA':>8}{'AMOTP':>8}{'recall':>8}{'MOTA':>8}{'IDS':>7}{'FP':>7}{'FN':>7}{'GT':>8}",
    ]
    lines += [_format_row(name, row) for name, row in metrics.per_class.items() if row.gt]
    lines.append(_format_row("all", metrics))
    absent = [name for name, row in metrics.per_class.items() if not row.gt]
    if absent:
        lines.append(
            f"No ground truth in range, so left out and their false positives not counted: {', '.join(absent)}."
        )
    return "\n".join(lines)


def _format_row(name: str, row: ClassMetrics) -> str:
    ratios = "".join(f"{'-' if math.isnan(x) else f'{x:.3f}':>8}" for x in (row.amota, row.amotp, row.recall, row.mota))
    counts = "".join(f"{'-' if math.isnan(x) else f'{x:.0f}':>7}" for x in (row.ids, row.fp, row.fn))
    return f"{name:<12}{ratios}{counts}{row.gt:>8.0f}"


def _results_file(path: str | Path, submission: Mapping[str, ObjectSet], samples: Sequence[str], folder: Path) -> Path:
    """The file to evaluate: the user's, unless it has no box at all, on which the devkit fails.

    A box a million kilometres away is dropped as out of range, and makes the devkit compute what it computes for any
    class that was never found: AMOTA 0, AMOTP 2, recall 0, everything missed.
    """
    if any(len(submission[token]) for token in samples):
        return Path(path)
    results = {token: [] for token in samples}
    results[samples[0]] = [
        {
            "sample_token": samples[0],
            "translation": [1e9, 1e9, 0.0],
            "size": [1.0, 1.0, 1.0],
            "rotation": [1.0, 0.0, 0.0, 0.0],
            "velocity": [0.0, 0.0],
            "tracking_id": "nothing",
            "tracking_name": "car",
            "tracking_score": 0.0,
        }
    ]
    stand_in = folder / "results.json"
    stand_in.write_text(json.dumps({"meta": json.loads(Path(path).read_text())["meta"], "results": results}))
    return stand_in


def import_devkit() -> tuple:
    """What the metrics are computed with. Raises InputError if a part of it is not installed.

    It takes seconds; a long command calls it first, so that nothing is missing at its end.
    """
    try:
        from nuscenes.eval.common.config import config_factory
        from nuscenes.eval.tracking.evaluate import TrackingEval

        from syncl_core.evaluation.quick import quick_devkit
    except (ImportError, unittest.SkipTest) as error:  # SkipTest is how the devkit says that pandas is missing
        raise InputError(f"the official metrics need nuscenes-devkit, motmetrics and pandas: {error}") from None
    return config_factory, TrackingEval, quick_devkit


def _run_devkit(
    root: str | Path,
    linked_root: Path,
    version: str,
    results: Path,
    output_dir: Path,
    classes: Sequence[str],
    on_class: Callable[[], object],
) -> tuple[dict, dict]:
    """The devkit's summary and details. Its prints and progress bars go nowhere."""
    config_factory, TrackingEval, quick_devkit = import_devkit()
    silence = io.StringIO()
    with contextlib.redirect_stdout(silence), contextlib.redirect_stderr(silence), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = config_factory("tracking_nips_2019")  # first: it fills a global that the boxes are checked against
        config.class_names = sorted(classes)
        try:
            evaluation = TrackingEval(
                config, str(results), SPLIT, str(output_dir), version, str(linked_root), verbose=False
            )
        except Exception as error:
            raise cannot_evaluate(error, root, linked_root, version) from error
        with quick_devkit(on_class):
            summary = evaluation.main(render_curves=False)
    details = json.loads((output_dir / "metrics_details.json").read_text())
    return summary, details


def _metrics(summary: dict, scenes: Sequence[str], num_samples: int) -> TrackingMetrics:
    names = [f.name for f in fields(ClassMetrics)]
    labels = summary["label_metrics"]
    per_class = {}
    for label in sorted(labels["amota"]):
        row = {name: labels[name][label] for name in names}
        row["gt"] = 0.0 if math.isnan(row["gt"]) else row["gt"]
        per_class[label] = ClassMetrics(**row)
    overall = {name: summary[name] for name in names}
    overall["gt"] = sum(row.gt for row in per_class.values())
    return TrackingMetrics(**overall, per_class=per_class, scenes=tuple(scenes), num_samples=num_samples)
