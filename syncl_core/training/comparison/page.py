"""The results as a page in Markdown: tables beside the paper's figures, costs, and how the filter's threshold moved."""

import statistics
from collections.abc import Sequence

from syncl_core.training.ablations import ABLATIONS, baseline_of
from syncl_core.training.comparison.results import BY_CLASS
from syncl_core.training.comparison.study import Place, Study, run_of

_PERCENT = ("amota", "recall", "nds", "map")
_HEADERS = {"amota": "AMOTA %", "amotp": "AMOTP m", "recall": "recall %", "ids": "IDS", "nds": "NDS %", "map": "mAP %"}
_IN_PAPER = ("amota", "amotp", "nds", "map")
_BLOCKS = "\u2581\u2582\u2583\u2584\u2585\u2586\u2587\u2588"
_COLUMNS = 24  # of a curve
_PAPER_CLIPS = 12 * 28_130  # epochs of its second stage, key frames of nuScenes' train split


def to_markdown(study: Study, results: dict) -> str:
    """The whole page."""
    tables = dict.fromkeys(row.split("/")[0] for row in study.rows)
    lines = [*_introduction(study, results), ""]
    for table in tables:
        rows = [row for row in study.rows if row.startswith(f"{table}/")]
        lines += [f"## {_title(table)}", "", *_scores(rows, results), "", *_against_paper(rows, results), ""]
        lines += _by_class(rows, results)
    lines += ["## What it costs", "", *_costs(study.rows, results), "", *_inference(study.rows, results), ""]
    lines += ["## The filter over training", "", *_curves(study, results), ""]
    if results["missing"]:
        lines += ["## Missing", "", *(f"- {name}: {reason}" for name, reason in results["missing"].items()), ""]
    return "\n".join(lines).rstrip() + "\n"


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


def _introduction(study: Study, results: dict) -> list[str]:
    train, runs = study.config.train, results["runs"]
    start = "nothing"
    if study.detector is not None:
        detector = results["detector"]
        score = f", NDS {100 * detector['scores']['nds']:.1f} %" if detector and detector["scores"]["nds"] else ""
        start = f"one detector, `{study.detector.name}` ({study.detector.train.iterations} iterations{score})"
    elif study.start:
        start = f"the weights `{study.start.rsplit('/', 1)[-1]}` (sha256 {study.start_digest})"
    lines = [
        f"# Comparison: {study.config.name}",
        "",
        "Written by `syncl ablate`; every number behind it is in `results.json`. All rows have the same budget:",
        "",
        f"- configuration `{study.config.name}`, {_length(study)} of {train.batch_size} clip(s) of "
        f"{train.clip_length} frames, learning rate {train.learning_rate:g}",
        *_budget(study, runs),
        f"- seeds {', '.join(map(str, study.seeds))}; a seed decides first weights, order and augmentation in all rows",
        f"- trained on {_training(study)}, evaluated on {_place(study.evaluation)}, started from {start}",
        *_tuning(study, results),
        f"- {len(runs)} finished runs on {_unique(runs, 'device')}; version {_unique(runs, 'version')}",
        "- the last weights count; metrics are the official ones; in mAP and NDS a class without objects counts as 0",
        "",
        "Figures are means over seeds +- sample standard deviation. The paper's are single runs of another network on",
        "other data (nuScenes val, V2-99, 320x800): only directions can be compared. Differences are to the baseline",
        "of the same seed; one whose mean is not larger than its standard deviation is called unclear.",
    ]
    return lines


def _tuning(study: Study, results: dict) -> list[str]:
    """How thresholds were chosen, and which, seed by seed."""
    if study.tuning is None:
        return []
    chosen = []
    for row, of_row in results["rows"].items():
        of_runs = [f"{run['threshold']:g}" for run in results["runs"] if run["row"] == of_row["runs_of"]]
        chosen.append(f"{row} {', '.join(of_runs)}")
    candidates = ", ".join(f"{value:g}" for value in study.tuning.thresholds)
    return [
        f"- every run with the threshold, of {candidates}, of its highest AMOTA on {_place(study.tuning.place)}: "
        + "; ".join(chosen)
    ]


