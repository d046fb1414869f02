"""The tables of a comparison's page, in Markdown."""

import statistics
from collections.abc import Sequence

from syncl_core.training.ablations import ABLATIONS, baseline_of
from syncl_core.training.comparison.results import BY_CLASS
from syncl_core.training.comparison.study import Study

_PERCENT = ("amota", "recall", "nds", "map")
_HEADERS = {"amota": "AMOTA %", "amotp": "AMOTP m", "recall": "recall %", "ids": "IDS", "nds": "NDS %", "map": "mAP %"}
_IN_PAPER = ("amota", "amotp", "nds", "map")
_BLOCKS = "\u2581\u2582\u2583\u2584\u2585\u2586\u2587\u2588"
_COLUMNS = 24  # of a curve


def scores(rows: Sequence[str], results: dict) -> list[str]:
    """Means and spreads of every row."""
    lines = [f"| row | what | n | {' | '.join(_HEADERS.values())} |", "|---|---|---:|" + "---:|" * len(_HEADERS)]
    for row in rows:
        values = results["rows"][row]
        cells = [_cell(values["metrics"][name], name) for name in _HEADERS]
        lines.append(f"| {row} | {ABLATIONS[row].description} | {len(values['seeds'])} | {' | '.join(cells)} |")
    return lines


def against_paper(rows: Sequence[str], results: dict) -> list[str]:
    """The paper's figures with their differences to its baseline, then our differences."""
    names = [_HEADERS[name] for name in _IN_PAPER]
    lines = [f"| against the baseline | {' | '.join(f'{name}: paper | ours | way' for name in names)} |"]
    lines += ["|---|" + "---:|---:|---|" * len(names)]
    for row in rows:
        base, cells = baseline_of(row), []
        is_baseline = results["rows"][row]["runs_of"] == results["rows"][base]["runs_of"]
        for name in _IN_PAPER:
            figure, ours = getattr(ABLATIONS[row], name), results["rows"][row]["differences"][name]
            digits = 3 if name == "amotp" else 1
            if is_baseline:
                cells += [f"{figure:.{digits}f}", "", ""]
            elif figure is None:
                cells += ["", _cell(ours, name, signed=True), ""]
            else:
                more = figure - getattr(ABLATIONS[base], name)
                said = f"{figure:.{digits}f} ({more:+.{digits}f})"
                cells += [said, _cell(ours, name, signed=True), direction(more, ours)]
        lines.append(f"| {row} | {' | '.join(cells)} |")
    return lines


def by_class(rows: Sequence[str], results: dict) -> list[str]:
    """AMOTA of every class with ground truth, and its difference to the baseline's."""
    values = [results["rows"][row] for row in rows]
    names = sorted({name for each in values for name in each["metrics"] if name.startswith(BY_CLASS)})
    if not names:
        return []
    lines = [f"| AMOTA % of | {' | '.join(name.removeprefix(BY_CLASS) for name in names)} |"]
    lines += ["|---|" + "---:|" * len(names)]
    nothing = {"mean": None, "std": None}
    for row, each in zip(rows, values, strict=True):
        is_baseline = each["runs_of"] == results["rows"][baseline_of(row)]["runs_of"]
        of_row = each["metrics" if is_baseline else "differences"]
        cells = [_cell(of_row.get(name, nothing), "amota", signed=not is_baseline) for name in names]
        lines.append(f"| {row} | {' | '.join(cells)} |")
    return [*lines, "", "By class: the baseline's, of the others the difference to it.", ""]


def costs(rows: Sequence[str], results: dict) -> list[str]:
    """A training step's time and memory, against the baseline's."""
    lines = ["| row | step, s | over the baseline's | peak memory, MB | over the baseline's | step in the runs, s |"]
    lines += ["|---|---:|---:|---:|---:|---:|"]
    for row in _networks(rows, results):
        cost, base = (results["rows"][name]["cost"] for name in (row, baseline_of(row)))
        cells = ["-"] * 4
        if cost:
            cells = [f"{cost['step_seconds']:.3f}", f"{cost['step_ratio']:.2f} +- {cost['step_ratio_spread']:.2f}"]
            cells += [f"{cost['memory_mb']:.0f}", _over(cost["memory_mb"], base and base["memory_mb"])]
        seconds = results["rows"][row]["measured"]["step_seconds"]
        lines.append(f"| {row} | {' | '.join(cells)} | {_cell(seconds, 'step_seconds')} |")
    how = [
        "Measured after all runs, one at a time: steps of a row and of the baseline in turn, on the same clips and",
        "in the same process; ratios are medians over pairs +- half the distance of their quartiles. Memory is the",
        "peak of two steps above what was held before: on a GPU what torch allocated, on a CPU resident memory. The",
    ]
    measured = any(results["rows"][row]["cost"] for row in rows)
    return [
        *(how if measured else ["Costs were not measured. The"]),
        "last column is from the logs of the runs, which may have shared the machine: a run's median step without",
        "waiting for clips, mean over seeds +- standard deviation.",
        "",
        *lines,
    ]


