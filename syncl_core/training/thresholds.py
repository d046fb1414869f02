"""Which threshold of its scores a tracker is best with: AMOTA on scenes that it was not trained on."""

import copy
from collections.abc import Callable, Sequence

from syncl_core.config import SynclConfig, with_values
from syncl_core.errors import InputError
from syncl_core.tracking.base import Tracker
from syncl_core.training.evaluate import Evaluation

_FOLLOWING = ("record_threshold", "filter_threshold", "output_threshold")


def at_threshold(tracker: Tracker, threshold: float) -> Tracker:
    """The same weights with `track.score_threshold` at `threshold`, and the other thresholds in their ratios to it.

    Raises InputError for a threshold that is not above 0 and at most 1, and for a network without tracks.
    """
    track = tracker.config.track
    if not 0 < threshold <= 1:
        raise InputError(f"track.score_threshold: expected a threshold above 0, at most 1, got {threshold:g}")
    if tracker.config.model.framework == "none":
        raise InputError("model.framework: none has no tracks to choose a threshold for; give a tracker")
    if not track.score_threshold:
        raise InputError("track.score_threshold: is 0; without a threshold there is nothing to choose")
    ratios = {name: getattr(track, name) / track.score_threshold for name in _FOLLOWING}
    values = {name: min(1.0, round(threshold * ratio, 6)) for name, ratio in ratios.items()}
    other = copy.copy(tracker)  # shares all weights
    other.config = with_values(tracker.config, {"track": {"score_threshold": threshold, **values}})
    return other


def scores_by_threshold(
    evaluation: Evaluation, tracker: Tracker, thresholds: Sequence[float], look: Callable[[], object] = lambda: None
) -> dict[float, dict[str, float]]:
    """Official metrics at each threshold. `look` is called after every scene."""
    trackers = {f"threshold-{value!r}": at_threshold(tracker, value) for value in thresholds}
    scores = evaluation.side_by_side(trackers, look)
    return dict(zip(thresholds, scores.values(), strict=True))


def best_threshold(scores: dict[float, dict[str, float]]) -> float:
    """That of the highest AMOTA; of several, the lowest."""
    return max(sorted(scores), key=lambda value: scores[value]["amota"])


def format_scores(scores: dict[float, dict[str, float]], config: SynclConfig) -> str:
    """A table, with a star at the best threshold and "now" at that of `config`."""
    best = best_threshold(scores)
    lines = [f"{'threshold':>9}{'AMOTA':>9}{'AMOTP':>9}{'recall':>9}{'IDS':>7}{'false':>8}{'missed':>8}"]
    for value, of_value in scores.items():
        metrics = "".join(f"{of_value[name]:9.3f}" for name in ("amota", "amotp", "recall"))
        counts = f"{of_value['ids']:7.0f}{of_value['fp']:8.0f}{of_value['fn']:8.0f}"
        marks = " *" * (value == best) + "  now" * (value == config.track.score_threshold)
        lines.append(f"{value:9g}{metrics}{counts}{marks}")
    return "\n".join(lines)
