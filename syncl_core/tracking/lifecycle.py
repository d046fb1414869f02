"""Birth, coasting and death of tracks by score (PF-Track, sec. 3.4), on fixed slots and without looking at values.

A row is `seen` when its score reaches `record_threshold`: what the network said replaces what the track was. It is
`active` when the score also exceeds `score_threshold`: a new row becomes a track, an old one has its misses forgiven.
A track not seen coasts along its prediction; after `max_age` frames in a row that were not active it dies.
"""

import dataclasses

import torch

from syncl_core.config import SynclConfig, TrackConfig
from syncl_core.models.box_code import code_center
from syncl_core.models.reasoning import Refined
from syncl_core.tensors import TrackState
from syncl_core.tracking.base import Decision
from syncl_core.tracking.class_memory import remember_class
from syncl_core.tracking.duplicates import without_duplicates
from syncl_core.tracking.slots import best_rows, give_identities, select_rows
from syncl_core.tracking.state import ROW_FIELDS

COAST_SCORE = 0.01
"""Score of a track that was not seen: below every output threshold, and first to go when slots are short."""


def judge(state: TrackState, refined: Refined, config: TrackConfig, num_tracking_classes: int) -> Decision:
    """By score, what becomes of this frame's rows: Q object queries, then the K slots of the propagated `state`."""
    rows = _with_new_rows(state, refined.box.shape[1] - state.track_id.shape[1])
    score, label = refined.logits.sigmoid().max(dim=-1)
    seen = score >= config.record_threshold
    active = seen & (score > config.score_threshold)
    alive = rows.track_id >= 0
    # A free slot is neither alive nor new.
    new = torch.arange(alive.shape[1], device=alive.device) < alive.shape[1] - state.track_id.shape[1]

    misses = torch.where(active, 0, rows.misses + 1)
    trackable = ~seen | (label < num_tracking_classes)
    keep = trackable & ((active & (alive | new)) | (alive & (misses < config.max_age)))
    box = torch.where(seen[..., None], refined.box, rows.box)
    keep = without_duplicates(keep, box, score * seen, seen & alive, config.duplicate_distance)
    return Decision(keep=keep, seen=seen, misses=misses)


def commit(
    state: TrackState, refined: Refined, decision: Decision, config: SynclConfig
) -> tuple[TrackState, torch.Tensor]:
    """The state with the K best rows that are kept, and which of them were seen [B, K].

    Motion and future of the seen ones are still to be predicted.
    """
    slots = state.track_id.shape[1]
    rows = _with_new_rows(state, refined.box.shape[1] - slots)
    alive = rows.track_id >= 0
    rows = _commit(rows, refined, decision.seen, config)
    rows = dataclasses.replace(rows, misses=decision.misses, age=rows.age + alive)
    if decision.identity is not None:
        rows = dataclasses.replace(rows, track_id=decision.identity)
    return _keep_best(rows, decision.keep, decision.seen, slots)


def commit_forecast(state: TrackState, motion: torch.Tensor, seen: torch.Tensor) -> TrackState:
    """Seen rows [B, K] take the new prediction [B, K, F, 2]; the others go on with the rest of their old one.

    As in PF-Track the next frame gets the way of a track without gradient: forecasts learn from their own loss.
    """
    path = state.reference[:, :, None] + torch.nn.functional.pad(motion.detach().cumsum(dim=2), (0, 1))
    return dataclasses.replace(
        state,
        motion=torch.where(seen[..., None, None], motion, state.motion),
        future=torch.where(seen[..., None, None], path, state.future),
    )


def _with_new_rows(state: TrackState, num_new: int) -> TrackState:
    """The state with `num_new` free rows in front, where the object queries stand."""

    def prepend(name: str) -> torch.Tensor:
        old = getattr(state, name)
        new = old.new_full((old.shape[0], num_new, *old.shape[2:]), -1 if name == "track_id" else 0)
        return torch.cat([new, old], dim=1)

    return dataclasses.replace(state, **{name: prepend(name) for name in ROW_FIELDS})


def _commit(rows: TrackState, refined: Refined, seen: torch.Tensor, config: SynclConfig) -> TrackState:
    """Seen rows become what the network said; the others keep what `propagate` left. History grows for all."""
    probability = refined.logits.sigmoid()
    evidence, label = remember_class(rows.evidence, probability, config)
    box = torch.where(seen[..., None], refined.box, rows.box)
    return dataclasses.replace(
        rows,
        query=torch.where(seen[..., None], refined.features.to(rows.query.dtype), rows.query),
        reference=code_center(box),
        box=box,
        score=torch.where(seen, probability.amax(dim=-1), COAST_SCORE),
        label=torch.where(seen, label, rows.label),
        evidence=torch.where(seen[..., None], evidence, rows.evidence),
        history=refined.history.to(rows.history.dtype),
        history_valid=refined.history_valid,
    )


def _keep_best(rows: TrackState, keep: torch.Tensor, seen: torch.Tensor, slots: int) -> tuple[TrackState, torch.Tensor]:
    """The `slots` best rows to keep, in their old order; only they get identities, none is spent on other rows."""
    index = best_rows(keep, rows.score, slots)
    kept, seen = keep.gather(1, index), seen.gather(1, index)
    state = select_rows(rows, ROW_FIELDS, index)
    track_id, next_id = give_identities(state.track_id, kept, state.next_id)
    state = dataclasses.replace(
        state,
        track_id=track_id,
        next_id=next_id,
        dropped=state.dropped + keep.sum(dim=1) - kept.sum(dim=1),
    )
    return state, seen
