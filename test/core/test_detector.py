"""Without reasoning the network is a detector: every frame stands alone. And what all networks do with pixels."""

import dataclasses

import pytest
import torch
from tiny_tracker import drive, make_frame, shake, stack, tiny_config, tiny_tracker

from syncl_core.config import ImageConfig, ModelConfig, SynclConfig, TrackConfig, check_config
from syncl_core.errors import InputError
from syncl_core.models.box_code import code_center, code_yaw
from syncl_core.tracking.base import Tracker
from syncl_core.tracking.build import build_tracker
from syncl_core.tracking.postprocess import read_tracks
from syncl_core.tracking.state import init_state


@pytest.fixture(scope="module")
def detector() -> Tracker:
    config = tiny_config(
        slots=12, score_threshold=0.0, record_threshold=0.0, output_threshold=0.0, max_output=5, max_age=1
    )
    config = dataclasses.replace(
        config,
        num_tracking_classes=10,
        model=dataclasses.replace(
            config.model, framework="none", position_range=(-500.0, -500.0, -500.0, 500.0, 500.0, 500.0)
        ),
    )
    return shake(build_tracker(config), 8)


@torch.inference_mode()
def test_every_frame_stands_alone(detector):
    state, seen = init_state(detector.config), set()
    for frame in drive(3):
        state, tracks = detector.step(state, frame)
        _, alone = detector.step(init_state(detector.config), frame)
        for name in ("valid", "label", "score", "center", "size", "yaw", "velocity"):
            assert torch.equal(getattr(tracks, name), getattr(alone, name)), name
        ids = set(tracks.track_id[tracks.valid].tolist())
        assert len(ids) == 5 and not ids & seen
        seen |= ids
    assert state.dropped == 0


@torch.inference_mode()
def test_output_is_the_best_boxes_of_the_head(detector):
    frames = stack([make_frame(1), make_frame(2)])
    _, tracks = detector.step(init_state(detector.config, batch=2), frames)
    head = detector.decode(detector.encode(frames), detector.object_queries(2))
    for scene in range(2):
        score, label = head.logits[-1, scene].sigmoid().max(dim=-1)
        best = score.argsort(descending=True)[:5].sort().values
        valid = tracks.valid[scene]
        assert valid.sum() == 5
        assert torch.equal(tracks.score[scene, valid], score[best])
        assert torch.equal(tracks.label[scene, valid], label[best])
        assert torch.equal(tracks.center[scene, valid], code_center(head.box[-1, scene, best]))
        assert torch.equal(tracks.yaw[scene, valid], code_yaw(head.box[-1, scene, best]))


@torch.inference_mode()
def test_trackers_output_their_best_tracks_too():
    tracker = tiny_tracker(3, born=0.5)
    state, tracks = tracker.step(init_state(tracker.config), make_frame(0))
    assert tracks.valid.sum() > 2
    config = dataclasses.replace(tracker.config, track=dataclasses.replace(tracker.config.track, max_output=2))
    few = read_tracks(state, config).valid
    assert few.sum() == 2 and (tracks.valid | ~few).all()
    assert tracks.score[few].min() >= tracks.score[tracks.valid & ~few].max()


@torch.inference_mode()
def test_pixels_are_normalised_as_the_configuration_says():
    """What the backbone gets, against the formula; blue, green, red is red, green, blue the other way round."""
    bgr = ImageConfig(height=32, width=64, channel_order="bgr", mean=(10.0, 20.0, 30.0), std=(2.0, 4.0, 8.0))
    rgb = dataclasses.replace(bgr, channel_order="rgb", mean=bgr.mean[::-1], std=bgr.std[::-1])
    seen, frame = [], make_frame(0)
    for image in (bgr, rgb):
        tracker = build_tracker(dataclasses.replace(tiny_config(), image=image))
        tracker.img_backbone.register_forward_pre_hook(lambda module, args: seen.append(args[0].clone()))
        tracker.encode(frame)
    red, green, blue = frame.images[0].float().unbind(dim=1)
    expected = torch.stack([(blue - 10) / 2, (green - 20) / 4, (red - 30) / 8], dim=1)
    assert torch.equal(seen[0], expected)
    assert torch.equal(seen[1], expected.flip(1))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"image": ImageConfig(channel_order="gbr")}, "image.channel_order: expected bgr or rgb, got 'gbr'"),
        ({"image": ImageConfig(mean=(1.0, 2.0))}, "image.mean, image.std: expected three numbers"),
        ({"image": ImageConfig(std=(1.0, 0.0, 1.0))}, "image.mean, image.std: expected three numbers"),
        ({"model": ModelConfig(framework="none", neutral_start=True)}, "model.neutral_start: only trackers"),
        ({"track": TrackConfig(max_output=0)}, "track.max_output: must be positive"),
    ],
)
def test_impossible_settings_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        check_config(dataclasses.replace(SynclConfig(), **change))
