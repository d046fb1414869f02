"""From a configuration to its tracker.

tracker = build_tracker(load_config("config/petr_vov_320x800.yaml"))
state = tracker.init_state()
for frame in frames:
    state, tracks = tracker.step(state, frame)
"""

import torch

from syncl_core.config import SynclConfig
from syncl_core.tracking.base import Tracker
from syncl_core.tracking.mutr3d.tracker import MUTR3D
from syncl_core.tracking.pf_track import PFTrack, start_neutral
from syncl_core.tracking.stream.detector import StreamDetector
from syncl_core.tracking.stream.tracker import StreamTracker


def make_tracker(config: SynclConfig) -> Tracker:
    """The network that `model.framework` and `model.detector` name, with random weights, in training mode."""
    match config.model.framework, config.model.detector:
        case "none", "stream_petr":
            return StreamDetector(config)
        case "mutr3d", "detr3d":
            return MUTR3D(config)
        case "mutr3d", "stream_petr":
            return StreamTracker(config)
    return PFTrack(config)


def build_tracker(config: SynclConfig, seed: int = 0) -> Tracker:
    """A tracker in evaluation mode with random weights, which are the same for the same seed on every machine."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tracker = make_tracker(config)
        if config.model.neutral_start:
            start_neutral(tracker)
    return tracker.eval()
