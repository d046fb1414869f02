"""A training step of a row of the paper's tables next to one of the baseline, on clips of the synthetic world."""

import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from syncl_core.bench.measure import device_name
from syncl_core.bench.operations import Operations
from syncl_core.config import SynclConfig, with_values
from syncl_core.data.clip_source import ClipSource
from syncl_core.data.clips import Clip, ClipDataset
from syncl_core.data.loader import RunSampler, make_loader
from syncl_core.progress_bar import progress_bar
from syncl_core.training.ablations import ablated, baseline_of
from syncl_core.training.distributed import join
from syncl_core.training.run import Run, clip_loss, make_run, optimise, with_kept_maps
from syncl_core.training.sources import training_source

_WARMUP, _PAIRS, _CLIPS = 2, 12, 4


def measure_steps(
    config: SynclConfig, row: str, device: str = "", warmup: int = _WARMUP, pairs: int = _PAIRS
) -> dict[str, float | str]:
    """`step_times` of untrained networks, the name of the device as "device", and `step_operations` of both."""
    workers = join(device)
    configs = [ablated(config, name) for name in (row, baseline_of(row))]
    # Scenes for the clips of the bench alone: a frozen encoder wants room on the disk for the maps of all of them.
    few = {"iterations": warmup + pairs, "first_scene": 0, "scenes": 0, "workers": 0}
    short = [with_values(each, {"train": few}) for each in configs]
    source = training_source("world", "", "train", short[0], workers)
    clips = [first_clips(source, each, min(_CLIPS, warmup + pairs), workers.device) for each in short]
    frames = sum(map(source.num_key_frames, source.scene_names))
    with tempfile.TemporaryDirectory(prefix="syncl-bench-") as folder:
        new = (make_run(each, Path(folder), workers, frames) for each in configs)
        runs = [with_kept_maps(run, source, Path(folder), frames) for run in new]
        times = {"device": device_name(workers.device)} | step_times(*runs, *clips, warmup, pairs)
        operations = zip(("step_operations", "baseline_step_operations"), runs, clips, strict=True)
        return times | {name: step_operations(run, of_run[0]) for name, run, of_run in operations}


def first_clips(source: ClipSource, config: SynclConfig, count: int, device: torch.device) -> list[Clip]:
    """The first batches of a run, of the length that its configuration has."""
    sampler = RunSampler(config.train.batch_size, 0, count)
    return list(make_loader(ClipDataset(source, config), sampler, 0, device))


def step_operations(run: Run, clip: Clip) -> int:
    """Number of operations on the way to the loss and back; the optimiser's differ between devices."""
    with Operations() as operations:
        clip_loss(run, clip.to(run.workers.device)).total.backward()
    run.optimizer.zero_grad()
    return operations.count


def step_times(
    row: Run,
    baseline: Run,
    clips: Sequence[Clip],
    baseline_clips: Sequence[Clip],
    warmup: int = _WARMUP,
    pairs: int = _PAIRS,
) -> dict[str, float]:
    """Seconds of a training step of both, in turn: what disturbs the machine disturbs both. Their clips end
    with the same key frames; those of a row with a length of its own (Table 7) are as long as it trains on.

    A frozen encoder has seen the clips before, as in most of a training. `step_ratio` is the median over pairs,
    `step_ratio_spread` half the distance of its quartiles.
    """
    for run, seen in ((row, clips), (baseline, baseline_clips)):
        for clip in seen if run.encoded else ():
            run.encoded(clip.to(run.workers.device))
    seconds = {"row": [], "baseline": []}
    for i in progress_bar(range(warmup + pairs), desc="bench train", unit="pair", leave=False):
        both = [("row", row, clips), ("baseline", baseline, baseline_clips)]
        for name, run, seen in both if i % 2 else both[::-1]:
            wait_for(run.workers.device)
            started = time.perf_counter()
            optimise(run, seen[i % len(seen)], i)
            wait_for(run.workers.device)
            seconds[name].append(time.perf_counter() - started)
    ours, theirs = (values[warmup:] for values in seconds.values())
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    low, _, high = statistics.quantiles(ratios, n=4) if pairs > 1 else 3 * ratios
    return {
        "step_seconds": statistics.median(ours),
        "baseline_step_seconds": statistics.median(theirs),
        "step_ratio": statistics.median(ratios),
        "step_ratio_spread": (high - low) / 2,
    }


def wait_for(device: torch.device) -> None:
    """Until what was begun is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
