"""How fast the synthetic world is drawn: key frames of six images, one at a time and a clip at once."""

import dataclasses
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from syncl_core.bench.measure import quantile
from syncl_core.bench.table import format_table
from syncl_core.devices import check_device
from syncl_core.world.source import KEY_FRAMES, WorldSource

SIZES = ((352, 128), (448, 160), (704, 256), (800, 320))  # width, height of networks' images, pixels
TOGETHER = 8  # key frames of a scene drawn at once, as those of a clip are


@dataclass(frozen=True, slots=True, kw_only=True)
class WorldTimes:
    """Seconds, one per key frame, until its images are on the host. The ground truth's rays are the CPU's anywhere."""

    width: int
    height: int
    device: str
    alone: tuple[float, ...]
    together: tuple[float, ...]  # an equal share of what TOGETHER took
    truth: tuple[float, ...]
    new_scene: tuple[float, ...]  # one per scene: to make it ready

    @property
    def per_second(self) -> float:
        """Key frames, drawn a clip at once."""
        return 1 / statistics.mean(self.together)

    @property
    def per_second_with_truth(self) -> float:
        return 1 / (statistics.mean(self.together) + statistics.mean(self.truth))


def measure_world(size: tuple[int, int], device: str, frames: int, warmup: int) -> WorldTimes:
    """Draw `frames` key frames of `size`, width and height in pixels, after `warmup` others.

    Raises InputError for a device or a size that cannot be.
    """
    check_device(device)
    width, height = size
    groups = [min(TOGETHER, frames - start) for start in range(0, frames, TOGETHER)]
    scenes = 1 + len(groups)
    source = WorldSource(
        "train", image_width=width, image_height=height, num_scenes=scenes, kept_scenes=scenes, device=device
    )
    first, *others = source.scene_names
    if warmup:
        _times(source, first, warmup)
    times = [_times(source, scene, count) for scene, count in zip(others, groups, strict=True)]
    alone, together, truth, new_scene = (tuple(np.concatenate(parts).tolist()) for parts in zip(*times, strict=True))
    return WorldTimes(
        width=width,
        height=height,
        device=device,
        alone=alone,
        together=together,
        truth=truth,
        new_scene=new_scene,
    )


def _times(source: WorldSource, scene: str, count: int) -> tuple[list[float], ...]:
    """Of a scene that was not used before, by key frames all over it."""
    indices = np.linspace(0, KEY_FRAMES - 1, count).astype(int).tolist()
    new_scene = _seconds(lambda: source.unseen_frame_set(scene, 0))
    alone = [_seconds(lambda i=i: source.frame_set(scene, i)) for i in indices]
    share = _seconds(lambda: source.frame_sets(scene, indices)) / count
    truth = [_seconds(lambda i=i: source.ground_truth(scene, i)) for i in indices]
    return alone, [share] * count, truth, [new_scene]


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def world_table(results: Iterable[WorldTimes], markdown: bool) -> str:
    """A line for each, times in ms: median / p99."""

    def ms(values: Sequence[float]) -> str:
        return " / ".join(f"{1e3 * quantile(values, q):.1f}" for q in (0.5, 0.99))

    header = ["image", "device", "alone, ms", f"{TOGETHER} at once, ms each", "ground truth, ms", "new scene, ms"]
    rows = [
        [f"{r.height}x{r.width}", r.device, ms(r.alone), ms(r.together), ms(r.truth), ms(r.new_scene)]
        + [f"{r.per_second:.1f}", f"{r.per_second_with_truth:.1f}"]
        for r in results
    ]
    return format_table([*header, "key frames/s", "with truth"], rows, markdown)


def world_figures(result: WorldTimes) -> dict:
    """For a file."""
    rates = {"per_second": result.per_second, "per_second_with_truth": result.per_second_with_truth}
    return dataclasses.asdict(result) | rates
