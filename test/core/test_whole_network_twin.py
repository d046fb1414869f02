"""The published PF-Track network, whole: V2-99, 6 cameras, 500 queries, 256 channels, against its slow twin.

Only the images are small; nothing in the network depends on their size. The twin shares no code with it.
"""

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from slow_backbones import vovnet99
from slow_pftrack import SlowPFTrack
from tiny_tracker import pose, rig, shake

from syncl_core.config import load_config
from syncl_core.tensors import Frame
from syncl_core.tracking.build import build_tracker

CONFIG = Path(__file__).parents[2] / "config" / "petr_vov_320x800.yaml"
FRAMES = 3


@pytest.fixture(scope="module")
def tracker():
    config = load_config(CONFIG)
    image = dataclasses.replace(config.image, height=64, width=96)
    track = dataclasses.replace(config.track, slots=24, max_age=2)
    tracker = shake(build_tracker(dataclasses.replace(config, image=image, track=track)), 5)
    with torch.inference_mode():
        best = tracker.observe(tracker.init_state(), _frame(0)).refined.logits[0, :500].amax(dim=1)
        tracker.STReasoner.track_cls[-1].bias -= best.quantile(0.97) - math.log(0.4 / 0.6)
    return tracker


def _frame(i: int) -> Frame:
    generator = torch.Generator().manual_seed(i)
    coarse = torch.rand(6, 3, 4, 6, generator=generator) * 255
    cameras = rig()
    return Frame(
        images=torch.nn.functional.interpolate(coarse, size=(64, 96), mode="bilinear").to(torch.uint8)[None],
        image_from_model=torch.cat([cameras, cameras @ pose(yaw=0.4)])[None],
        camera_valid=torch.ones(1, 6, dtype=torch.bool),
        global_from_model=pose(3.0 * i, 0.4 * i, 0.1 * i)[None],
        t_ns=torch.tensor([i * 500_000_000]),
    )


@torch.inference_mode()
def test_whole_network_equals_the_slow_one(tracker):
    weights = {name: value.double() for name, value in tracker.state_dict().items()}
    prefix = "img_backbone."
    backbone = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
    twin = SlowPFTrack(tracker.config, weights, lambda images: vovnet99(images.double(), backbone))
    state, carried, born = tracker.init_state(), 0, 0
    for i in range(FRAMES):
        frame = _frame(i)
        first_new = state.next_id.item()
        state, tracks = tracker.step(state, frame)
        expected = twin.step(
            frame.images[0],
            frame.image_from_model[0],
            frame.camera_valid[0],
            frame.global_from_model[0],
            int(frame.t_ns),
        )
        rows = {row["id"]: row for row in expected}
        assert set(tracks.track_id[0][tracks.valid[0]].tolist()) == set(rows)
        for slot in tracks.valid[0].nonzero()[:, 0].tolist():
            row = rows[tracks.track_id[0, slot].item()]
            torch.testing.assert_close(state.box[0, slot].double(), row["box"], atol=1e-4, rtol=1e-5)
            assert state.score[0, slot].item() == pytest.approx(row["score"], abs=1e-5)
            assert state.label[0, slot].item() == row["label"]
        carried += sum(identity < first_new for identity in rows)
        born += sum(identity >= first_new for identity in rows)
    assert carried >= 3 and born >= 5  # otherwise little was compared
