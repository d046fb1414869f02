"""The configurations we ship: they load, and the untrained tiny one has something harmless to show."""

from pathlib import Path

import pytest
import torch
from tiny_tracker import pose

from syncl_core.config import load_config
from syncl_core.tensors import Frame
from syncl_core.tracking.build import build_tracker
from syncl_core.tracking.state import init_state

CONFIGS = Path(__file__).parents[2] / "config"


def _frame(config, step: int, brightness: float) -> Frame:
    cameras, (height, width) = len(config.rig.cameras), (config.image.height, config.image.width)
    generator = torch.Generator().manual_seed(step)
    images = torch.rand(1, cameras, 3, height, width, generator=generator) * 255 * brightness
    return Frame(
        images=images.to(torch.uint8),
        image_from_model=torch.eye(4, dtype=torch.float64).repeat(1, cameras, 1, 1),
        camera_valid=torch.ones(1, cameras, dtype=torch.bool),
        global_from_model=pose(x=0.5 * step, yaw=0.05 * step)[None],
        t_ns=torch.tensor([step * 500_000_000]),
    )


@pytest.mark.parametrize("brightness", [0.0, 1.0])
@torch.inference_mode()
def test_untrained_tiny_tracks_stand_still_in_the_world(brightness):
    config = load_config(CONFIGS / "petr_tiny_128x320.yaml")
    tracker, state, places = build_tracker(config), init_state(config), {}
    for step in range(10):
        frame = _frame(config, step, brightness)
        state, tracks = tracker.step(state, frame)
        valid = tracks.valid[0]
        in_global = tracks.center[0][valid].double() @ frame.global_from_model[0, :3, :3].T
        in_global += frame.global_from_model[0, :3, 3]
        for identity, place in zip(tracks.track_id[0][valid].tolist(), in_global, strict=True):
            places.setdefault(identity, []).append(place)
    assert 5 <= valid.sum() <= 24
    longest = max(places.values(), key=len)
    assert len(longest) >= 5
    inside = [torch.stack(way) for way in places.values() if len(way) >= 3]
    still = [(way - way[0]).norm(dim=1).max() < 0.01 for way in inside]
    # Those that reach the border of the range are pushed along by it.
    assert sum(still) >= 0.5 * len(still)


def test_small_is_the_public_decoder():
    config = load_config(CONFIGS / "petr_small_320x800.yaml")
    assert config.model == type(config.model)()
    assert (config.image.height, config.image.width) == (320, 800)


# frames per clip, epochs, learning rate, flip, frozen backbone, dropped and false tracks, as in the published code
PUBLISHED = {
    "petr_vov_320x800_detector": (1, 12, 2e-4, 0.5, False, 0.0, 0.0),
    "petr_vov_320x800_900queries": (1, 24, 2e-4, 0.5, False, 0.0, 0.0),
    "petr_vov_640x1600_detector": (1, 24, 2e-4, 0.5, False, 0.0, 0.0),
    "petrv2_vov_320x800_detector": (1, 24, 2e-4, 0.5, False, 0.0, 0.0),
    "stream_vov_320x800_detector": (3, 24, 4e-4, 0.5, False, 0.0, 0.0),
    "stream_r50_256x704_detector": (3, 90, 4e-4, 0.5, False, 0.0, 0.0),
    "petr_vov_320x800": (3, 12, 2e-4, 0.0, False, 0.0, 0.0),
    "petr_vov_640x1600": (3, 24, 2e-4, 0.0, True, 0.0, 0.0),
    "petr_vov_320x800_5frames": (5, 12, 1e-4, 0.0, False, 0.0, 0.0),
    "mutr3d_r101_900x1600": (3, 24, 2e-4, 0.0, False, 0.1, 0.3),
    "mutr3d_r50_900x1600": (5, 24, 2e-4, 0.0, False, 0.1, 0.3),
    "petrv2_vov_320x800": (3, 12, 2e-4, 0.0, False, 0.0, 0.0),
    "stream_vov_320x800": (3, 12, 2e-4, 0.0, False, 0.0, 0.0),
    "stream_vov_640x1600": (3, 24, 2e-4, 0.0, False, 0.0, 0.0),
}

# scale of the images, share of the rate for the backbone, stages that stay, what of batch norm learns, largest gradient
USUAL = ((0.94, 1.25), 0.1, 0, "frozen", 35.0)
MUTR3D = ((1.0, 1.0), 0.1, 1, "fixed", 105.0)
OTHERWISE = {
    "mutr3d_r101_900x1600": MUTR3D,
    "mutr3d_r50_900x1600": MUTR3D,
    "stream_r50_256x704_detector": ((0.38 / 0.44, 0.55 / 0.44), 0.25, 0, "fixed", 35.0),
}

# loss weights of the velocity and of x and y, weight of the latter in the matching
STREAM = (1.0, 2.0, 2.0)
WEIGHTS = {
    "petrv2_vov_320x800_detector": (1.0, 1.0, 1.0),
    "stream_vov_320x800_detector": STREAM,
    "stream_r50_256x704_detector": STREAM,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_trackers_train_as_published(name):
    """`syncl train config/NAME.yaml` is the run of the paper, whatever the defaults are."""
    config = load_config(CONFIGS / f"{name}.yaml")
    train = config.train
    lengths = (train.clip_length, train.epochs, train.learning_rate, train.flip)
    assert (*lengths, train.freeze_backbone, train.dropped_tracks, train.false_tracks) == PUBLISHED[name]
    assert train.iterations == 0 and train.weight_decay == 0.01 and train.grid_mask == 0.7
    resize, *others = OTHERWISE.get(name, USUAL)
    assert train.resize == pytest.approx(resize, abs=1e-3)
    assert [train.backbone_lr_factor, train.frozen_stages, train.batch_norm, train.max_gradient_norm] == others
    velocity, ground, cost = WEIGHTS.get(name, (0.2, 1.0, 1.0))
    assert config.syncl.loss.code_weights == (ground, ground, *[1.0] * 6, velocity, velocity)
    assert config.syncl.loss.ground_cost == cost
    pf_track = config.model.framework == "pf_track"
    assert config.syncl.loss.forecast_mean == ("as_released" if pf_track else "annotated")
    assert not config.syncl.enabled
