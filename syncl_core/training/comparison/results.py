"""Every number of a comparison in one file: the runs as they are, and means and spreads over seeds."""

import dataclasses
import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from syncl_core.config import config_to_dict
from syncl_core.errors import InputError
from syncl_core.io.files import write_text
from syncl_core.training.ablations import baseline_of
from syncl_core.training.comparison.cost import COST
from syncl_core.training.comparison.crew import ERROR
from syncl_core.training.comparison.study import (
    PlannedRun,
    Study,
    complete,
    detector_run,
    first_difference,
    planned,
    run_of,
)
from syncl_core.training.comparison.tasks import RESULT, SETTINGS
from syncl_core.training.progress import LOG, read_log

RESULTS = "results.json"
METRICS = ("amota", "amotp", "recall", "ids", "nds", "map")
BY_CLASS = "amota/"  # what the names of a class's AMOTA begin with
CURVES = ("delta", "kept")  # the filter's threshold, and queries per object that passed it


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Of one figure over seeds. Seeds without the figure are left out."""

    mean: float | None
    std: float | None  # of a sample: divided by n - 1; None with fewer than two
    count: int


def spread(values: Iterable[float | None]) -> Spread:
    known = [value for value in values if value is not None]
    return Spread(
        mean=statistics.fmean(known) if known else None,
        std=statistics.stdev(known) if len(known) > 1 else None,
        count=len(known),
    )


def collect(folder: Path, study: Study) -> dict:
    """What results.json holds. Times and memory are under "measured" and "cost", all else is a function of the study.

    Raises InputError if a file of a run is not one.
    """
    runs = {run.folder: _run_values(folder, run) for run in planned(study)}
    missing = {run.name: _reason(folder / run.folder) for run in planned(study) if runs[run.folder] is None}
    rows = {}
    for row in study.rows:
        of_row = [runs[run_of(study, row, seed).folder] for seed in study.seeds]
        baseline = [runs[run_of(study, baseline_of(row), seed).folder] for seed in study.seeds]
        rows[row] = _row_values(of_row, baseline) | {"runs_of": run_of(study, row, study.seeds[0]).row}
    results = {
        "config": config_to_dict(study.config),
        "evaluation": {**dataclasses.asdict(study.evaluation), "data": Path(study.evaluation.data).name},
        "rows_asked": list(study.rows),
        "seeds": list(study.seeds),
        "rows": rows,
        "runs": [values for values in runs.values() if values],
        "missing": missing,
    }
    if study.detector is not None:
        results["detector"] = _run_values(folder, detector_run(study), "detector")
    return results


def write_results(folder: Path, results: dict) -> None:
    write_text(folder / RESULTS, json.dumps(results, indent=1) + "\n")


def paired(values: Sequence[dict | None], baseline: Sequence[dict | None], metric: str) -> Spread:
    """The difference to the baseline of the same seed: same order of clips, same augmentation, same first weights."""
    differences = [_difference(v, b, metric) for v, b in zip(values, baseline, strict=True)]
    return spread(differences)


def by_seed(results: dict, row: str, metric: str) -> dict[int, float]:
    """From results.json: the difference of a row to its baseline, by seed. Seeds without one of them are left out."""
    runs = {(run["row"], run["seed"]): run for run in results["runs"]}
    owners = [results["rows"][name]["runs_of"] for name in (row, baseline_of(row))]
    pairs = {seed: [runs.get((owner, seed)) for owner in owners] for seed in results["seeds"]}
    differences = {seed: _difference(*pair, metric) for seed, pair in pairs.items()}
    return {seed: value for seed, value in differences.items() if value is not None}


def _difference(values: dict | None, baseline: dict | None, metric: str) -> float | None:
    pair = [run and run["scores"].get(metric) for run in (values, baseline)]
    return None if None in pair else pair[0] - pair[1]


def _row_values(of_row: list[dict | None], baseline: list[dict | None]) -> dict:
    there = [run for run in of_row if run]
    names = dict.fromkeys(METRICS) | dict.fromkeys(name for run in there for name in run["scores"] if name != "score")
    return {
        "seeds": [run["seed"] for run in there],
        "metrics": {name: _as_dict(spread(run["scores"].get(name) for run in there)) for name in names},
        "differences": {name: _as_dict(paired(of_row, baseline, name)) for name in names},
        "measured": {"step_seconds": _as_dict(spread(run["measured"]["step_seconds"] for run in there))},
        "cost": next((run["cost"] for run in there if run["cost"]), None),
    }


def _as_dict(value: Spread) -> dict:
    return {"mean": value.mean, "std": value.std, "count": value.count}


def _run_values(folder: Path, run: PlannedRun, name: str | Path = "") -> dict | None:
    place = folder / (name or run.folder)
    result = _read(place / RESULT, run)
    if result is None:
        return None
    log = read_log(place) if (place / LOG).is_file() else []
    curves = {
        name: [[row["iteration"], row[f"stats/{name}"]] for row in log if f"stats/{name}" in row] for name in CURVES
    }
    return result | {
        "curves": {name: points for name, points in curves.items() if points},
        "measured": {"step_seconds": _median_step_seconds(log)},
        "cost": _read(place / COST, run),
    }


def _median_step_seconds(log: list[dict]) -> float | None:
    """Of a step of training, without the waiting for clips."""
    seconds = [row["seconds"] * (1 - row["data_share"]) for row in log if "seconds" in row]
    return statistics.median(seconds) if seconds else None


def _read(path: Path, run: PlannedRun) -> dict | None:
    """A run's file; None if there is none, or it is of other settings."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        raise InputError(f"{path}: cannot be read; remove it and start again to make it anew") from None
    return values if values.get("digest") == run.digest or _is_of(path.parent / SETTINGS, run) else None


def _is_of(path: Path, run: PlannedRun) -> bool:
    """Whether the settings stored there, by an earlier version with fewer keys, are this run's."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return not first_difference(complete(stored), run.settings)


def _reason(folder: Path) -> str:
    try:
        return (folder / ERROR).read_text(encoding="utf-8").strip()
    except OSError:
        return "not finished"
