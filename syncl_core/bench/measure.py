"""Fake frames through a real session, the time of every stage taken."""

import contextlib
import dataclasses
import math
import multiprocessing
import signal
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import torch

from syncl_core import images
from syncl_core.bench.fake_drive import fake_drive
from syncl_core.bench.footprint import Footprint, footprint
from syncl_core.bench.stopwatch import STAGES, Stopwatch, timed_parts
from syncl_core.checkpoint import load_tracker
from syncl_core.errors import InputError
from syncl_core.runtime.session import DECODE_THREADS, TrackerSession
from syncl_core.tensors import Frame, Tracks, TrackState
from syncl_core.tracking.base import Tracker
from syncl_core.types import FrameSet, RawImage

PRECISIONS = ("fp32", "bf16")


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchOptions:
    device: str = "cpu"
    precision: str = "fp32"  # "bf16": autocast; geometry, boxes and the state stay float32
    threads: int = 0  # of torch on the CPU; 0 = torch's own choice
    frames: int = 10  # measured ones
    warmup: int = 2  # frames before them
    image_size: tuple[int, int] = (1600, 900)  # width, height of the cameras' images, pixels

    def __post_init__(self):
        """Raises InputError naming the option."""
        if self.precision not in PRECISIONS:
            raise InputError(f"precision: expected one of {', '.join(PRECISIONS)}, got {self.precision!r}")
        if self.device.split(":")[0] not in ("cpu", "cuda"):
            raise InputError(f"device: expected cpu, cuda or cuda:N, got {self.device!r}")
        for name, least in {"threads": 0, "frames": 1, "warmup": 0}.items():
            if getattr(self, name) < least:
                raise InputError(f"{name}: expected {least} or more, got {getattr(self, name)}")
        if min(self.image_size) < 1:
            raise InputError(f"image size: expected positive numbers of pixels, got {self.image_size}")


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchResult:
    name: str  # of the configuration file
    device: str  # its full name
    threads: int
    seconds: dict[str, tuple[float, ...]]  # by stage and "total", one per measured frame
    peak_memory_bytes: int  # GPU: what torch allocated; CPU: resident memory of the process, libraries included; 0 = ?
    footprint: Footprint


def quantile(values: tuple[float, ...], fraction: float) -> float:
    """The smallest of the values that at least this fraction of them does not exceed (nearest rank)."""
    return sorted(values)[max(math.ceil(fraction * len(values)), 1) - 1]


def measure_apart(config: str | Path, options: BenchOptions) -> BenchResult:
    """`measure` in a process of its own: neither memory nor settings of one configuration reach the next."""
    context = multiprocessing.get_context("spawn")
    quiet = (signal.SIGINT, signal.SIG_DFL)  # an interrupt ends it without a traceback
    with ProcessPoolExecutor(1, mp_context=context, initializer=signal.signal, initargs=quiet) as pool:
        try:
            return pool.submit(measure, config, options).result()
        except BrokenProcessPool:
            raise InputError(f"{config}: measuring it was killed; did the memory run out?") from None


def measure(config: str | Path, options: BenchOptions) -> BenchResult:
    """Time an untrained tracker. Changes torch's number of threads.

    Raises InputError for a configuration or device that cannot be used, or images too small for the network.
    """
    if options.threads:
        torch.set_num_threads(options.threads)
    tracker = load_tracker(config, device=options.device)
    device = torch.device(options.device)
    try:
        with torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext():
            seconds = _time_frames(tracker, device, options)
    except torch.cuda.OutOfMemoryError:
        raise InputError(f"{config}: {options.device} has not enough memory for it") from None
    return BenchResult(
        name=Path(config).stem,
        device=device_name(device),
        threads=torch.get_num_threads(),
        seconds=seconds,
        peak_memory_bytes=_peak_memory_bytes(device),
        footprint=footprint(tracker.config),
    )


def device_name(device: torch.device) -> str:
    """What the maker calls it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(": ")[2]
    return str(device)


def _time_frames(tracker: Tracker, device: torch.device, options: BenchOptions) -> dict[str, tuple[float, ...]]:
    watch = Stopwatch(device)
    autocast = torch.autocast(device.type, dtype=torch.bfloat16, enabled=options.precision == "bf16")

    def step(state: TrackState, frame: Frame) -> tuple[TrackState, Tracks]:
        watch.switch("life cycle")
        with autocast:
            result = tracker.step(state, frame)
        watch.switch("output")
        return result

    session = TrackerSession(step, tracker.init_state, tracker.config, device)
    drive = fake_drive(tracker.config.rig, *options.image_size)
    with contextlib.closing(session), ThreadPoolExecutor(DECODE_THREADS) as pool, timed_parts(tracker, watch):
        rows = [_time_frame(session, next(drive), watch, pool) for _ in range(options.warmup + options.frames)]
    return {stage: tuple(row[stage] for row in rows[options.warmup :]) for stage in (*STAGES, "total")}


def _time_frame(
    session: TrackerSession, frame_set: FrameSet, watch: Stopwatch, pool: ThreadPoolExecutor
) -> dict[str, float]:
    """Seconds of every stage and, by a clock of its own, the total."""
    started = time.perf_counter()
    watch.switch("decode")
    frame_set = decode_images(frame_set, pool)
    watch.switch("preprocess")
    session.process(frame_set)
    return watch.stop() | {"total": time.perf_counter() - started}


def decode_images(frame_set: FrameSet, pool: ThreadPoolExecutor) -> FrameSet:
    """The same set with raw images. A session decodes and scales each image in one go; apart, both can be timed."""

    def decoded(view):
        pixels = images.decode(view.image)
        height, width = pixels.shape[:2]
        return dataclasses.replace(view, image=RawImage(encoding="rgb8", data=pixels, width=width, height=height))

    return dataclasses.replace(frame_set, views=tuple(pool.map(decoded, frame_set.views)))


def _peak_memory_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    # ru_maxrss would do, but a child process inherits it from its parent.
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0
