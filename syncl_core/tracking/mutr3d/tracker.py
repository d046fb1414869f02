"""MUTR3D: DETR3D whose found objects return as queries, changed by each other and by their past (Zhang et al. 2022)."""

import dataclasses

import torch
from torch.nn import functional

from syncl_core.config import SynclConfig
from syncl_core.models.box_code import code_log_size, denormalize, inverse_sigmoid, normalize
from syncl_core.models.detr3d import DETR3D
from syncl_core.models.detr3d_sampling import Pyramid
from syncl_core.models.queries import SizedQueries
from syncl_core.tensors import Frame, Tracks
from syncl_core.tracking.base import Decision, Observation, Tracker
from syncl_core.tracking.class_memory import remember_class
from syncl_core.tracking.mutr3d import lifecycle
from syncl_core.tracking.mutr3d.memory_bank import MemoryBank
from syncl_core.tracking.mutr3d.query_interaction import QueryInteraction
from syncl_core.tracking.mutr3d.state import ROW_FIELDS, MUTR3DState, init_state, propagate
from syncl_core.tracking.postprocess import read_tracks
from syncl_core.tracking.slots import best_rows, clear_free_rows, give_identities, select_rows

_BORDER = 1e-5
"""As released: a centre is remembered as a logit, which ends at this distance from the range's border (fractions)."""


class MUTR3D(DETR3D, Tracker):
    """Parameter names are those of the public checkpoints."""

    def __init__(self, config: SynclConfig):
        super().__init__(config)
        self.config = config
        model = config.model
        self.query_interact = QueryInteraction(model.embed_dim, model.num_heads)
        self.memory_bank = MemoryBank(model.embed_dim, model.num_heads, model.mutr3d.memory_period)

    def init_state(self, batch: int = 1, device: torch.device | str | None = None) -> MUTR3DState:
        return init_state(self.config, batch, device)

    def observe(
        self,
        state: MUTR3DState,
        frame: Frame,
        all_layers: bool = False,
        parallel: bool = False,
        memory: Pyramid | None = None,
    ) -> Observation:
        state = propagate(state, frame)
        memory = self.encode(frame) if memory is None else memory
        objects = self.object_queries(memory)
        queries = self._queries(state, objects)
        num_rows = queries.valid.shape[1]
        head = self.decode(memory, queries, all_layers, parallel)
        return Observation(
            state=state,
            memory=memory,
            track_id=functional.pad(state.track_id, (self.config.model.num_queries, 0), value=-1),
            valid=queries.valid,
            head=head.rows(0, num_rows) if parallel else head,
            parallel=head.rows(num_rows, 2 * num_rows) if parallel else None,
            objects=objects,
        )

    def judge(self, observation: Observation) -> Decision:
        num_new = self.config.model.num_queries
        score, label = observation.head.logits[-1].sigmoid().max(dim=-1)
        new = torch.arange(score.shape[1], device=score.device) < num_new
        misses = functional.pad(observation.state.misses, (num_new, 0))
        return lifecycle.judge(
            *(observation.track_id, misses, score, label, observation.head.box[-1], new.expand_as(score)),
            self.config.track,
            self.config.num_tracking_classes,
        )

    def commit(self, observation: Observation, decision: Decision) -> MUTR3DState:
        head, rows = observation.head, self._with_new_rows(observation.state, observation.objects)
        probability = head.logits[-1].sigmoid()
        score = probability.amax(dim=-1)
        evidence, label = remember_class(rows.evidence, probability, self.config)
        rows = dataclasses.replace(
            rows,
            reference=denormalize(head.reference.clamp(_BORDER, 1 - _BORDER), self.pts_bbox_head.pc_range),
            box=head.box[-1],
            score=score,
            label=label,
            evidence=evidence,
            track_id=rows.track_id if decision.identity is None else decision.identity,
            misses=decision.misses,
            age=rows.age + (rows.track_id >= 0),
        )
        index = best_rows(decision.keep, score.detach(), self.config.track.slots)
        kept, state = decision.keep.gather(1, index), select_rows(rows, ROW_FIELDS, index)
        features = head.features[-1].gather(1, index[..., None].expand(-1, -1, head.features.shape[-1]))
        track_id, next_id = give_identities(state.track_id, kept, state.next_id)
        dropped = state.dropped + decision.keep.sum(dim=1) - kept.sum(dim=1)
        state = dataclasses.replace(state, track_id=track_id, next_id=next_id, dropped=dropped)
        return clear_free_rows(self._prepare(state, features), ROW_FIELDS)

    def read(self, state: MUTR3DState) -> Tracks:
        return lifecycle.shown(read_tracks(state, self.config), state.score, self.config.track)

    def _prepare(self, state: MUTR3DState, features: torch.Tensor) -> MUTR3DState:
        """Memory and queries for the next frame, from this frame's features [B, K, D]."""
        features = self.memory_bank(features, state.memory, state.memory_valid)
        memory, memory_valid, wait = self.memory_bank.remember(
            features, state.score, state.memory, state.memory_valid, state.memory_wait
        )
        query = self.query_interact(state.query, features, state.track_id >= 0).to(state.query.dtype)
        return dataclasses.replace(state, query=query, memory=memory, memory_valid=memory_valid, memory_wait=wait)

    def _queries(self, state: MUTR3DState, objects: SizedQueries) -> SizedQueries:
        position, content = state.query.chunk(2, dim=-1)
        # As released: what left the range waits at its border.
        reference = inverse_sigmoid(normalize(state.reference, self.pts_bbox_head.pc_range)).sigmoid()
        return SizedQueries(
            content=torch.cat([objects.content, content], dim=1),
            position=torch.cat([objects.position, position], dim=1),
            reference=torch.cat([objects.reference, reference], dim=1),
            log_size=torch.cat([objects.log_size, code_log_size(state.box)], dim=1),
            valid=torch.cat([objects.valid, state.track_id >= 0], dim=1),
        )

    def _with_new_rows(self, state: MUTR3DState, objects: SizedQueries) -> MUTR3DState:
        """The state with the object queries in front, as rows that are no tracks yet."""
        num_new, batch = self.config.model.num_queries, state.track_id.shape[0]

        def prepend(name: str) -> torch.Tensor:
            old = getattr(state, name)
            if name == "query":
                new = torch.cat([objects.position, objects.content], dim=-1)
            else:
                new = old.new_full((batch, num_new, *old.shape[2:]), -1 if name == "track_id" else 0)
            return torch.cat([new, old], dim=1)

        return dataclasses.replace(state, **{name: prepend(name) for name in ROW_FIELDS})
