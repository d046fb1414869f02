"""The training loop: the next clip, a step of the optimiser, now and then a snapshot and an evaluation."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from syncl_core.checkpoint import save_checkpoint, start_from
from syncl_core.config import SynclConfig
from syncl_core.data.augment import blank, draw_grid_masks
from syncl_core.data.clip_source import ClipSource, images_of, key_frames_of
from syncl_core.data.clips import Clip, ClipDataset
from syncl_core.data.loader import RunSampler, clip_numbers, make_loader, next_clip
from syncl_core.errors import InputError
from syncl_core.io.files import remove_leftovers
from syncl_core.losses.criterion import Criterion
from syncl_core.tracking.base import Tracker
from syncl_core.tracking.build import build_tracker
from syncl_core.training import snapshot
from syncl_core.training.clip_model import ClipLoss, ClipModel, prepare, set_training, total_loss
from syncl_core.training.distributed import Workers, any_of, distribute, gather, share_statistics
from syncl_core.training.encoded import EncodedFrames
from syncl_core.training.optimizer import learning_rate, make_optimizer, set_learning_rate
from syncl_core.training.progress import Progress
from syncl_core.training.shares import clip_gradients, load_whole, load_whole_optimizer, whole, whole_tracker
from syncl_core.training.start import carry_on, spread
from syncl_core.training.stop import stop_flag

SNAPSHOT, LAST, BEST = "last.pt", "last.safetensors", "best.safetensors"

_TOLD = ("amota", "amotp", "mota", "recall", "ids", "nds", "map", "map_present")

Evaluate = Callable[[Tracker, int], dict[str, float]]
"""Scores a tracker in evaluation mode after so many iterations; "score" decides which weights are the best."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What the loop holds on to. `model` is the module, `distributed` the same one in PyTorch's engine."""

    config: SynclConfig
    folder: Path
    workers: Workers
    model: ClipModel
    distributed: nn.Module
    optimizer: torch.optim.Optimizer
    iterations: int
    key_frames: str = ""  # what clips are made of, in words: a snapshot of others is refused
    encoded: EncodedFrames | None = None  # what a frozen encoder makes of key frames


def train(
    config: SynclConfig,
    source: ClipSource,
    folder: Path,
    workers: Workers | None = None,
    *,
    evaluate: Evaluate | None = None,
    resume: bool = False,
    start: str | Path = "",
    encoded: Path | None = None,
) -> bool:
    """Train; results and snapshots go to `folder`. `start`: weights to begin with. Returns False if interrupted.

    `encoded` is a folder for what a frozen encoder makes of the key frames, which runs may share; `folder` by default.

    Raises InputError, one line: a loss that is not finite (it names the clips), unusable data, a foreign snapshot.
    """
    workers = workers or Workers()
    dataset = ClipDataset(source, config)
    run = replace(make_run(config, folder, workers, len(dataset)), key_frames=key_frames_of(source))
    if workers.leads:
        remove_leftovers(folder / SNAPSHOT, folder / LAST, folder / BEST)
    first, best, owed = _resume(run) if resume else (0, float("-inf"), False)
    if start and not resume:
        tracker = whole_tracker(run.model.tracker)
        loaded, lines = start_from(start, tracker)
        if workers.leads:
            print(*lines, sep="\n", end="\n" if lines else "")
        if config.train.spread_start:
            carry_on(tracker, loaded)
        if tracker is not run.model.tracker:
            load_whole(run.model.tracker, tracker.state_dict())
    run = with_kept_maps(run, source, encoded or folder, len(dataset))
    if run.encoded:
        dataset = ClipDataset(source, config, known=run.encoded.kept)
    sampler = RunSampler(config.train.batch_size, first, run.iterations, workers.rank, workers.size)
    loader = make_loader(dataset, sampler, config.train.workers, workers.device)
    progress = Progress(folder, first, run.iterations, quiet=not workers.leads, unscored=owed)
    with stop_flag() as stop, contextlib.closing(progress):
        if owed and evaluate and config.train.evaluate_every:
            best = _evaluate(run, evaluate, first, best, progress)
            _save(run, first, best)
        clips = iter(loader)
        for iteration in range(first, run.iterations):
            best, stopped = _iterate(run, clips, iteration, best, progress, evaluate, stop)
            if stopped:
                progress.say(f"interrupted after {iteration + 1} iterations; go on with --resume")
                return False
    return True


