"""What longer training brings: the baseline and SynCL (or another row) over the iterations of several comparisons."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from syncl_core.errors import InputError
from syncl_core.training.ablations import baseline_of
from syncl_core.training.comparison.picture import (
    COLORS,
    PANELS,
    SYNCL,
    comparison_errors,
    empty_figure,
    row_of_interest,
)
from syncl_core.training.comparison.results import spread
from syncl_core.training.comparison.study import first_difference

_COLORS = (COLORS["unclear"], COLORS["ahead"])
_LEGEND = "Over the iterations a run trained. Dots: seeds; bars: mean and standard deviation."


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A comparison of runs of one length. AMOTA, NDS and mAP are in %, by series and metric, one for each seed."""

    iterations: int
    values: dict[str, dict[str, tuple[float, ...]]]


def curve(files: Sequence[Path]) -> list[Point]:
    """A point for each results.json, in the order of their iterations.

    Raises InputError naming the file that is not one, or two of other settings or scenes, or of the same iterations.
    """
    points, configs = {}, {}
    for file in files:
        with comparison_errors(file):
            results = json.loads(file.read_text(encoding="utf-8"))
            row = row_of_interest(results)
            config = results["config"] | {"row": row, "evaluation": results.get("evaluation")}
            iterations = config["train"].pop("iterations")
            name = "SynCL" if row == SYNCL else row
            values = {"baseline": _values(results, baseline_of(row)), name: _values(results, row)}
        for other in configs:
            if difference := first_difference(configs[other], config):
                raise InputError(f"{file} and {other} differ in more than their iterations: {difference}")
        if iterations in points:
            raise InputError(f"{file}: {iterations} iterations, as another one of the files")
        configs[file], points[iterations] = config, Point(iterations=iterations, values=values)
    return [points[iterations] for iterations in sorted(points)]


def curve_figure(points: Sequence[Point]):
    """As a matplotlib figure, a panel for each metric. Raises InputError if matplotlib is missing."""
    whole = empty_figure(11, 3.6)
    for panel, (metric, title) in zip(whole.subplots(1, len(PANELS)), PANELS.items(), strict=True):
        panel.set_title(f"{title} %", fontsize=10)
        panel.grid(alpha=0.3)
        for series, color in zip(points[0].values, _COLORS, strict=True):
            _draw(panel, points, series, metric, color)
        panel.set_xticks([point.iterations for point in points])
        panel.set_ylim(bottom=0)
    whole.axes[0].legend(fontsize=9, loc="lower right")
    whole.supxlabel(_LEGEND, fontsize=9)
    return whole


def _draw(panel, points: Sequence[Point], series: str, metric: str, color: str) -> None:
    places = [point.iterations for point in points]
    spreads = [spread(point.values[series][metric]) for point in points]
    means = [math.nan if each.mean is None else each.mean for each in spreads]
    bars = [each.std or 0.0 for each in spreads]
    panel.errorbar(places, means, yerr=bars, color=color, capsize=3, linewidth=1.6, label=series)
    for point in points:
        dots = point.values[series][metric]
        panel.scatter([point.iterations] * len(dots), dots, s=14, color=color, alpha=0.55, linewidths=0)


def _values(results: dict, row: str) -> dict[str, tuple[float, ...]]:
    """Of the network of a row, by metric. Raises KeyError if it has no run."""
    runs = [run["scores"] for run in results["runs"] if run["row"] == results["rows"][row]["runs_of"]]
    if not runs:
        raise KeyError(row)
    known = {metric: [run[metric] for run in runs if run.get(metric) is not None] for metric in PANELS}
    return {metric: tuple(100 * value for value in values) for metric, values in known.items()}