def _scores(rows: Sequence[str], results: dict) -> list[str]:
    lines = [f"| row | what | n | {' | '.join(_HEADERS.values())} |", "|---|---|---:|" + "---:|" * len(_HEADERS)]
    for row in rows:
        values = results["rows"][row]
        cells = [_cell(values["metrics"][name], name) for name in _HEADERS]
        lines.append(f"| {row} | {ABLATIONS[row].description} | {len(values['seeds'])} | {' | '.join(cells)} |")
    return lines


def _against_paper(rows: Sequence[str], results: dict) -> list[str]:
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


def _by_class(rows: Sequence[str], results: dict) -> list[str]:
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


def _costs(rows: Sequence[str], results: dict) -> list[str]:
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
    return [
        "Measured after all runs, one at a time: steps of a row and of the baseline in turn, on the same clips and",
        "in the same process; ratios are medians over pairs +- half the distance of their quartiles. Memory is the",
        "peak of two steps above what was held before: on a GPU what torch allocated, on a CPU resident memory. The",
        "last column is from the logs of the runs, which may have shared the machine: a run's median step without",
        "waiting for clips, mean over seeds +- standard deviation.",
        "",
        *lines,
    ]


def _inference(rows: Sequence[str], results: dict) -> list[str]:
    costs = {row: results["rows"][row]["cost"] for row in _networks(rows, results)}
    lines = ["| row | step with all that was trained, ms | without, ms | with / without | outputs equal, bit for bit |"]
    lines += ["|---|---:|---:|---:|---|"]
    for row, cost in costs.items():
        if cost and "inference_ratio" in cost:
            both = f"{1e3 * cost['inference_seconds']:.1f} | {1e3 * cost['bare_inference_seconds']:.1f}"
            equal = f"{'yes' if cost['inference_equal'] else 'NO'}, {cost['inference_frames']} frames"
            lines.append(f"| {row} | {both} | {cost['inference_ratio']:.2f} | {equal} |")
    if len(lines) == 2:
        return ["Inference was not measured: no row with SynCL has been timed."]
    return ["At inference the same weights, with what only training needs and without it:", "", *lines]


def _curves(study: Study, results: dict) -> list[str]:
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


def _budget(study: Study, runs: Sequence[dict]) -> list[str]:
    """How much a run sees, against the paper's."""
    iterations = study.config.train.iterations or max((run["iterations"] for run in runs), default=0)
    clips = iterations * study.config.train.batch_size
    if not clips:
        return []
    share = clips / _PAPER_CLIPS
    reduced = ": a reduced budget" if share < 0.9 else ""
    return [f"- a run sees {clips:,} clips, {100 * share:.2g} % of the paper's {_PAPER_CLIPS:,}{reduced}"]


def _length(study: Study) -> str:
    train = run_of(study, study.rows[0], study.seeds[0]).config.train  # Table 8 has a length of its own
    return f"{train.iterations} iterations" if train.iterations else f"{train.epochs} epochs"


def _training(study: Study) -> str:
    train = study.config.train
    few = f", {train.scenes} scenes at most" if train.scenes else ""
    later = f", from scene {train.first_scene} on" if train.first_scene else ""
    return _place(study.training) + few + later


def _place(place: Place) -> str:
    scenes = f"{place.scenes} scene(s) of " if place.scenes else ""
    return f"{scenes}`{place.data.rstrip('/').rsplit('/', 1)[-1]}`, split `{place.split or 'all'}`"


def _unique(runs: Sequence[dict], key: str) -> str:
    return ", ".join(sorted({str(run[key]) for run in runs})) or "-"


def _title(table: str) -> str:
    titles = {
        "table4a": "Which parts (Table 4a)",
        "table4b": "Which filter (Table 4b)",
        "table5": "Which objects the object queries answer for (Table 5)",
        "table6": "How many queries per object (Table 6)",
        "table7": "How long clips are (Table 7)",
        "open": "What the paper leaves open: SynCL with one other answer",
    }
    return titles.get(table, table)
