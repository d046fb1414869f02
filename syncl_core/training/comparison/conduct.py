"""A whole comparison: data drawn once, the detector trained once, every run, then costs, results and the page."""

import contextlib
import functools
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from tqdm import tqdm

from syncl_core.config import SynclConfig
from syncl_core.errors import InputError
from syncl_core.io.files import write_text
from syncl_core.io.folder_lock import locked
from syncl_core.progress_bar import progress_bar
from syncl_core.training.ablations import ABLATIONS, baseline_of
from syncl_core.training.comparison.cost import CostTask
from syncl_core.training.comparison.crew import Task, conduct
from syncl_core.training.comparison.page import to_markdown
from syncl_core.training.comparison.picture import figure, lines_of, write_picture
from syncl_core.training.comparison.places import draw, drawn, drawn_tuning, say_shared, scenes_of
from syncl_core.training.comparison.results import collect, write_results
from syncl_core.training.comparison.study import (
    STUDY,
    Place,
    PlannedRun,
    Study,
    Tuning,
    detector_run,
    load_study,
    planned,
    run_of,
    save_study,
)
from syncl_core.training.comparison.tasks import RESULT, EvaluateTask, TrainTask, iterations_done
from syncl_core.training.distributed import Workers
from syncl_core.training.run import LAST, num_iterations
from syncl_core.training.sources import training_source

PAGE, PICTURE, ENCODED = "results.md", "results.png", "encoded"


def compare(folder: Path, study: Study, device: str, jobs: int, version: str, costs: bool = True) -> dict:
    """Do what is left to do, at most `jobs` runs at a time, and write results.json, .md and .png. Returns the results.

    Safe to interrupt in any way and to call again. Runs that break do not stop others; they are in "missing". Raises
    InputError if nothing can be compared: unusable data, a folder of another comparison, a detector that broke.
    """
    with locked(folder):
        study = _with_finished(folder, study)
        tasks = [_task(folder, run, study, version) for run in planned(study)]
        first = [_detector_task(folder, study, version)] if study.detector else []
        _check([*first, *tasks])
        training, evaluation = draw(folder, study)
        evaluated = scenes_of(study, evaluation)
        places = {"training": training, "evaluation": evaluation}
        first = [replace(task, **places) for task in first]
        tuning = drawn_tuning(folder, study, evaluated)
        tasks = [replace(task, tuning=tuning, **places) for task in tasks]
        say_shared(study, training, evaluated)
        save_study(folder, study)
        with _progress([*first, *tasks], training) as look:
            if broken := conduct([task for task in first if not task.finished], 1, _devices(device, 1), look):
                raise InputError(f"the detector to start from: {next(iter(broken.values()))}")
            conduct([task for task in tasks if not task.finished], jobs, _devices(device, jobs), look)
        if costs:
            _measure_costs(_cost_tasks(folder, study, training, evaluation), device)
        return report(folder, study)


def evaluate_again(
    folder: Path, trained: Path, evaluation: Place, tuning: Tuning | None, device: str, jobs: int
) -> dict:
    """Evaluate the finished runs of the comparison in `trained` on other scenes, into `folder`. Returns the results.

    Raises InputError as `compare` does.
    """
    study = replace(load_study(trained), evaluation=evaluation, tuning=tuning)
    tasks = [
        EvaluateTask(planned=run, folder=folder / run.folder, evaluation=evaluation, trained=trained / run.folder)
        for run in planned(study)
        if (trained / run.folder / RESULT).is_file()
    ]
    with locked(folder):
        _check(tasks)
        evaluation = drawn(folder, evaluation, study)
        tuning = drawn_tuning(folder, study, scenes_of(study, evaluation))
        tasks = [replace(task, evaluation=evaluation, tuning=tuning) for task in tasks]
        save_study(folder, study)
        with _count(tasks, "evaluated") as look:
            conduct([task for task in tasks if not task.finished], jobs, _devices(device, jobs), look)
        return report(folder, study)


def report(folder: Path, study: Study) -> dict:
    """Write results.json, results.md and results.png from what the runs left. Returns the results."""
    results = collect(folder, study)
    write_results(folder, results)
    write_text(folder / PAGE, to_markdown(study, results))
    write_picture(folder / PICTURE, figure(lines_of(results)))
    return results


def _measure_costs(tasks: Sequence[CostTask], device: str) -> None:
    """One at a time, so that nothing of ours disturbs the clocks. What breaks is said and left out."""
    with _count(tasks, "costs") as look:
        for name, reason in conduct(tasks, 1, _devices(device, 1), look).items():
            tqdm.write(f"{name}: {reason}", file=sys.stderr)


@contextlib.contextmanager
def _count(tasks: Sequence[Task], what: str) -> Iterator[Callable[[Sequence[Task]], None]]:
    """A bar over tasks."""
    with progress_bar(total=len(tasks), desc=what, unit="run") as bar:
        yield lambda working: bar.update(sum(task.finished for task in tasks) - bar.n)


