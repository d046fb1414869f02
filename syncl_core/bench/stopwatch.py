"""Where the time of a frame goes: a clock that always runs for exactly one stage.

The trackers hold no timing code. `timed_parts` replaces methods on one tracker for as long as it is measured; forward
hooks would not do, since several stages are plain methods.
"""

import contextlib
import functools
import itertools
import time
from collections.abc import Callable, Iterator

import torch
from torch import nn

STAGES = (
    "decode",  # JPEG -> pixels
    "preprocess",  # scale, crop, projections, copy to the device
    "backbone",
    "neck",
    "position",  # position embedding of the image tokens
    "decoder",  # queries, keys and values, decoder layers, heads
    "reasoning",  # past and future reasoning
    "life cycle",  # what a step does outside the network: ego motion, births, deaths, slots, reading the tracks
    "output",  # Tracks -> ObjectSet on the host
    "other",  # image normalisation, projection of the tokens
)

_PARTS = (  # (sub-module of the tracker, "" = itself; method; stage)
    ("", "encode", "other"),
    ("img_backbone", "forward", "backbone"),
    ("img_neck", "forward", "neck"),
    ("pts_bbox_head", "embed_position", "position"),
    ("", "object_queries", "decoder"),
    ("", "embed_reference", "decoder"),
    ("", "queries", "decoder"),
    ("", "decode", "decoder"),
    ("memory_bank", "forward", "reasoning"),
    ("memory_bank", "remember", "reasoning"),
    ("query_interact", "forward", "reasoning"),
    ("STReasoner", "recall", "reasoning"),
    ("STReasoner", "forecast", "reasoning"),
)


class Stopwatch:
    """On a GPU the marks are events in its stream, which it is not made to wait for: stages still overlap the host."""

    def __init__(self, device: torch.device, clock: Callable[[], float] = time.perf_counter):
        self._cuda = device.type == "cuda"
        self._clock = clock
        self._marks: list[tuple[str, float | torch.cuda.Event]] = []  # from here on time counts for this stage

    def switch(self, stage: str) -> str:
        """Time counts for `stage` from now on. Returns the stage before; "" = the clock stood still."""
        before = self._marks[-1][0] if self._marks else ""
        self._marks.append((stage, self._now()))
        return before

    def stop(self) -> dict[str, float]:
        """Seconds per stage since the first `switch`; zero for stages that did not occur. Starts anew."""
        marks, self._marks = [*self._marks, ("", self._now())], []
        if self._cuda:
            torch.cuda.synchronize()
        seconds = dict.fromkeys(STAGES, 0.0)
        for (stage, begin), (_, end) in itertools.pairwise(marks):
            seconds[stage] += begin.elapsed_time(end) / 1e3 if self._cuda else end - begin
        return seconds

    def _now(self) -> float | torch.cuda.Event:
        if not self._cuda:
            return self._clock()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


@contextlib.contextmanager
def timed_parts(tracker: nn.Module, watch: Stopwatch) -> Iterator[None]:
    """While this is open, the parts of `tracker` switch `watch` to their stage and back. Results do not change."""
    with contextlib.ExitStack() as stack:
        for path, name, stage in _PARTS:
            owner = getattr(tracker, path, None) if path else tracker
            if not hasattr(owner, name):  # trackers differ in their parts
                continue
            setattr(owner, name, _timed(getattr(owner, name), stage, watch))
            stack.callback(delattr, owner, name)  # the class's method appears again
        yield


def _timed(method: Callable, stage: str, watch: Stopwatch) -> Callable:
    @functools.wraps(method)
    def timed(*args, **kwargs):
        before = watch.switch(stage)
        try:
            return method(*args, **kwargs)
        finally:
            watch.switch(before)

    return timed
