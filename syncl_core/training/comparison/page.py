"""The results as a page in Markdown: tables beside the paper's figures, costs, and how the filter's threshold moved."""

from collections.abc import Sequence

from syncl_core.train_config import TrainConfig
from syncl_core.training.comparison import page_tables as tables
from syncl_core.training.comparison.study import Place, Study, run_of

_PAPER_CLIPS = 12 * 28_130  # epochs of its second stage, key frames of nuScenes' train split


def to_markdown(study: Study, results: dict) -> str:
    """The whole page."""
    asked = dict.fromkeys(row.split("/")[0] for row in study.rows)
    lines = [*_introduction(study, results), ""]
    for table in asked:
        rows = [row for row in study.rows if row.startswith(f"{table}/")]
        lines += [f"## {_title(table)}", "", *tables.scores(rows, results), ""]
        lines += [*tables.against_paper(rows, results), "", *tables.by_class(rows, results)]
    lines += ["## What it costs", "", *tables.costs(study.rows, results), ""]
    lines += [*tables.inference(study.rows, results), ""]
    lines += ["## The filter over training", "", *tables.filter_curves(study, results), ""]
    if results["missing"]:
        lines += ["## Missing", "", *(f"- {name}: {reason}" for name, reason in results["missing"].items()), ""]
    return "\n".join(lines).rstrip() + "\n"


def _introduction(study: Study, results: dict) -> list[str]:
    train, runs = study.config.train, results["runs"]
    rows = run_of(study, study.rows[0], study.seeds[0]).config.train  # Table 8 has a length of its own
    start = "nothing"
    if study.detector is not None:
        detector = results["detector"]
        score = f", NDS {100 * detector['scores']['nds']:.1f} %" if detector and detector["scores"]["nds"] else ""
        start = f"one detector, `{study.detector.name}` ({_length(study.detector.train)}{score})"
    elif study.start:
        start = f"the weights `{study.start.rsplit('/', 1)[-1]}` (sha256 {study.start_digest})"
    lines = [
        f"# Comparison: {study.config.name}",
        "",
        "Written by `syncl ablate`; every number behind it is in `results.json`. All rows have the same budget:",
        "",
        f"- configuration `{study.config.name}`, {_length(rows)} of {train.batch_size} clip(s) of "
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
        "",
        "![differences to the baseline](results.png)",
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


def _budget(study: Study, runs: Sequence[dict]) -> list[str]:
    """How much a run sees, against the paper's."""
    iterations = study.config.train.iterations or max((run["iterations"] for run in runs), default=0)
    clips = iterations * study.config.train.batch_size
    if not clips:
        return []
    share = clips / _PAPER_CLIPS
    reduced = ": a reduced budget" if share < 0.9 else ""
    return [f"- a run sees {clips:,} clips, {100 * share:.2g} % of the paper's {_PAPER_CLIPS:,}{reduced}"]


def _length(train: TrainConfig) -> str:
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
        "open": "What the paper leaves open: SynCL with other answers",
    }
    return titles.get(table, table)
