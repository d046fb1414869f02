"""PF-Track: a detector whose found objects come back as queries in the next frame.

state = init_state(config)
for frame in frames:
    state, tracks = tracker.step(state, frame)
"""

import math

import torch

from syncl_core.config import SynclConfig
from syncl_core.models.box_code import encode_boxes, normalize
from syncl_core.models.detector import Detector
from syncl_core.models.heads import Queries
from syncl_core.models.reasoning import Refined, SpatioTemporalReasoner, unrefined
from syncl_core.tensors import Frame, Tracks, TrackState
from syncl_core.tracking.lifecycle import commit_forecast, update
from syncl_core.tracking.postprocess import read_tracks
from syncl_core.tracking.state import clear_free_rows, free_all_rows, propagate


class Tracker(Detector):
    """The weights and the step; all memory is in the TrackState, so one Tracker serves any number of scenes.

    Scenes in a batch do not see each other. A step reads no value back to the host. Without `model.reasoning` this is
    a detector: no frame knows of an earlier one, and no identity comes twice.
    """

    def __init__(self, config: SynclConfig):
        super().__init__(config)
        self.config = config
        self.STReasoner = SpatioTemporalReasoner(config.model, len(config.classes)) if config.model.reasoning else None

    def step(self, state: TrackState, frame: Frame) -> tuple[TrackState, Tracks]:
        """One frame, of every scene in the batch. Gradients, device and precision are the caller's choice."""
        state = propagate(state if self.STReasoner else free_all_rows(state), frame, self.config.track)
        refined = self._look(state, frame)
        state, seen = update(state, refined, self.config.track, self.config.num_tracking_classes)
        if self.STReasoner:
            motion = self.STReasoner.forecast(state.history, state.history_valid)
            state = commit_forecast(state, motion, seen)
        state = clear_free_rows(state)
        return state, read_tracks(state, self.config)

    def _look(self, state: TrackState, frame: Frame) -> Refined:
        """Detection, then past reasoning: one row per query, object queries before track slots."""
        if not self.STReasoner:
            head = self.decode(self.encode(frame), self.object_queries(state.track_id.shape[0]))
            return unrefined(head, state.history, state.history_valid)
        queries = self._queries(state)
        head = self.decode(self.encode(frame), queries)
        fresh = queries.valid.shape[1] - state.track_id.shape[1]
        history = torch.nn.functional.pad(state.history, (0, 0, 0, 0, fresh, 0))
        history_valid = torch.nn.functional.pad(state.history_valid, (0, 0, fresh, 0))
        return self.STReasoner.recall(head, self.embed_reference(head.reference), queries.valid, history, history_valid)

    def _queries(self, state: TrackState) -> Queries:
        objects = self.object_queries(state.track_id.shape[0])
        reference = normalize(state.reference, self.pts_bbox_head.pc_range)
        return Queries(
            content=torch.cat([objects.content, state.query], dim=1),
            reference=torch.cat([objects.reference, reference], dim=1),
            position=torch.cat([objects.position, self.embed_reference(reference)], dim=1),
            valid=torch.cat([objects.valid, state.track_id >= 0], dim=1),
        )


def build_tracker(config: SynclConfig, seed: int = 0) -> Tracker:
    """A tracker in evaluation mode with random weights, which are the same for the same seed on every machine."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tracker = Tracker(config)
        if config.model.neutral_start:
            _start_neutral(tracker)
    return tracker.eval()


@torch.no_grad()
def _start_neutral(tracker: Tracker) -> None:
    """Make an untrained tracker fit to look at: otherwise boxes drift into a corner and all queries agree.

    Every box is a car, the first class, at rest where its query is and facing along the model frame's y axis. Queries
    start diverse. Images weigh little, or their brightness would decide between no tracks and tracks everywhere.
    """
    car = encode_boxes(torch.zeros(3), torch.tensor([4.6, 1.9, 1.7]), torch.tensor(math.pi / 2), torch.zeros(2))
    for branch in (tracker.pts_bbox_head.reg_branches[0], tracker.STReasoner.track_reg):
        torch.nn.init.zeros_(branch[-1].weight)
        branch[-1].bias.copy_(car)
    torch.nn.init.zeros_(tracker.STReasoner.future_reg[-1].weight)
    torch.nn.init.zeros_(tracker.STReasoner.future_reg[-1].bias)
    torch.nn.init.uniform_(tracker.query_feat_embedding.weight, -1.0, 1.0)
    tracker.STReasoner.track_cls[-1].bias[1:] -= 8.0
    for layer in tracker.pts_bbox_head.transformer["decoder"].layers:
        layer.attentions[1]["attn"].out_proj.weight.mul_(0.1)
