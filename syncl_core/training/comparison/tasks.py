"""One run of a comparison: an ordinary training, then official metrics of its last weights."""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import torch

from syncl_core.bench.measure import device_name
from syncl_core.checkpoint import load_checkpoint
from syncl_core.data.nuscenes_clips import NuScenesClips
from syncl_core.errors import InputError
from syncl_core.io.files import write_text
from syncl_core.training.comparison.study import Place, PlannedRun, file_digest, first_difference
from syncl_core.training.distributed import join
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
        path = self.folder / SETTINGS
        if path.is_file():
            difference = first_difference(json.loads(path.read_text(encoding="utf-8")), self.planned.settings)
            if difference:
                raise InputError(f"{self.folder}: holds another run, {difference}; choose another -o")
        elif (self.folder / SNAPSHOT).exists():
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
        clips = NuScenesClips(self.evaluation.data, config, self.evaluation.split, self.evaluation.version)
        tracker = load_checkpoint(self.folder / LAST).to(workers.device)
        iterations = read_log(self.folder)[-1]["iteration"]
        scores = Evaluation(clips, self.folder / "evaluations", workers)(tracker, iterations)
        self._write(scores, iterations, workers.device)
        return True

    def _write(self, scores: dict[str, float], iterations: int, device: torch.device) -> None:
        result = {
            "row": self.planned.row,
            "seed": self.planned.seed,
            "digest": self.planned.digest,
            "version": self.version,
            "device": device_name(device),
            "iterations": iterations,
            "scores": {name: None if math.isnan(value) else value for name, value in scores.items()},
        }
        write_text(self.folder / RESULT, json.dumps(result, indent=2) + "\n")


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
