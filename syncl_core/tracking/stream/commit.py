"""From what the network said about M rows to the K tracks of the state, on fixed slots, without looking at values."""

import dataclasses

from syncl_core.config import SynclConfig
from syncl_core.models.box_code import code_center, code_velocity
from syncl_core.models.heads import HeadOutput
from syncl_core.models.stream_memory import found_now, join, select
from syncl_core.tracking.base import Decision
from syncl_core.tracking.class_memory import remember_class
from syncl_core.tracking.slots import best_rows, give_identities
from syncl_core.tracking.stream.state import Slots, StreamState, clear_free, free_slots


def observed(head: HeadOutput) -> Slots:
    """The head's last layer as M rows without identity."""
    logits, box = head.logits[-1], head.box[-1]
    probability = logits.sigmoid()
    score, label = probability.max(dim=-1)
    blank = free_slots(*box.shape[:2], head.features.shape[-1], logits.shape[-1], box.device)
    entry = found_now(head.features[-1], code_center(box), code_velocity(box))
    return dataclasses.replace(blank, entry=entry, box=box, score=score, label=label, evidence=probability.detach())


def with_new_rows(slots: Slots, num_rows: int) -> Slots:
    """M rows: free ones in front, where the object queries stand, then the K slots."""
    batch, count, dim = slots.entry.feature.shape
    return join(free_slots(batch, num_rows - count, dim, slots.evidence.shape[-1], slots.box.device), slots)


def commit_rows(state: StreamState, rows: Slots, news: Slots, decision: Decision, config: SynclConfig) -> StreamState:
    """The state with the K best rows that are kept. `rows` [B, M] is what they were, `news` what the network said.

    There is no coasting: a row that is kept takes what the network said.
    """
    evidence, label = remember_class(rows.evidence, news.evidence, config)
    news = dataclasses.replace(news, evidence=evidence, label=label)
    alive = rows.track_id >= 0
    track_id = rows.track_id if decision.identity is None else decision.identity
    rows = dataclasses.replace(news, track_id=track_id, misses=decision.misses, age=rows.age + alive)
    slots = state.slots.track_id.shape[1]
    index = best_rows(decision.keep, rows.score, slots)
    kept, rows = decision.keep.gather(1, index), select(rows, index)
    track_id, next_id = give_identities(rows.track_id, kept, state.next_id)
    rows = dataclasses.replace(rows, track_id=track_id)
    return dataclasses.replace(
        state,
        slots=clear_free(rows),
        next_id=next_id,
        dropped=state.dropped + decision.keep.sum(dim=1) - kept.sum(dim=1),
    )