def num_iterations(config: SynclConfig, clips_per_epoch: int, processes: int) -> int:
    """Steps of the optimiser in a whole run."""
    per_step = config.train.batch_size * processes
    return config.train.iterations or max(1, config.train.epochs * clips_per_epoch // per_step)


def make_run(config: SynclConfig, folder: Path, workers: Workers, clips_per_epoch: int) -> Run:
    """A run before its first iteration. Draws from torch's global random numbers begin anew, by `train.seed`."""
    tracker = build_tracker(config, config.train.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.train.seed)
        if config.train.spread_start:
            spread(tracker)  # first: what strategies draw must not make their trackers differ
        criterion = Criterion(config)
        torch.manual_seed(config.train.seed)  # nor their helpers
        model = ClipModel(tracker, criterion).to(workers.device)
    prepare(tracker, config.train)
    set_training(model, config.train)
    torch.manual_seed(config.train.seed + workers.rank)  # dropout differs between processes
    return Run(
        config=config,
        folder=folder,
        workers=workers,
        model=model,
        distributed=distribute(model, workers, config.train.engine),
        optimizer=make_optimizer(model, config.train),
        iterations=num_iterations(config, clips_per_epoch, workers.size),
    )


def with_kept_maps(run: Run, source: ClipSource, folder: Path, num_key_frames: int) -> Run:
    """With a frozen encoder, the run that keeps what it makes of the source's key frames in `folder`."""
    if not run.config.train.freeze_encoder:
        return run
    tracker = whole_tracker(run.model.tracker)
    return replace(run, encoded=EncodedFrames(folder, tracker, images_of(source), num_key_frames))


def _iterate(
    run: Run,
    clips: Iterator[Clip],
    iteration: int,
    best: float,
    progress: Progress,
    evaluate: Evaluate | None,
    stop: threading.Event,
) -> tuple[float, bool]:
    """One iteration and what is due after it. Returns the best score so far, and whether to stop here."""
    config, done = run.config.train, iteration + 1
    started = time.perf_counter()
    clip = next_clip(clips)
    waited = time.perf_counter() - started
    tensors = optimise(run, clip, iteration)
    shown = None
    if done % config.log_every == 0 or done == run.iterations:
        shown = dict(zip(tensors, torch.stack([t.float() for t in tensors.values()]).tolist(), strict=True))
        seconds = time.perf_counter() - started
        rate = run.optimizer.param_groups[0]["lr"]
        progress.record(done, shown | {"learning_rate": rate, "seconds": seconds, "data_share": waited / seconds})
    progress.step(waited, time.perf_counter() - started, shown)

    stopped = any_of(stop.is_set(), run.workers)
    last = done == run.iterations
    due = bool(evaluate and config.evaluate_every) and (last or done % config.evaluate_every == 0)
    if due or last or stopped or done % config.save_every == 0:
        _save(run, done, best, owed=due)  # first: an evaluation that fails must not cost what was learned
    # A run that has come to its end is seldom taken up again, so a stop must not cost it its last scores.
    if due and (last or not stopped):
        best = _evaluate(run, evaluate, done, best, progress)
        _save(run, done, best)
    return best, stopped and not last


def optimise(run: Run, clip: Clip, iteration: int) -> dict[str, torch.Tensor]:
    """One step of the optimiser; returns its scalars on the device.

    Raises InputError naming iteration and clips if the loss is not finite; the weights are then as before.
    """
    config = run.config.train
    set_learning_rate(run.optimizer, learning_rate(config, iteration, run.iterations))
    clip = _blanked(clip.to(run.workers.device), run, iteration)
    where = f"iteration {iteration + 1}, {'; '.join(clip.names)}"
    try:
        loss = clip_loss(run, clip)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    run.optimizer.zero_grad(set_to_none=True)
    loss.total.backward()
    norms = [clip_gradients(part, config.max_gradient_norm) for part in run.model.parts()]
    # Gradients are averaged over processes, so one that is not finite stops all of them here, before any weight is.
    if not torch.isfinite(loss.total.detach() + sum(norms)):
        gradients = " and ".join(f"{norm.item():.3g}" for norm in norms)
        raise InputError(
            f"{where}: the loss is {loss.total.item():.3g} and its gradient {gradients}; nothing was written, "
            f"{SNAPSHOT} is from before. A lower train.learning_rate or a longer train.warmup_iterations may help"
        )
    run.optimizer.step()
    scalars = {"loss": loss.total.detach(), "gradient_norm": norms[0]}
    scalars |= {f"losses/{name}": value for name, value in loss.losses.items()}
    return scalars | {f"stats/{name}": value for name, value in loss.stats.items()}


def clip_loss(run: Run, clip: Clip) -> ClipLoss:
    """What the run's model says of a clip on its device, in the run's precision.

    Raises InputError where the network's output is not finite.
    """
    precision, device = run.config.train.precision, run.workers.device
    half = precision == "bf16" or (precision == "auto" and device.type == "cuda")
    memories = run.encoded(clip) if run.encoded else None  # in full precision, as inference has them
    with torch.autocast(device.type, torch.bfloat16, enabled=half):
        return total_loss(run.distributed(clip.frames, clip.targets, memories))


def _blanked(clip: Clip, run: Run, iteration: int) -> Clip:
    """The clips of this iteration and process under their GridMasks."""
    numbers = clip_numbers(iteration, run.config.train.batch_size, run.workers.rank, run.workers.size)
    stays = draw_grid_masks(run.config.train, run.config.image, numbers)
    if stays is None:
        return clip
    return replace(clip, frames=tuple(blank(frame, stays, run.config.image) for frame in clip.frames))


def _evaluate(run: Run, evaluate: Evaluate, done: int, best: float, progress: Progress) -> float:
    """Score the weights as they are, and keep them if none were better."""
    random = snapshot.random_state(run.workers.device)
    share_statistics(run.model)
    tracker = whole_tracker(run.model.eval().tracker)
    scores = evaluate(tracker, done)
    set_training(run.model, run.config.train)
    snapshot.set_random_state(random, run.workers.device)
    if not run.workers.leads:
        return best
    progress.record(done, {f"eval/{name}": value for name, value in scores.items()})
    told = (f"{name} {scores[name]:.3f}" for name in _TOLD if name in scores)
    progress.say(f"iteration {done}: {', '.join(told)}")
    if scores["score"] > best:
        save_checkpoint(run.folder / BEST, tracker)
    return max(best, scores["score"])


def _save(run: Run, done: int, best: float, owed: bool = False) -> None:
    """`owed`: the weights are to be evaluated first when the run goes on."""
    share_statistics(run.model)
    ranks = gather(snapshot.random_state(run.workers.device))
    tracker = whole_tracker(run.model.tracker)
    states = {"model": whole(run.model.state_dict()), "optimizer": whole(run.optimizer.state_dict())}
    if run.workers.leads:
        # The snapshot last: who is killed between the two goes on from the older one, and comes by here again.
        save_checkpoint(run.folder / LAST, tracker)
        snapshot.save_snapshot(run.folder / SNAPSHOT, done, run.config, run.key_frames, states, ranks, best, owed)


def _resume(run: Run) -> tuple[int, float, bool]:
    """Take everything from the snapshot.

    Returns the iteration to go on with, the best score so far, and whether an evaluation is due before.
    """
    path = run.folder / SNAPSHOT
    content = snapshot.load_snapshot(path, run.config, run.workers.size)
    snapshot.check_key_frames(path, content, run.key_frames)
    load_whole(run.model, content["model"])
    load_whole_optimizer(run.optimizer, content["optimizer"])
    snapshot.set_random_state(content["ranks"][run.workers.rank], run.workers.device)
    return content["iteration"], content["best"], content.get("owed", False)
