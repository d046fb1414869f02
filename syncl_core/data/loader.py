"""Clips in the order of a run, prepared by worker processes while the network computes."""

from collections.abc import Iterator

import torch
from torch.utils.data import DataLoader, Sampler

from syncl_core.data.clips import Clip, ClipDataset, collate
from syncl_core.errors import InputError
from syncl_core.worker_signals import leave_signals_to_parent


class RunSampler(Sampler[list[int]]):
    """The clip numbers of process `rank` of `size`: one list per iteration, from `first` to before `end`."""

    def __init__(self, batch_size: int, first: int, end: int, rank: int = 0, size: int = 1):
        self._batch_size, self._first, self._end, self._rank, self._size = batch_size, first, end, rank, size

    def __len__(self) -> int:
        return max(0, self._end - self._first)

    def __iter__(self) -> Iterator[list[int]]:
        for iteration in range(self._first, self._end):
            yield list(clip_numbers(iteration, self._batch_size, self._rank, self._size))


def clip_numbers(iteration: int, batch_size: int, rank: int, size: int) -> range:
    """The clips of a run that process `rank` of `size` learns from in an iteration."""
    start = (iteration * size + rank) * batch_size
    return range(start, start + batch_size)


def make_loader(dataset: ClipDataset, sampler: RunSampler, workers: int, device: torch.device) -> DataLoader[Clip]:
    """Batches in the sampler's order. Workers decode whole clips; on the way to a GPU memory is pinned."""
    return _Loader(
        dataset,
        batch_sampler=sampler,
        collate_fn=collate,
        num_workers=workers,
        worker_init_fn=_quiet_worker if workers else None,
        pin_memory=device.type == "cuda",
        prefetch_factor=2 if workers else None,
        generator=torch.Generator(),  # its own, or starting a loader would move the run's random numbers
    )


def next_clip(clips: Iterator[Clip]) -> Clip:
    """The next batch. Raises InputError in one line also where a worker did, whose message comes with a traceback."""
    try:
        return next(clips)
    except InputError as error:
        raise InputError(str(error).rstrip().splitlines()[-1].split("InputError: ")[-1]) from None


class _Loader(DataLoader):
    def check_worker_number_rationality(self) -> None:
        """No warning: more workers than CPUs only take turns, and their number is the user's to choose."""


def _quiet_worker(_: int) -> None:
    leave_signals_to_parent()
