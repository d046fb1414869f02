"""Clips of consecutive key frames, ready for the network. Clip number i of a run is a pure function of (seed, i).

So neither the number of workers nor an interruption changes what a run sees. Numbers count clips over all processes:
iteration t of W processes with B clips each consists of numbers t * W * B to (t + 1) * W * B - 1.
"""

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch.utils import _pytree
from torch.utils.data import Dataset
from tqdm import tqdm

from syncl_core.config import SynclConfig
from syncl_core.data.augment import Augmentation, augmented_frame, draw_augmentation
from syncl_core.data.camera_dropout import shown_objects, without_cameras
from syncl_core.data.clip_source import ClipSource, frame_sets, future_objects, scenes_together
from syncl_core.data.targets import clip_targets, trainable
from syncl_core.errors import InputError
from syncl_core.tensors import Frame, Targets, pad_targets
from syncl_core.types import FrameSet, ObjectSet

_ORDER_KEY, _AUGMENT_KEY, _REDRAW_KEY = 2, 3, 4  # keep different draws with the same seed apart
_MOST_REDRAWS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """B clips of T frames. Those of PETRv2 have one more in front, which is there to be looked at, not to be taught."""

    frames: tuple[Frame, ...]  # T or T + 1
    targets: tuple[Targets, ...]  # T
    names: tuple[str, ...]  # B: scene and key frames, for messages
    numbers: tuple[tuple[int, ...], ...]  # B of T: key frames, counted over all scenes

    def to(self, device: torch.device) -> "Clip":
        """The clip on `device`; from pinned memory the copy does not wait."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "Clip":
        """What torch's loader calls before a copy to the GPU."""
        return self._map(torch.Tensor.pin_memory)

    def _map(self, function) -> "Clip":
        frames, targets = _pytree.tree_map(function, (self.frames, self.targets))
        return Clip(frames=frames, targets=targets, names=self.names, numbers=self.numbers)


