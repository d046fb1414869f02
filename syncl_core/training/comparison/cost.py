"""What a row costs: a step of training next to the baseline's, peak memory, and inference with and without it."""

import json
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.utils import _pytree

from syncl_core.bench.measure import device_name
from syncl_core.bench.training import first_clips, step_times, wait_for
from syncl_core.checkpoint import load_checkpoint
from syncl_core.config import SynclConfig, with_values
from syncl_core.data.clip_source import ClipSource
from syncl_core.data.nuscenes_clips import NuScenesClips
from syncl_core.frames import make_frame
from syncl_core.io.files import write_text
from syncl_core.tensors import Frame
from syncl_core.tracking.base import Tracker
from syncl_core.training.comparison.study import Place, PlannedRun
from syncl_core.training.distributed import Workers, join
from syncl_core.training.run import LAST, SNAPSHOT, Run, make_run, optimise, with_kept_maps
from syncl_core.training.snapshot import load_snapshot
from syncl_core.training.sources import training_source

COST = "cost.json"
_WARMUP, _CLIPS, _FRAMES = 2, 4, 20


@dataclass(frozen=True, slots=True, kw_only=True)
class CostTask:
    """Measures a run that is finished, alone on its machine, into its folder."""

    planned: PlannedRun
    baseline: PlannedRun
    folder: Path  # of the run
    baseline_folder: Path
    training: Place
    evaluation: Place
    encoded: Path | None = None  # where the runs share what their frozen encoder makes of key frames

    @property
    def name(self) -> str:
        return f"costs of {self.planned.name}"

    @property
    def finished(self) -> bool:
        return (self.folder / COST).is_file()

    def run(self, device: str) -> bool:
        workers = join(device)
        config, place = self.planned.config, self.training
        source = training_source(place.data, place.version, place.split, config, workers)
        clips, baseline_clips = (
            first_clips(source, each, _CLIPS, workers.device) for each in (config, self.baseline.config)
        )
        frames = sum(map(source.num_key_frames, source.scene_names))
        before = _reset_peak(workers.device)
        row = self._ready(config, self.folder, workers, source, frames)
        for i in range(_WARMUP):
            optimise(row, clips[i % len(clips)], i)
        memory = _peak(workers.device) - before
        baseline = self._ready(self.baseline.config, self.baseline_folder, workers, source, frames)
        values = {
            "row": self.planned.row,
            "seed": self.planned.seed,
            "digest": self.planned.digest,
            "device": device_name(workers.device),
            "memory_mb": memory / 2**20,
            **step_times(row, baseline, clips, baseline_clips),
        }
        del row, baseline
        values |= self._inference(workers.device) if self.planned.config.syncl.enabled else {}
        write_text(self.folder / COST, json.dumps(values, indent=2) + "\n")
        return True

    def _ready(self, config: SynclConfig, folder: Path, workers: Workers, source: ClipSource, num_frames: int) -> Run:
        """A run with its trained weights, about to make a step."""
        run = make_run(config, folder, workers, num_frames)
        run.model.load_state_dict(load_snapshot(folder / SNAPSHOT, config, workers.size)["model"])
        return with_kept_maps(run, source, self.encoded or folder, num_frames)

    def _inference(self, device: torch.device) -> dict:
        """The same weights with everything that was trained still there, and as the baseline loads them."""
        clips = NuScenesClips(self.evaluation.data, self.planned.config, self.evaluation.split, self.evaluation.version)
        scene = clips.scene_names[0]
        count = min(_FRAMES, clips.num_key_frames(scene))
        image = self.planned.config.image
        frames = [make_frame(clips.frame_set(scene, i), image) for i in range(count)]
        frames = _pytree.tree_map(lambda tensor: tensor.to(device), frames)
        run = make_run(self.planned.config, self.folder, Workers(device=device), clips_per_epoch=1)
        run.model.load_state_dict(load_snapshot(self.folder / SNAPSHOT, self.planned.config, 1)["model"])
        run.model.eval()
        bare = load_checkpoint(self.folder / LAST, with_values(self.planned.config, {"syncl": {"enabled": False}}))
        return inference_times(run.model.tracker, bare.to(device), frames)


@torch.inference_mode()
def inference_times(whole: Tracker, bare: Tracker, frames: list[Frame]) -> dict:
    """Both trackers over the same frames in turn: seconds of a step, and whether all they say is equal bit for bit."""
    device = frames[0].images.device
    states = [whole.init_state(1, device), bare.init_state(1, device)]
    seconds, equal = ([], []), True
    for number, frame in enumerate(frames):
        tracks = [None, None]
        for i in (0, 1) if number % 2 else (1, 0):
            wait_for(device)
            started = time.perf_counter()
            states[i], tracks[i] = (whole, bare)[i].step(states[i], frame)
            wait_for(device)
            seconds[i].append(time.perf_counter() - started)
        equal = equal and _same(*tracks) and _same(*states)
    ratios = [a / b for a, b in zip(*seconds, strict=True)]
    return {
        "inference_seconds": statistics.median(seconds[0]),
        "bare_inference_seconds": statistics.median(seconds[1]),
        "inference_ratio": statistics.median(ratios),
        "inference_frames": len(frames),
        "inference_equal": equal,
    }


def _same(a, b) -> bool:
    """Whether two device values are the same bytes, NaN included."""
    pairs = zip(_pytree.tree_leaves(a), _pytree.tree_leaves(b), strict=True)
    return all(torch.equal(x.reshape(-1).view(torch.uint8), y.reshape(-1).view(torch.uint8)) for x, y in pairs)


def _reset_peak(device: torch.device) -> int:
    """Bytes in use; from here on the peak counts anew."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    try:
        Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak begins at what is resident now
    except OSError:
        return 0
    return _status("VmRSS")


def _peak(device: torch.device) -> int:
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else _status("VmHWM")


def _status(name: str) -> int:
    """Bytes of the process by the kernel's own account; 0 where there is none."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(name + ":")), 0)
