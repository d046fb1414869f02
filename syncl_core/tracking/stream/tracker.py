"""StreamPETR in the MUTR3D framework, which SynCL calls Baseline#2. Nobody published it; this is how it is built here.

- Object queries are StreamPETR's learned ones (644). The propagated queries of the detector give way to tracks.
- A track is a propagated query with an identity: the feature, centre, velocity, time and pose of the frame that last
  saw it pass the same motion-aware norms and the same time embedding. So every weight is one of the detector's, a
  detector's checkpoint starts the tracker, and nothing is added at inference. As in the detector, the centre stays
  where it was in the world and the network works out how far the object went: it knows velocity, time and the vehicle's
  own motion.
- The queue of the detector stays, all of it: self-attention looks at its entries beside the queries. The rows with the
  highest scores enter it, tracks or not, so that an object too unsure for a track is still remembered.
- Birth, misses and death are MUTR3D's, by three thresholds. There is no coasting: a living track takes what the network
  said. MUTR3D's own query update and memory bank are left out; the queue and the norms have their part.
- Training unrolls a clip: gradients pass from frame to frame through the features, centres and velocities of the
  tracks, but not through the queue. SynCL's C-decoder sees the same queries without self-attention, hence without the
  queue.
"""

import dataclasses

import torch
from torch.nn.functional import pad

from syncl_core.models.decoder import Context
from syncl_core.models.heads import Queries
from syncl_core.tensors import Tracks
from syncl_core.tracking.base import Decision, Observation
from syncl_core.tracking.mutr3d import lifecycle
from syncl_core.tracking.stream.commit import observed, with_new_rows
from syncl_core.tracking.stream.detector import StreamDetector, join_queries
from syncl_core.tracking.stream.state import Slots, StreamState


class StreamTracker(StreamDetector):
    """The weights of the detector, another use of them."""

    def queries(self, state: StreamState) -> tuple[Queries, torch.Tensor, Context]:
        objects = self.pts_bbox_head.object_queries(state.t_ns.shape[0])
        tracks = self.pts_bbox_head.entry_queries(state.slots.entry)
        tracks = dataclasses.replace(tracks, valid=state.slots.track_id >= 0)
        track_id = pad(state.slots.track_id, (objects.valid.shape[1], 0), value=-1)
        return join_queries(objects, tracks), track_id, self.pts_bbox_head.context(state.queue)

    def judge(self, observation: Observation) -> Decision:
        news, before = observed(observation.head), self.rows_before(observation)
        slots = observation.state.slots.track_id.shape[1]
        new = pad(torch.ones_like(observation.valid[:, slots:]), (0, slots))
        return lifecycle.judge(
            *(before.track_id, before.misses, news.score, news.label, news.box, new),
            self.config.track,
            self.config.num_tracking_classes,
        )

    def read(self, state: StreamState) -> Tracks:
        return lifecycle.shown(super().read(state), state.slots.score, self.config.track)

    def rows_before(self, observation: Observation) -> Slots:
        """What the M rows were before this frame: free where the object queries stand, then the tracks."""
        return with_new_rows(observation.state.slots, observation.valid.shape[1])