def inference(rows: Sequence[str], results: dict) -> list[str]:
    """A step of inference with what only training needs, and without it."""
    measured = {row: results["rows"][row]["cost"] for row in _networks(rows, results)}
    lines = ["| row | step with all that was trained, ms | without, ms | with / without | outputs equal, bit for bit |"]
    lines += ["|---|---:|---:|---:|---|"]
    for row, cost in measured.items():
        if cost and "inference_ratio" in cost:
            both = f"{1e3 * cost['inference_seconds']:.1f} | {1e3 * cost['bare_inference_seconds']:.1f}"
            equal = f"{'yes' if cost['inference_equal'] else 'NO'}, {cost['inference_frames']} frames"
            lines.append(f"| {row} | {both} | {cost['inference_ratio']:.2f} | {equal} |")
    if len(lines) == 2:
        return ["Inference was not measured: no row with SynCL has been timed."]
    return ["At inference the same weights, with what only training needs and without it:", "", *lines]


def filter_curves(study: Study, results: dict) -> list[str]:
    """The filter's threshold and the queries that pass it, over the training."""
    lines = ["| row | threshold on the matching cost | | queries per object that pass | |", "|---|---|---|---|---|"]
    for row in _networks(study.rows, results):
        owner, cells = results["rows"][row]["runs_of"], []
        for name in ("delta", "kept"):
            curves = [r["curves"][name] for r in results["runs"] if r["row"] == owner and name in r["curves"]]
            mean = _mean_curve(curves)
            cells += [f"`{sparkline(mean)}`" if mean else "", f"{mean[0]:.3g} to {mean[-1]:.3g}" if mean else ""]
        if any(cells):
            lines.append(f"| {row} | {' | '.join(cells)} |")
    return ["Means over seeds of the last decoder layer's values, first to last logged iteration.", "", *lines]


def sparkline(values: Sequence[float], columns: int = _COLUMNS) -> str:
    """A curve as one line of text: means of equal parts, lowest to highest."""
    if not values:
        return ""
    count = min(columns, len(values))
    parts = [values[i * len(values) // count : (i + 1) * len(values) // count] for i in range(count)]
    means = [statistics.fmean(part) for part in parts]
    low, high = min(means), max(means)
    steps = len(_BLOCKS) - 1
    return "".join(_BLOCKS[round((mean - low) / (high - low) * steps) if high > low else 0] for mean in means)


def direction(paper: float, ours: dict) -> str:
    """Whether a difference to the baseline goes the paper's way; unclear if its mean is within its own spread."""
    mean, std = ours["mean"], ours["std"]
    if mean is None:
        return "-"
    if std is None or abs(mean) <= std or not paper:
        return "unclear"
    return "same" if mean * paper > 0 else "opposite"


def _mean_curve(curves: Sequence[Sequence[Sequence[float]]]) -> list[float]:
    by_iteration: dict[float, list[float]] = {}
    for iteration, value in (point for curve in curves for point in curve):
        by_iteration.setdefault(iteration, []).append(value)
    return [statistics.fmean(by_iteration[iteration]) for iteration in sorted(by_iteration)]


def _networks(rows: Sequence[str], results: dict) -> list[str]:
    """Rows without those that share their runs with an earlier one."""
    first = {}
    for row in rows:
        first.setdefault(results["rows"][row]["runs_of"], row)
    return list(first.values())


def _cell(value: dict, name: str, signed: bool = False) -> str:
    if value["mean"] is None:
        return "-"
    factor, digits = (100, 1) if name in _PERCENT else (1, 1 if name == "ids" else 3)
    text = f"{factor * value['mean']:{'+' if signed else ''}.{digits}f}"
    return text if value["std"] is None else f"{text} +- {factor * value['std']:.{digits}f}"


def _over(value: float, base: float | None) -> str:
    return f"{value / base:.2f}" if base else "-"