class ClipDataset(Dataset):
    """The clips of a run by number. Every key frame is the last of one clip per epoch, in random order.

    Of a source whose scenes are dear to open the order takes a few random scenes at a time: see `clip_source`.
    Clips at the start of a scene repeat its first frame, or are whole ones elsewhere in it (`train.scene_start`). A
    clip with a frame nobody can be taught in is replaced by another one, drawn by its number; so is one with an
    unusable image, and a note tells. Key frames that are `known`, by their number, have black images.
    """

    def __init__(
        self,
        source: ClipSource,
        config: SynclConfig,
        augment: bool = True,
        known: Callable[[int], bool] | None = None,
    ):
        self._source, self._config, self._augment, self._known = source, config, augment, known
        counts = [(scene, source.num_key_frames(scene)) for scene in source.scene_names]
        self._scenes = tuple(scene for scene, count in counts if count)
        self._ends = np.cumsum([count for _, count in counts if count], dtype=np.int64)
        if not self._scenes:
            raise InputError("the training data has no key frame")
        self._order: tuple[int, np.ndarray] = (-1, np.zeros(0, dtype=np.int64))  # of the epoch asked for last

    def __len__(self) -> int:
        """Clips per epoch."""
        return int(self._ends[-1])

    def __getitem__(self, number: int) -> Clip:
        seed, problem = self._config.train.seed, "a frame without an object to learn; is the ground truth complete?"
        for attempt in range(_MOST_REDRAWS):
            if attempt == 0:
                index = self._shuffled(number)
            else:
                index = int(np.random.default_rng([seed, _REDRAW_KEY, number, attempt]).integers(len(self)))
            try:
                clip = self._clip(index, number)
            except InputError as error:  # one corrupt file must not end a training of days
                problem = str(error)
                tqdm.write(f"note: {problem}; another clip takes its place", file=sys.stderr)
                continue
            if clip is not None:
                return clip
        raise InputError(f"{_MOST_REDRAWS} clips in a row cannot be used, the last: {problem}")

    def _shuffled(self, number: int) -> int:
        epoch, position = divmod(number, len(self))
        if self._order[0] != epoch:
            rng = np.random.default_rng([self._config.train.seed, _ORDER_KEY, epoch])
            self._order = (epoch, epoch_order(rng, self._ends, scenes_together(self._source)))
        return int(self._order[1][position])

    def _clip(self, index: int, number: int) -> Clip | None:
        """The clip that ends at key frame `index`, counted over all scenes; None if it cannot teach."""
        config = self._config
        position = int(np.searchsorted(self._ends, index, side="right"))
        scene = self._scenes[position]
        start = int(self._ends[position - 1]) if position else 0
        last, count, length = index - start, self._source.num_key_frames(scene), config.train.clip_length
        if config.train.scene_start == "move" and last < length - 1:
            last = min(length, count) - 1 + last % max(1, count - length + 1)  # the whole clips of the scene, in turn
        rows = [max(0, last - back) for back in reversed(range(length))]
        end = min(count, last + 1 + config.model.future_steps)
        truth = {row: self._source.ground_truth(scene, row) for row in sorted(set(rows))}
        unseen = {row for row in rows if self._known and self._known(start + row)}
        before = [max(0, rows[0] - 1)] if config.model.detector == "petrv2" else []
        sets = frame_sets(self._source, scene, [*before, *rows], unseen)
        poses = np.stack([s.global_from_base @ s.base_from_model for s in sets[len(before) :]])
        name = f"{scene} key frames {rows[0]} to {rows[-1]}"
        present = [trainable(truth[row], pose, config) for row, pose in zip(rows, poses, strict=True)]
        if not all(map(len, present)):
            return None
        # What only says where things go next needs no points, which can be dear.
        truth |= {row: future_objects(self._source, scene, row) for row in range(last + 1, end)}
        following = [
            [truth[ahead] for ahead in range(row + 1, min(end, row + 1 + config.model.future_steps))] for row in rows
        ]
        try:
            frames, present = self._frames(sets, present, number, [row not in unseen for row in [*before, *rows]])
        except InputError as error:
            raise InputError(f"{name}: {error}") from None
        targets, numbers = clip_targets(present, following, poses, config), tuple(start + row for row in rows)
        return Clip(frames=frames, targets=targets, names=(name,), numbers=(numbers,))

    def _frames(
        self, sets: Sequence[FrameSet], present: Sequence[ObjectSet], number: int, looks: Sequence[bool]
    ) -> tuple[tuple[Frame, ...], Sequence[ObjectSet]]:
        """The frames of clip `number` after augmentation, and of the objects present those that are taught."""
        config = self._config
        key = [config.train.seed, _AUGMENT_KEY, number]
        augmentation = draw_augmentation(config.train, key, len(sets[0].views)) if self._augment else Augmentation()
        frames = tuple(
            augmented_frame(s, config.image, augmentation, look) for s, look in zip(sets, looks, strict=True)
        )
        if not augmentation.dropped:
            return frames, present
        shown = shown_objects(present, frames[-len(present) :], augmentation.dropped)
        if not all(map(len, shown)):
            return frames, present  # a frame would have nothing to teach: the cameras stay
        return tuple(without_cameras(frame, augmentation.dropped) for frame in frames), shown


def epoch_order(rng: np.random.Generator, ends: np.ndarray, together: int) -> np.ndarray:
    """All numbers below `ends[-1]` in random order. `ends`: of each scene's numbers, which are consecutive.

    `together` > 0: random groups of so many scenes one after the other, in random order within.
    """
    if not together:
        return rng.permutation(int(ends[-1]))
    scenes = rng.permutation(len(ends))
    starts = np.concatenate([[0], ends[:-1]])
    parts = []
    for first in range(0, len(scenes), together):
        members = [np.arange(starts[s], ends[s]) for s in scenes[first : first + together]]
        parts.append(rng.permutation(np.concatenate(members)))
    return np.concatenate(parts)


def collate(clips: Sequence[Clip]) -> Clip:
    """Clips of one scene each as a batch; targets are padded to the longest."""
    frames, targets = (
        list(zip(*(getattr(clip, kind) for clip in clips), strict=True)) for kind in ("frames", "targets")
    )
    return Clip(
        frames=tuple(map(_stack, frames)),
        targets=tuple(map(pad_targets, targets)),
        names=tuple(name for clip in clips for name in clip.names),
        numbers=tuple(numbers for clip in clips for numbers in clip.numbers),
    )


def _stack(frames: Iterable[Frame]) -> Frame:
    frames = list(frames)
    return Frame(**{f.name: torch.cat([getattr(frame, f.name) for frame in frames]) for f in fields(Frame)})
