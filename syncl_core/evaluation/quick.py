"""nuscenes-devkit's tracking evaluation in a fraction of its time, with the same figures to the last bit.

The devkit and motmetrics compute every figure. Most of their time goes into work that is repeated, and that is what is
left out here, while `quick_devkit` lasts:

- A scene whose boxes above two score thresholds are the same is accumulated once, not once per threshold.
- The events of all scenes become one table at once, instead of copying a growing one scene by scene.
- Three metrics go through all objects and search the whole table for each. Here they get the rows of one object at a
  time, and an object with a history (frames, missed or not) that was judged before is not judged again.
- Distances of a frame whose boxes above two thresholds are the same are computed once, and scikit-learn does not check
  again that coordinates are finite.
"""

import bisect
import contextlib
import functools
import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pandas as pd
import sklearn
from motmetrics.metrics import MetricsHost
from nuscenes.eval.tracking import algo, evaluate
from nuscenes.eval.tracking.data_classes import TrackingMetricData
from nuscenes.eval.tracking.metrics import (
    longest_gap_duration,
    num_fragmentations_custom,
    track_initialization_duration,
)
from nuscenes.eval.tracking.utils import create_motmetrics
from sklearn.metrics.pairwise import euclidean_distances

from syncl_core.evaluation.events import Events, SceneEvents, merge

_ONE_AT_A_TIME = threading.RLock()

Boxes = Mapping[int, Sequence]
"""The boxes of a scene by time stamp."""


@contextlib.contextmanager
def quick_devkit(on_class: Callable[[], object] = lambda: None) -> Iterator[None]:
    """While it lasts, `TrackingEval` of this process leaves repeated work out. Other threads wait for their turn.

    on_class: hears of every class that is done.
    """
    places = (
        (evaluate, "TrackingEvaluation", functools.partial(QuickEvaluation, on_done=on_class)),
        (algo, "MOTAccumulatorCustom", SceneEvents),
        (algo, "create_motmetrics", functools.partial(quick_metrics, {})),
        (algo, "sklearn", SimpleNamespace(metrics=SimpleNamespace(pairwise=_Distances()))),
    )
    with _ONE_AT_A_TIME, sklearn.config_context(assume_finite=True, skip_parameter_validation=True):
        before = [getattr(module, name) for module, name, _ in places]
        try:
            for module, name, ours in places:
                setattr(module, name, ours)
            yield
        finally:
            for (module, name, _), theirs in zip(places, before, strict=True):
                setattr(module, name, theirs)


class QuickEvaluation(algo.TrackingEvaluation):
    """The devkit's evaluation of one class, which asks a devkit's evaluation of every single scene."""

    def __init__(
        self,
        tracks_gt: Mapping[str, Boxes],
        tracks_pred: Mapping[str, Boxes],
        class_name: str,
        *args,
        on_done: Callable[[], object] = lambda: None,
        **kwargs,
    ):
        self._on_done = on_done
        tracks_gt, tracks_pred = _of_class(tracks_gt, class_name), _of_class(tracks_pred, class_name)
        super().__init__(tracks_gt, tracks_pred, class_name, *args, **kwargs)
        self._scenes = [
            _Scene(
                algo.TrackingEvaluation({scene: truth}, {scene: tracks_pred[scene]}, class_name, *args, **kwargs),
                sorted(box.tracking_score for boxes in tracks_pred[scene].values() for box in boxes),
            )
            for scene, truth in tracks_gt.items()
        ]

    def accumulate(self) -> TrackingMetricData:
        data = super().accumulate()
        self._on_done()
        return data

    def accumulate_threshold(self, threshold: float | None = None) -> tuple[pd.DataFrame, list[float]]:
        """The events of all scenes, and without a threshold the scores of what was found."""
        parts = [scene.accumulate(threshold) for scene in self._scenes]
        return merge([part for part, _ in parts]), [score for _, scores in parts for score in scores]


class _Distances:
    """scikit-learn's distances, none twice. Whoever asks gets an own copy, because the devkit writes into it."""

    def __init__(self):
        self._known = {}

    def euclidean_distances(self, truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
        key = truth.tobytes(), predicted.tobytes()
        if key not in self._known:
            self._known[key] = euclidean_distances(truth, predicted)
        return self._known[key].copy()


def _of_class(tracks: Mapping[str, Boxes], name: str) -> dict[str, Boxes]:
    """The boxes of one class: the devkit picks them again for every threshold, from what it was given."""
    return {
        scene: {t: [box for box in boxes if box.tracking_name == name] for t, boxes in frames.items()}
        for scene, frames in tracks.items()
    }


@dataclass(frozen=True, slots=True)
class _Scene:
    """One scene and what is known of it already."""

    evaluation: algo.TrackingEvaluation
    scores: Sequence[float]  # of all predicted boxes, ascending
    known: dict[int, Events] = field(default_factory=dict)  # by the number of boxes below the threshold

    def accumulate(self, threshold: float | None) -> tuple[Events, list[float]]:
        if threshold is None:
            accumulator, scores = self.evaluation.accumulate_threshold(None)
            return accumulator.columns(), scores
        below = bisect.bisect_left(self.scores, threshold)
        if below not in self.known:
            self.known[below] = self.evaluation.accumulate_threshold(threshold)[0].columns()
        return self.known[below], []


def quick_metrics(known: dict[tuple[str, bytes], float]) -> MetricsHost:
    """The devkit's metrics, with the three that go through all objects asked about one object at a time.

    known: what they said of an object, by metric and history; it grows.
    """
    host = create_motmetrics()
    host.register(_histories, [], name="histories")
    for name, metric, combine in (
        ("tid", track_initialization_duration, _mean_of_defined),
        ("lgd", longest_gap_duration, _mean_of_defined),
        ("num_fragmentations_custom", num_fragmentations_custom, sum),
    ):
        host.register(_object_by_object(name, metric, combine, known), ["obj_frequencies", "histories"], name=name)
    return host


def _histories(df) -> dict[str, tuple[np.ndarray, bytes]]:
    """By object: its rows in `df.noraw`, and its history: frames since its first, and where it was missed."""
    codes, names = pd.factorize(df.noraw.OId)
    frames = df.noraw.index.get_level_values(0).to_numpy()
    missed = (df.noraw.Type == "MISS").to_numpy()
    order = np.argsort(codes, kind="stable")
    order = order[np.searchsorted(codes[order], 0) :]  # without false positives, which belong to no object
    parts = np.split(order, np.flatnonzero(np.diff(codes[order])) + 1)
    return {
        name: (rows, (frames[rows] - frames[rows[0]]).tobytes() + missed[rows].tobytes())
        for name, rows in zip(names, parts, strict=True)
    }


def _object_by_object(name, metric, combine, known):
    """`metric` of every object by itself, put together by `combine`; nothing but the history counts for it."""

    def of_all(df, obj_frequencies, histories):
        values = []
        for oid in obj_frequencies.index:
            rows, history = histories[oid]
            key = name, history
            if key not in known:
                known[key] = metric(SimpleNamespace(noraw=df.noraw.iloc[rows]), obj_frequencies.loc[[oid]])
            values.append(known[key])
        return combine(values)

    return of_all


def _mean_of_defined(values: Sequence[float]) -> float:
    """NaN without any. All are multiples of half a second, so the order of the sum makes no difference."""
    defined = [value for value in values if not math.isnan(value)]
    return sum(defined) / len(defined) if defined else np.nan
