"""The smallest tracker on PETRv2 whose every parameter counts, and drives whose cameras move a little on the car."""

import dataclasses
import math

import torch
from slow_petrv2 import SlowPETRv2
from tiny_tracker import drive, make_frame, pose, shake, tiny_config, uneven

from syncl_core.config import SynclConfig
from syncl_core.tensors import Frame
from syncl_core.tracking.base import Tracker
from syncl_core.tracking.build import build_tracker


def petrv2_config(framework: str = "pf_track", **track) -> SynclConfig:
    config = tiny_config(**track)
    return dataclasses.replace(config, model=dataclasses.replace(config.model, detector="petrv2", framework=framework))


@torch.no_grad()
def tiny_petrv2(seed: int = 0, born: float = 0.2, framework: str = "pf_track", **track) -> Tracker:
    """As `tiny_tracker`: random weights with which about the fraction `born` of the object queries becomes tracks."""
    tracker = shake(build_tracker(petrv2_config(framework, **track)), seed)
    generator = torch.Generator().manual_seed(seed)
    for name, value in tracker.named_parameters():
        noise = torch.rand(value.shape, generator=generator) * 2 - 1
        if ("_branches." in name and value.ndim > 1) or ".fpe." in name:
            value.add_(noise * 0.5)  # layers differ, and the gates are neither all open nor all the same
    if framework == "pf_track":
        logits = tracker.observe(tracker.init_state(), make_frame(0)).refined.logits
        best = logits[0, : tracker.config.model.num_queries]
        shift = best.amax(dim=1).quantile(1 - born) - math.log(0.4 / 0.6)
        tracker.STReasoner.track_cls[-1].bias -= shift
    return tracker


def moving_rig_drive(count: int, start: int = 1) -> list[Frame]:
    """`drive` in uneven steps, with every camera's pose another one in every frame, as cameras do not fire at once."""
    frames = []
    for i, frame in enumerate(uneven(drive(count, start))):
        shifts = [pose(0.3 * math.sin(7.0 * i + n), 0.2 * n, 0.04 * math.cos(5.0 * i + 3 * n)) for n in range(3)]
        for shift in shifts:
            shift[:3, 3] -= pose()[:3, 3]
        moved = frame.image_from_model @ torch.stack(shifts)
        frames.append(dataclasses.replace(frame, image_from_model=moved))
    return frames


def without_camera(frame: Frame, *missing: int) -> Frame:
    """The same frame without some cameras; what stands in their place means nothing."""
    valid, matrices = frame.camera_valid.clone(), frame.image_from_model.clone()
    valid[:, list(missing)], matrices[:, list(missing)] = False, torch.nan
    return dataclasses.replace(frame, camera_valid=valid, image_from_model=matrices)


def twin(tracker: Tracker) -> SlowPETRv2:
    return SlowPETRv2(tracker.config, tracker.state_dict(), tracker.img_backbone)
