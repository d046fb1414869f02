"""What all trackers have in common: one step over a frame, and its three parts, which training takes apart.

    observation = tracker.observe(state, frame)                     the network looks
    state = tracker.commit(observation, tracker.judge(observation)) the life cycle decides and the memory changes
    tracks = tracker.read(state)

Training observes and commits like inference does; only the decision is another one, `assigned` instead of `judge`.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from syncl_core.config import SynclConfig
from syncl_core.models.detr3d_sampling import Pyramid
from syncl_core.models.heads import HeadOutput, Memory
from syncl_core.tensors import Frame, Tracks

State = Any
"""A device value (`tensors.device_value`) with all memory of one kind of tracker."""

Seen = Memory | Pyramid
"""What queries look at in a frame."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What the network said about M rows: object queries first, then the K slots of the state."""

    state: State  # the tracks before this frame, moved to its time and model frame
    memory: Seen  # what the queries looked at
    track_id: torch.Tensor  # [B, M] int64; -1 = object query or free slot
    valid: torch.Tensor  # [B, M] bool; False = free slot, its row means nothing
    head: HeadOutput
    parallel: HeadOutput | None = None  # the same rows without self-attention (SynCL's C-decoder), in training only
    refined: Any = None  # what the framework made of the head's last layer, if it has a second say
    objects: Any = None  # the object queries that looked, if `commit` makes tracks of them


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What becomes of the M rows."""

    keep: torch.Tensor  # [B, M] bool: the row is a track in the next frame
    seen: torch.Tensor  # [B, M] bool: what the network said counts; elsewhere PF-Track's tracks coast, others must end
    misses: torch.Tensor  # [B, M] int64 frames since the track was last confident
    identity: torch.Tensor | None = None  # [B, M] int64: given by the ground truth; None = the state counts


def assigned(identity: torch.Tensor) -> Decision:
    """Training's decision: rows [B, M] that own a ground-truth object (its identity >= 0) live, all others end."""
    owns = identity >= 0
    return Decision(keep=owns, seen=owns, misses=torch.zeros_like(identity), identity=identity)


class Tracker(nn.Module):
    """The weights and the step; all memory is in the state, so one tracker serves any number of scenes.

    Scenes in a batch do not see each other. A step reads no value back to the host. Gradients, device and precision are
    the caller's choice.
    """

    config: SynclConfig
    ENCODER: tuple[str, ...]
    """Beginnings of the names of all weights that lead from images to what queries look at."""

    def init_state(self, batch: int = 1, device: torch.device | str | None = None) -> State:
        """The state before the first frame. Starting again means taking a new one."""
        raise NotImplementedError

    def observe(
        self, state: State, frame: Frame, all_layers: bool = False, parallel: bool = False, memory: Seen | None = None
    ) -> Observation:
        """Move the tracks to this frame and look. `all_layers` and `parallel` are for losses.

        `memory` is what the network sees in this frame (`Observation.memory`), if that is known already.
        """
        raise NotImplementedError

    def probe(self, memory: Seen, reference: torch.Tensor) -> HeadOutput:
        """All layers' outputs [L, B, P, ...] of object queries at `reference` [B, P, 3], fractions of pc_range.

        They do not see each other and have the mean content of the learned ones. For losses (denoising).
        """
        raise NotImplementedError

    def judge(self, observation: Observation) -> Decision:
        """Inference's decision, by score."""
        raise NotImplementedError

    def commit(self, observation: Observation, decision: Decision) -> State:
        """The state after this frame."""
        raise NotImplementedError

    def read(self, state: State) -> Tracks:
        """What the outside world gets to see."""
        raise NotImplementedError

    def step(self, state: State, frame: Frame) -> tuple[State, Tracks]:
        """One frame, of every scene in the batch."""
        observation = self.observe(state, frame)
        state = self.commit(observation, self.judge(observation))
        return state, self.read(state)
