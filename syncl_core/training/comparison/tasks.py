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
from syncl_core.training.comparison.study import Place, PlannedRun, Tuning, complete, file_digest, first_difference
from syncl_core.training.distributed import Workers, join
from syncl_core.training.evaluate import Evaluation
from syncl_core.training.progress import LOG, read_log
from syncl_core.training.run import LAST, SNAPSHOT, train
from syncl_core.training.sources import training_source
from syncl_core.training.thresholds import at_threshold, best_threshold, scores_by_threshold

SETTINGS, RESULT = "settings.json", "result.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunTask:
    """A run that gets its result in `folder`."""

    planned: PlannedRun
    folder: Path
    evaluation: Place
    tuning: Tuning | None = None

    @property
    def name(self) -> str:
        return self.planned.name

    @property
    def finished(self) -> bool:
        return (self.folder / RESULT).is_file()

    def check(self) -> None:
        """Raise InputError if the folder holds another run."""
        path = self.folder / SETTINGS
        if path.is_file():
            try:
                stored = json.loads(path.read_text(encoding="utf-8"))
            except ValueError:
                raise InputError(f"{path}: damaged; remove the folder of this run, or choose another -o") from None
            if difference := first_difference(complete(stored), self.planned.settings):
                raise InputError(f"{self.folder}: holds another run, {difference}; choose another -o")
        elif (self.folder / SNAPSHOT).exists():
            raise InputError(f"{self.folder}: holds a run that is not of syncl ablate; choose another -o")

    def _begin(self) -> None:
        write_text(self.folder / SETTINGS, json.dumps(self.planned.settings, indent=1) + "\n")

    def _evaluate(self, trained: Path, workers: Workers, version: str) -> None:
        """The result: official metrics of the last weights in `trained`, which code of `version` made."""
        planned = self.planned
        tracker, tuned = load_checkpoint(trained / LAST).to(workers.device), {}
        if self.tuning is not None:
            by_threshold = scores_by_threshold(
                self._evaluation(self.tuning.place, "tuning", workers), tracker, self.tuning.thresholds
            )
            tracker = at_threshold(tracker, best_threshold(by_threshold))
            tuned = {
                "threshold": tracker.config.track.score_threshold,
                "tuning": {repr(value): scores["amota"] for value, scores in by_threshold.items()},
            }
        iterations = read_log(trained)[-1]["iteration"]
        scores = self._evaluation(self.evaluation, "evaluations", workers)(tracker, iterations)
        result = {
            "row": planned.row,
            "seed": planned.seed,
            "digest": planned.digest,
            "version": version,
            "device": device_name(workers.device),
            "iterations": iterations,
            "scores": {name: None if math.isnan(value) else value for name, value in scores.items()},
            **tuned,
        }
        write_text(self.folder / RESULT, json.dumps(result, indent=2) + "\n")

    def _evaluation(self, place: Place, folder: str, workers: Workers) -> Evaluation:
        clips = NuScenesClips(place.data, self.planned.config, place.split, place.version)
        return Evaluation(clips, self.folder / folder, workers)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainTask(RunTask):
    """Trains and evaluates; called again it goes on where it was."""

    training: Place  # "world" has become a folder where its scenes were drawn beforehand
    start: str
    version: str
    start_digest: str = ""  # what the file to start from was when the comparison began; "" = it is the comparison's own
    encoded: Path | None = None  # where runs share what their frozen encoder makes of key frames

    def run(self, device: str) -> bool:
        """False if it was interrupted. The last weights count: choosing among several would favour luck."""
        self._begin()
        workers, config, place = join(device), self.planned.config, self.training
        source = training_source(place.data, place.version, place.split, config, workers)
        resume = (self.folder / SNAPSHOT).is_file()
        if not resume and self.start_digest and file_digest(self.start) != self.start_digest:
            raise InputError(f"{self.start}: has changed since the comparison began; all rows must start from the same")
        if not train(*(config, source, self.folder, workers), resume=resume, start=self.start, encoded=self.encoded):
            return False
        self._evaluate(self.folder, workers, self.version)
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateTask(RunTask):
    """Evaluates what a TrainTask has left in another folder, `trained`."""

    trained: Path

    def run(self, device: str) -> bool:
        self._begin()
        write_text(self.folder / LOG, (self.trained / LOG).read_text(encoding="utf-8"))
        version = json.loads((self.trained / RESULT).read_text(encoding="utf-8"))["version"]
        self._evaluate(self.trained, join(device), version)
        return True


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
