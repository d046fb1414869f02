"""What a frozen encoder makes of every key frame, worked out once and kept in a file.

With `train.freeze_encoder` nothing that leads from images to feature maps learns, and images are not augmented. Then
the maps of a key frame are always the same, and reading them takes a fraction of the time. Several processes and
several runs that start from the same weights may share a file: who finds a key frame missing writes what anybody would.
"""

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np
import torch

from syncl_core.config import config_to_dict
from syncl_core.data.clips import Clip
from syncl_core.errors import InputError
from syncl_core.models.detr3d import DETR3D
from syncl_core.models.detr3d_sampling import Pyramid
from syncl_core.tensors import Frame

_MAPS = ("levels", "sights", "votes")  # of a Pyramid: what is kept; the rest is the frame's


class EncodedFrames:
    """The pyramids of a data set's key frames by number, in FOLDER/encoded-<digest of weights, settings and data>.

    `data` says in words which key frames the numbers count, `count` of them. A key frame takes some megabytes as
    float32. Raises InputError when the first is made and there is no room for all of them.
    """

    def __init__(self, folder: Path, tracker: DETR3D, data: str, count: int):
        self._tracker, self._count = tracker, count
        self._path = folder / f"encoded-{_digest(tracker, data)}"
        self.kept = Kept(self._path, count)
        self._shapes: tuple[tuple[torch.Size, ...], ...] = ()
        self._image_size = (0, 0)
        self._values: np.memmap | None = None

    @torch.no_grad()
    def __call__(self, clip: Clip) -> tuple[Pyramid, ...]:
        """What the tracker sees in the T frames of a batch of clips; `clip.frames` must not be augmented."""
        return tuple(
            self._batch(frame, [numbers[t] for numbers in clip.numbers]) for t, frame in enumerate(clip.frames)
        )

    def _batch(self, frame: Frame, numbers: Sequence[int]) -> Pyramid:
        rows = [self._row(_scene(frame, b), number) for b, number in enumerate(numbers)]
        flat = torch.from_numpy(np.stack(rows)).to(frame.images.device)
        maps, start = {}, 0
        for name, shapes in zip(_MAPS, self._shapes, strict=True):
            values = []
            for shape in shapes:
                size = shape.numel()
                values.append(flat[:, start : start + size].reshape(-1, *shape))
                start += size
            maps[name] = tuple(values)
        return Pyramid(
            **maps,
            image_from_model=frame.image_from_model,
            camera_valid=frame.camera_valid,
            image_size=self._image_size,
        )

    def _row(self, frame: Frame, number: int) -> np.ndarray:
        """A key frame's maps, one after the other."""
        made = None
        if self._values is None:
            made = self._made(frame)  # for the maps' shapes: if this key frame is kept, its images may be black
            self._open(len(made))
        if not self.kept(number):
            self._values[number] = self._made(frame) if made is None else made
            self.kept.add(number)  # after the values, for whoever else reads
        return self._values[number]

    def _made(self, frame: Frame) -> np.ndarray:
        pyramid = self._tracker.encode(frame)
        self._shapes = tuple(tuple(value.shape[1:] for value in getattr(pyramid, name)) for name in _MAPS)
        self._image_size = pyramid.image_size
        return torch.cat([value.flatten() for name in _MAPS for value in getattr(pyramid, name)]).float().cpu().numpy()

    def _open(self, size: int) -> None:
        """Files for maps of `size` numbers a key frame."""
        values = self._path.with_suffix(".f32")
        values.parent.mkdir(parents=True, exist_ok=True)
        # Places of a file that nobody has written take no room, and a disk found full later would end the process.
        missing = 4 * size * self._count - (values.stat().st_blocks * 512 if values.exists() else 0)
        free = shutil.disk_usage(values.parent).free
        if missing > free:
            raise InputError(
                f"train.freeze_encoder: {values} needs {missing / 1e9:.1f} GB more, {free / 1e9:.1f} GB are free; "
                "choose another --maps or -o, fewer train.scenes, or train.freeze_backbone"
            )
        if not values.exists():
            self.kept.forget()
        self._values = _shared(values, np.float32, (self._count, size))


class Kept:
    """Which key frames' maps lie in PATH.f32, by number: nobody needs their images again. Survives pickling."""

    def __init__(self, path: Path, count: int):
        self._values, self._path, self._count = path.with_suffix(".f32"), path.with_suffix(".done"), count
        self._present: np.memmap | None = None

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_present": None}

    def __call__(self, number: int) -> bool:
        """Whether a key frame is kept. Marks of maps that somebody deleted count for nothing."""
        if self._present is None and self._path.is_file() and self._values.is_file():
            self._present = _shared(self._path, np.bool_, (self._count,))
        return self._present is not None and bool(self._present[number])

    def add(self, number: int) -> None:
        if self._present is None:
            self._present = _shared(self._path, np.bool_, (self._count,))
        self._present[number] = True

    def forget(self) -> None:
        self._present = None
        self._path.unlink(missing_ok=True)


def _scene(frame: Frame, row: int) -> Frame:
    return Frame(**{f.name: getattr(frame, f.name)[row : row + 1] for f in fields(Frame)})


def _shared(path: Path, dtype: type, shape: tuple[int, ...]) -> np.memmap:
    """An array in a file that others may have open; new places hold zeros and take no room on the disk."""
    path.touch()
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    with path.open("r+b") as file:
        if file.seek(0, 2) < size:
            file.truncate(size)
    return np.memmap(path, dtype=dtype, mode="r+", shape=shape)


def _digest(tracker: DETR3D, data: str) -> str:
    """Of everything that decides about the maps: data, cameras, images, the encoder and its weights.

    Decoders differ, in their queries for example, and read the same maps.
    """
    config = tracker.config
    encoder = {"backbone": config.model.backbone} | config_to_dict(config.model.detr3d)
    encoder.pop("proposals")
    settings = [config_to_dict(config.rig), config_to_dict(config.image), encoder]
    digest = hashlib.sha256(json.dumps([data, settings]).encode())
    for name, value in sorted(tracker.state_dict().items()):
        if name.startswith(tracker.ENCODER):
            digest.update(name.encode())
            digest.update(value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