def _with_finished(folder: Path, study: Study) -> Study:
    """With the rows that earlier calls asked for and finished: the page shows all there is."""

    def is_there(row: str) -> bool:
        folders = (folder / run_of(study, row, seed).folder for seed in study.seeds)
        return all((place / RESULT).is_file() for place in folders)

    if not (folder / STUDY).is_file():
        return study
    earlier = (row for row in load_study(folder).rows if row in ABLATIONS and is_there(row))
    return replace(study, rows=tuple(dict.fromkeys([*study.rows, *earlier])))


def _check(tasks: Sequence[EvaluateTask | TrainTask]) -> None:
    """Raises InputError where a folder holds another run, before anything is drawn."""
    for task in tasks:
        task.check()


def _task(folder: Path, run: PlannedRun, study: Study, version: str) -> TrainTask:
    """Its places are as asked for: those of the world are yet to be drawn."""
    start = str(folder / "detector" / LAST) if study.detector else study.start
    places = {"training": study.training, "evaluation": study.evaluation}
    return TrainTask(
        **{"planned": run, "folder": folder / run.folder, "start": start, "version": version, **places},
        start_digest="" if study.detector else study.start_digest,
        encoded=folder / ENCODED,
    )


def _detector_task(folder: Path, study: Study, version: str) -> TrainTask:
    task = _task(folder, detector_run(study), study, version)
    return replace(task, folder=folder / "detector", start=study.start, start_digest="")


def _cost_tasks(folder: Path, study: Study, training: Place, evaluation: Place) -> list[CostTask]:
    """One for every network, of the first seed that it and the baseline have finished."""
    tasks = {}
    for row in study.rows:
        for seed in study.seeds:
            run, baseline = run_of(study, row, seed), run_of(study, baseline_of(row), seed)
            places = {"folder": folder / run.folder, "baseline_folder": folder / baseline.folder}
            data = {"training": training, "evaluation": evaluation, "encoded": folder / ENCODED}
            task = CostTask(planned=run, baseline=baseline, **places, **data)
            if all((place / RESULT).is_file() for place in places.values()):
                tasks.setdefault(run.row, task)
                break
    return [task for task in tasks.values() if not task.finished]


def _devices(device: str, jobs: int) -> Callable[[int], str]:
    """A device for each of `jobs` slots: GPUs in turn, unless one is named."""
    count = torch.cuda.device_count() if device in ("", "cuda") else 0
    return lambda slot: f"cuda:{slot % count}" if count else device


@contextlib.contextmanager
def _progress(tasks: Sequence[TrainTask], training: Place) -> Iterator[Callable[[Sequence[Task]], None]]:
    """A bar over the iterations of all runs, and without a terminal a line for every run that ended."""
    lengths = {task.name: _iterations(task, training) for task in tasks}
    total = sum(lengths.values())

    def done(task: TrainTask) -> int:
        return lengths[task.name] if task.finished else min(lengths[task.name], iterations_done(task.folder))

    before, started = sum(map(done, tasks)), time.monotonic()
    finished = {task.name for task in tasks if task.finished}
    bar = tqdm(total=total, initial=before, unit="it", disable=None, dynamic_ncols=True, smoothing=0.0)

    def look(working: Sequence[Task]) -> None:
        count = sum(map(done, tasks))
        bar.n = max(bar.n, count)
        bar.set_description(", ".join(task.name for task in working)[:60], refresh=False)
        bar.set_postfix_str(f"{len(finished)}/{len(tasks)} runs")
        for task in tasks:
            if task.name not in finished and task.finished:
                finished.add(task.name)
                if bar.disable:
                    _say_left(
                        task.name, len(finished), len(tasks), count - before, sum(lengths.values()) - count, started
                    )

    with contextlib.closing(bar):
        yield look


def _say_left(name: str, finished: int, runs: int, made: int, left: int, started: float) -> None:
    minutes = (time.monotonic() - started) / max(made, 1) * left / 60
    rest = f"{minutes:.0f} minutes" if minutes >= 1.5 else "a minute"
    more = f"; about {rest} left" if finished < runs else ""  # costs come after the runs
    print(f"{name}: finished, {finished} of {runs} runs{more}", file=sys.stderr)


def _iterations(task: TrainTask, training: Place) -> int:
    config = task.planned.config
    if config.train.iterations:
        return config.train.iterations
    default, train = SynclConfig(), config.train  # alike for all rows and seeds
    train = replace(default.train, first_scene=train.first_scene, scenes=train.scenes)
    data = replace(default, classes=config.classes, image=config.image, rig=config.rig, train=train)
    return num_iterations(config, _num_key_frames(training, data), 1)


@functools.cache  # reading the tables of all of nuScenes takes a minute
def _num_key_frames(training: Place, config: SynclConfig) -> int:
    source = training_source(training.data, training.version, training.split, config, Workers())
    return sum(map(source.num_key_frames, source.scene_names))
