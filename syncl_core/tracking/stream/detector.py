"""StreamPETR as a detector: a queue of past objects helps to see, but no box knows an earlier one."""

import dataclasses

import torch

from syncl_core.config import SynclConfig
from syncl_core.models.decoder import Context
from syncl_core.models.detector import ImageEncoder, usable_projections
from syncl_core.models.heads import HeadOutput, Memory, Queries
from syncl_core.models.stream_head import StreamPETRHead
from syncl_core.models.stream_memory import begin, push
from syncl_core.tensors import Frame, Tracks
from syncl_core.tracking.base import Decision, Observation, Tracker
from syncl_core.tracking.duplicates import without_duplicates
from syncl_core.tracking.postprocess import read_tracks
from syncl_core.tracking.stream.commit import commit_rows, observed
from syncl_core.tracking.stream.state import Slots, StreamState, free_slots, init_state, propagate


class StreamDetector(ImageEncoder, Tracker):
    """As released (Wang et al. 2023): the newest entries of the queue are queries, after the learned ones.

    They come back as queries because they were likely, whatever they are, so that rows carry no identity: in every
    frame all boxes get new ones. Self-attention also looks at the older entries. Parameter names are the public ones.
    """

    # Whose weights `encode` uses: see Tracker.ENCODER.
    ENCODER = (
        *("img_backbone", "img_neck", "pts_bbox_head.position_encoder", "pts_bbox_head.memory_embed"),
        *("pts_bbox_head.featurized_pe", "pts_bbox_head.spatial_alignment"),
    )

    def __init__(self, config: SynclConfig):
        super().__init__(config)
        self.config = config
        self.pts_bbox_head = StreamPETRHead(config.model, len(config.classes))

    def init_state(self, batch: int = 1, device: torch.device | str | None = None) -> StreamState:
        return init_state(self.config, batch, device)

    def encode(self, frame: Frame) -> Memory:
        """Image tokens of a frame and where they look."""
        features, size = self.image_features(frame), frame.images.shape[-2:]
        places = self.pts_bbox_head.embed_position(usable_projections(frame), features.shape[-2:], size)
        return self.pts_bbox_head.encode(features, places, frame.camera_valid)

    def observe(
        self,
        state: StreamState,
        frame: Frame,
        all_layers: bool = False,
        parallel: bool = False,
        memory: Memory | None = None,
    ) -> Observation:
        fresh, state = state.t_ns < 0, propagate(state, frame)
        state = dataclasses.replace(state, queue=begin(state.queue, fresh, self.pts_bbox_head.pseudo_centers()))
        queries, track_id, context = self.queries(state)
        num_rows = queries.valid.shape[1]
        memory = self.encode(frame) if memory is None else memory
        head = self.decode(memory, queries, context, all_layers, parallel)
        return Observation(
            state=state,
            memory=memory,
            track_id=track_id,
            valid=queries.valid,
            head=head.rows(0, num_rows),
            parallel=head.rows(num_rows, 2 * num_rows) if parallel else None,
        )

    def queries(self, state: StreamState) -> tuple[Queries, torch.Tensor, Context]:
        """M queries, their identities [B, M], and what else self-attention looks at."""
        objects = self.pts_bbox_head.object_queries(state.t_ns.shape[0])
        count = self.config.model.stream.propagated
        queries = join_queries(objects, self.pts_bbox_head.entry_queries(state.queue.rows(0, count)))
        nobody = torch.full_like(queries.valid, -1, dtype=torch.int64)
        return queries, nobody, self.pts_bbox_head.context(state.queue.rows(count))

    def decode(
        self,
        memory: Memory,
        queries: Queries,
        context: Context | None,
        all_layers: bool = False,
        parallel: bool = False,
    ) -> HeadOutput:
        return self.pts_bbox_head(memory, queries, context, all_layers, parallel)

    def probe(self, memory: Memory, reference: torch.Tensor) -> HeadOutput:
        """What the decoder makes of object queries at any places: see `tracking.base.Tracker.probe`."""
        return self.pts_bbox_head(memory, self.pts_bbox_head.queries_at(reference), all_layers=True, alone=True)

    def judge(self, observation: Observation) -> Decision:
        """Every likely row of a tracked class is a box of this frame."""
        news = observed(observation.head)
        keep = (news.score > self.config.track.score_threshold) & (news.label < self.config.num_tracking_classes)
        nobody = torch.zeros_like(keep)
        keep = without_duplicates(keep, news.box, news.score, nobody, self.config.track.duplicate_distance)
        return Decision(keep=keep, seen=torch.ones_like(keep), misses=torch.zeros_like(news.label))

    def commit(self, observation: Observation, decision: Decision) -> StreamState:
        state, news = observation.state, observed(observation.head)
        score = torch.where(observation.valid, news.score, -1.0)
        state = dataclasses.replace(state, queue=push(state.queue, news.entry, score, self.config.model.stream.pushed))
        return commit_rows(state, self.rows_before(observation), news, decision, self.config)

    def rows_before(self, observation: Observation) -> Slots:
        """What the M rows were before this frame: nothing, they are new."""
        batch, num_rows = observation.valid.shape
        return free_slots(
            batch, num_rows, self.config.model.embed_dim, len(self.config.classes), observation.valid.device
        )

    def read(self, state: StreamState) -> Tracks:
        return read_tracks(state.slots, self.config)


def join_queries(first: Queries, second: Queries) -> Queries:
    """The rows of `first`, then those of `second`."""
    names = ("content", "reference", "position", "valid")
    return Queries(**{name: torch.cat([getattr(first, name), getattr(second, name)], dim=1) for name in names})
