"""One run of a comparison: an ordinary training, then official metrics of its last weights; or these metrics alone."""

import json
import math
from dataclasses import dataclass
from pathlib import Path

from syncl_core.bench.measure import device_name
from syncl_core.checkpoint import load_checkpoint
from syncl_core.data.nuscenes_clips import NuScenesClips
from syncl_core.errors import InputError
from syncl_core.io.files import write_text
from syncl_core.training.comparison.study import Place, PlannedRun, file_digest, first_difference
from syncl_core.training.distributed import Workers, join
from syncl_core.training.evaluate import Evaluation
from syncl_core.training.progress import LOG, read_log
from syncl_core.training.run import LAST, SNAPSHOT, train
from syncl_core.training.sources import training_source

SETTINGS, RESULT = "settings.json", "result.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainTask:
    """Trains and evaluates into `folder`; called again it goes on where it was."""

    planned: PlannedRun
    folder: Path
    training: Place  # "world" has become a folder where its scenes were drawn beforehand
    evaluation: Place
    start: str
    version: str
    start_digest: str = ""  # what the file to start from was when the comparison began; "" = it is the comparison's own
    encoded: Path | None = None  # where runs share what their frozen encoder makes of key frames

    @property
    def name(self) -> str:
        return self.planned.name

    @property
    def finished(self) -> bool:
        return (self.folder / RESULT).is_file()

    def check(self) -> None:
        """Raise InputError if the folder holds another run."""
        if not _holds(self.folder, self.planned) and (self.folder / SNAPSHOT).exists():
            raise InputError(f"{self.folder}: holds a run that is not of syncl ablate; choose another -o")

    def run(self, device: str) -> bool:
        """False if it was interrupted. The last weights count: choosing among several would favour luck."""
        workers, config = join(device), self.planned.config
        write_text(self.folder / SETTINGS, json.dumps(self.planned.settings, indent=1) + "\n")
        place = self.training
        source = training_source(place.data, place.version, place.split, config, workers)
        resume = (self.folder / SNAPSHOT).is_file()
        if not resume and self.start_digest and file_digest(self.start) != self.start_digest:
            raise InputError(f"{self.start}: has changed since the comparison began; all rows must start from the same")
        if not train(*(config, source, self.folder, workers), resume=resume, start=self.start, encoded=self.encoded):
            return False
        _evaluate(self.folder, self.folder, self.planned, self.evaluation, workers, self.version)
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateTask:
    """Evaluates into `folder` what a TrainTask has left in another one."""

    planned: PlannedRun
    folder: Path
    trained: Path
    evaluation: Place

    @property
    def name(self) -> str:
        return self.planned.name

    @property
    def finished(self) -> bool:
        return (self.folder / RESULT).is_file()

    def check(self) -> None:
        """Raise InputError if the folder holds another run."""
        _holds(self.folder, self.planned)

    def run(self, device: str) -> bool:
        write_text(self.folder / SETTINGS, json.dumps(self.planned.settings, indent=1) + "\n")
        version = json.loads((self.trained / RESULT).read_text(encoding="utf-8"))["version"]
        write_text(self.folder / LOG, (self.trained / LOG).read_text(encoding="utf-8"))
        _evaluate(self.folder, self.trained, self.planned, self.evaluation, join(device), version)
        return True


def _holds(folder: Path, planned: PlannedRun) -> bool:
    """Whether the folder is that of a run. Raises InputError if it is another one."""
    path = folder / SETTINGS
    if path.is_file():
        difference = first_difference(json.loads(path.read_text(encoding="utf-8")), planned.settings)
        if difference:
            raise InputError(f"{folder}: holds another run, {difference}; choose another -o")
    return path.is_file()


def _evaluate(
    folder: Path, trained: Path, planned: PlannedRun, evaluation: Place, workers: Workers, version: str
) -> None:
    """Official metrics of the weights in `trained`, as the run's result in `folder`."""
    clips = NuScenesClips(evaluation.data, planned.config, evaluation.split, evaluation.version)
    tracker = load_checkpoint(trained / LAST).to(workers.device)
    iterations = read_log(trained)[-1]["iteration"]
    scores = Evaluation(clips, folder / "evaluations", workers)(tracker, iterations)
    result = {
        "row": planned.row,
        "seed": planned.seed,
        "digest": planned.digest,
        "version": version,
        "device": device_name(workers.device),
        "iterations": iterations,
        "scores": {name: None if math.isnan(value) else value for name, value in scores.items()},
    }
    write_text(folder / RESULT, json.dumps(result, indent=2) + "\n")


def iterations_done(folder: Path) -> int:
    """How far a run's log says it is."""
    try:
        with (folder / LOG).open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - 20_000))
            lines = file.read().split(b"\n")[:-1]
        return int(json.loads(lines[-1])["iteration"]) if lines else 0
    except (OSError, ValueError, KeyError):
        return 0
