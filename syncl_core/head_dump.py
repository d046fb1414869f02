"""What the heads said, layer by layer, beside the tracks: for comparison with other implementations.

With T sets, L layers, M queries (object queries, then track slots), C classes and K slots the file holds

    scene [T], t_ns [T], global_from_model [T, 4, 4]
    logits [T, L, M, C], boxes [T, L, M, 10] (box code), features [T, M, D] of the last layer, query_valid [T, M]
    tracks.<field> [T, K, ...] as `syncl_core.types.Tracks` has them, after reasoning and the life cycle
"""

import dataclasses
from pathlib import Path

import numpy as np

from syncl_core.io.files import whole_file
from syncl_core.tensors import Frame, Tracks, TrackState
from syncl_core.tracking.base import Tracker


class HeadDump:
    """Steps a tracker one scene at a time and remembers; the steps are the tracker's own, bit for bit."""

    def __init__(self, tracker: Tracker):
        self._tracker = tracker
        self._rows: list[dict[str, np.ndarray]] = []

    @property
    def num_frames(self) -> int:
        return len(self._rows)

    def step(self, scene: str, state: TrackState, frame: Frame) -> tuple[TrackState, Tracks]:
        """`Tracker.step` of batch size 1. `scene` is noted with the row."""
        # Looked at twice: asking for all layers in the step itself could change its last digits.
        observation = self._tracker.observe(state, frame, all_layers=True)
        head = observation.head
        state, tracks = self._tracker.step(state, frame)
        row = {
            "t_ns": frame.t_ns,
            "global_from_model": frame.global_from_model,
            "logits": head.logits.transpose(0, 1),
            "boxes": head.box.transpose(0, 1),
            "features": head.features[-1],
            "query_valid": observation.valid,
            **{f"tracks.{f.name}": getattr(tracks, f.name) for f in dataclasses.fields(tracks)},
        }
        self._rows.append({"scene": np.array(scene)} | {k: v[0].detach().cpu().numpy() for k, v in row.items()})
        return state, tracks

    def save(self, path: str | Path) -> None:
        """Write everything seen so far. The file appears whole or not at all."""
        names = self._rows[0] if self._rows else ()
        with whole_file(path) as partial, partial.open("wb") as file:
            np.savez_compressed(file, **{name: np.stack([row[name] for row in self._rows]) for name in names})
