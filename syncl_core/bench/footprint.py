"""How big a tracker is, found on torch's meta device: shapes only, no memory, no work, whatever its size."""

from dataclasses import dataclass

import torch
from torch.utils import _pytree
from torch.utils.flop_counter import FlopCounterMode

from syncl_core.config import SynclConfig
from syncl_core.tensors import Frame
from syncl_core.tracking.build import build_tracker


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    parameters: int  # shared ones once
    flops: int  # of one step; a multiply-add counts as two; convolutions, matrix products and attention only
    image_tokens: int  # P
    state_bytes: int  # TrackState of one scene


def footprint(config: SynclConfig) -> Footprint:
    """What one scene with all cameras needs.

    The meta device also makes attention visible as matrix products; the counter overlooks the fused one of CPUs.
    """
    with torch.device("meta"), torch.no_grad():
        tracker, frame = build_tracker(config), _blank_frame(config)
        state = tracker.init_state()
        with FlopCounterMode(display=False) as counter:
            tracker.step(state, frame)
        tokens = tracker.encode(frame).tokens.shape[1]
    return Footprint(
        parameters=sum(parameter.numel() for parameter in tracker.parameters()),
        flops=counter.get_total_flops(),
        image_tokens=tokens,
        state_bytes=sum(leaf.nbytes for leaf in _pytree.tree_leaves(state)),
    )


def _blank_frame(config: SynclConfig) -> Frame:
    cameras = len(config.rig.cameras)
    return Frame(
        images=torch.zeros(1, cameras, 3, config.image.height, config.image.width, dtype=torch.uint8),
        image_from_model=torch.eye(4, dtype=torch.float64).repeat(1, cameras, 1, 1),
        camera_valid=torch.ones(1, cameras, dtype=torch.bool),
        global_from_model=torch.eye(4, dtype=torch.float64)[None],
        t_ns=torch.zeros(1, dtype=torch.int64),
    )
