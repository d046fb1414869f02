"""PF-Track: a detector whose found objects come back as queries in the next frame (Pang et al. 2023)."""

import dataclasses
import math

import torch

from syncl_core.config import SynclConfig
from syncl_core.models.box_code import encode_boxes, normalize
from syncl_core.models.detector import Detector
from syncl_core.models.heads import HeadOutput, Memory, Queries
from syncl_core.models.petrv2 import BoxBranch, TwoFrameMemory
from syncl_core.models.reasoning import Refined, SpatioTemporalReasoner, unrefined
from syncl_core.tensors import Frame, Tracks, TrackState, TwoFrameState
from syncl_core.tracking import lifecycle
from syncl_core.tracking.base import Decision, Observation, Tracker
from syncl_core.tracking.postprocess import read_tracks
from syncl_core.tracking.slots import clear_free_rows
from syncl_core.tracking.state import ROW_FIELDS, free_all_rows, init_state, propagate


class PFTrack(Detector, Tracker):
    """Without a framework this is a detector: no identity comes twice, and only PETRv2 knows of an earlier frame."""

    def __init__(self, config: SynclConfig):
        super().__init__(config)
        self.config = config
        tracks = config.model.framework == "pf_track"
        self.STReasoner = SpatioTemporalReasoner(config.model, len(config.classes)) if tracks else None

    def init_state(self, batch: int = 1, device: torch.device | str | None = None) -> TrackState:
        return init_state(self.config, batch, device)

    def observe(
        self,
        state: TrackState,
        frame: Frame,
        all_layers: bool = False,
        parallel: bool = False,
        memory: Memory | None = None,
    ) -> Observation:
        state = propagate(state if self.STReasoner else free_all_rows(state), frame, self.config.track)
        queries = self._queries(state) if self.STReasoner else self.object_queries(state.track_id.shape[0])
        num_rows = queries.valid.shape[1]
        if memory is None:
            memory = self.encode(frame, state.past if isinstance(state, TwoFrameState) else None)
        if isinstance(memory, TwoFrameMemory):
            state = dataclasses.replace(state, past=memory.kept)
        head = self.decode(memory, queries, all_layers, parallel)
        serial = head.rows(0, num_rows) if parallel else head
        return Observation(
            state=state,
            memory=memory,
            track_id=self._row_ids(state, num_rows),
            valid=queries.valid,
            head=serial,
            parallel=head.rows(num_rows, 2 * num_rows) if parallel else None,
            refined=self._refine(serial, queries.valid, state),
        )

    def judge(self, observation: Observation) -> Decision:
        config = self.config
        decision = lifecycle.judge(observation.state, observation.refined, config.track, config.num_tracking_classes)
        return _with_rows(decision, observation.valid.shape[1])

    def commit(self, observation: Observation, decision: Decision) -> TrackState:
        decision = _with_rows(decision, observation.refined.box.shape[1])
        state, seen = lifecycle.commit(observation.state, observation.refined, decision, self.config)
        if self.STReasoner:
            motion = self.STReasoner.forecast(state.history, state.history_valid)
            state = lifecycle.commit_forecast(state, motion, seen)
        return clear_free_rows(state, ROW_FIELDS)

    def read(self, state: TrackState) -> Tracks:
        return read_tracks(state, self.config)

    def _refine(self, head: HeadOutput, valid: torch.Tensor, state: TrackState) -> Refined:
        """Past reasoning: one row per query, object queries before track slots."""
        if not self.STReasoner:
            return unrefined(head, state.history, state.history_valid)
        fresh = valid.shape[1] - state.track_id.shape[1]
        history = torch.nn.functional.pad(state.history, (0, 0, 0, 0, fresh, 0))
        history_valid = torch.nn.functional.pad(state.history_valid, (0, 0, fresh, 0))
        return self.STReasoner.recall(head, self.embed_reference(head.reference), valid, history, history_valid)

    @staticmethod
    def _row_ids(state: TrackState, num_rows: int) -> torch.Tensor:
        """[B, M]: none for the object queries in front; a detector has no other rows."""
        slots = state.track_id.shape[1]
        return torch.nn.functional.pad(state.track_id, (num_rows - slots, 0), value=-1)[:, :num_rows]

    def _queries(self, state: TrackState) -> Queries:
        objects = self.object_queries(state.track_id.shape[0])
        reference = normalize(state.reference, self.pts_bbox_head.pc_range)
        return Queries(
            content=torch.cat([objects.content, state.query], dim=1),
            reference=torch.cat([objects.reference, reference], dim=1),
            position=torch.cat([objects.position, self.embed_reference(reference)], dim=1),
            valid=torch.cat([objects.valid, state.track_id >= 0], dim=1),
        )


def _with_rows(decision: Decision, num_rows: int) -> Decision:
    """A decision on so many rows, cut or filled up: a detector observes no rows for the slots, which are free."""
    more = num_rows - decision.keep.shape[1]

    def fit(rows: torch.Tensor | None, empty: int) -> torch.Tensor | None:
        return rows if rows is None or more == 0 else torch.nn.functional.pad(rows, (0, more), value=empty)

    return Decision(
        keep=fit(decision.keep, False),
        seen=fit(decision.seen, False),
        misses=fit(decision.misses, 0),
        identity=fit(decision.identity, -1),
    )


def _last_layers(branch: torch.nn.Module) -> list[torch.nn.Linear]:
    """The layers that give the box code, in its order."""
    return [head[-1] for head in branch.task_heads] if isinstance(branch, BoxBranch) else [branch[-1]]


@torch.no_grad()
def start_neutral(tracker: PFTrack) -> None:
    """Make an untrained tracker fit to look at: otherwise boxes drift into a corner and all queries agree.

    Every box is a car, the first class, at rest where its query is and facing along the model frame's y axis. Queries
    start diverse. Images weigh little, or their brightness would decide between no tracks and tracks everywhere.
    """
    car = encode_boxes(torch.zeros(3), torch.tensor([4.6, 1.9, 1.7]), torch.tensor(math.pi / 2), torch.zeros(2))
    for branch in (*tracker.pts_bbox_head.reg_branches, tracker.STReasoner.track_reg):
        layers = _last_layers(branch)
        for layer, part in zip(layers, car.split([layer.out_features for layer in layers]), strict=True):
            torch.nn.init.zeros_(layer.weight)
            layer.bias.copy_(part)
    torch.nn.init.zeros_(tracker.STReasoner.future_reg[-1].weight)
    torch.nn.init.zeros_(tracker.STReasoner.future_reg[-1].bias)
    torch.nn.init.uniform_(tracker.query_feat_embedding.weight, -1.0, 1.0)
    tracker.STReasoner.track_cls[-1].bias[1:] -= 8.0
    for layer in tracker.pts_bbox_head.transformer["decoder"].layers:
        layer.attentions[1]["attn"].out_proj.weight.mul_(0.1)
