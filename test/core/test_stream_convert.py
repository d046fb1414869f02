"""StreamPETR's public weights come in whole and mean the same, and its configurations are the published ones."""

import dataclasses

import numpy as np
import pytest
import torch
import yaml
from public_files import CONFIGS, PETR_ROWS, numbered, published_tracker
from tiny_stream import stream_config, stream_drive, tiny_stream

from syncl_core.bench.stopwatch import Stopwatch, timed_parts
from syncl_core.checkpoint import load_checkpoint
from syncl_core.cli import main
from syncl_core.config import check_config, config_to_dict, load_config
from syncl_core.convert import convert
from syncl_core.errors import InputError
from syncl_core.images import scale_and_crop_intrinsics
from syncl_core.model_config import StreamConfig
from syncl_core.models import box_code
from syncl_core.tensors import to_dict
from syncl_core.tracking.build import make_tracker

NAMES = ("stream_vov_320x800_detector", "stream_r50_256x704_detector", "stream_vov_320x800", "stream_vov_640x1600")
CONSTANTS = {"code_weights": 10, "match_costs": 10, "pc_range": 6, "position_range": 6, "coords_d": 64}
HEAD = {  # name: (outputs, inputs) of its linear layer; the decoder, the class and the box layers are PETR's
    **{"position_encoder.0": (1024, 192), "position_encoder.2": (256, 1024)},
    **{"memory_embed.0": (256, 256), "memory_embed.2": (256, 256)},
    **{"featurized_pe.conv_reduce": (256, 256), "featurized_pe.conv_expand": (256, 256)},
    **{"query_embedding.0": (256, 384), "query_embedding.2": (256, 256), "time_embedding.0": (256, 256)},
    **{f"spatial_alignment.{part}": (256, 256) for part in ("gamma", "beta")},
    **{f"{norm}.{part}": (256, 256) for norm in ("ego_pose_pe", "ego_pose_memory") for part in ("gamma", "beta")},
    **{"spatial_alignment.reduce.0": (256, 8), "ego_pose_pe.reduce.0": (256, 180)},
    **{"ego_pose_memory.reduce.0": (256, 180)},
}


def _public_file(tracker) -> dict[str, torch.Tensor]:
    """The weights as StreamPETR writes them: its class order, its box code, constants, the 2D head of training."""
    model = tracker.config.model
    ranges = {"pc_range": model.pc_range, "position_range": model.position_range}
    tensors = {f"pts_bbox_head.{name}": torch.ones(size) for name, size in CONSTANTS.items()}
    tensors |= {f"pts_bbox_head.{name}": torch.tensor(value) for name, value in ranges.items()}
    tensors |= {"img_roi_head.cls.weight": torch.ones(10, 4), "img_roi_head.shared_reg.0.conv.weight": torch.ones(4)}
    for name, value in tracker.state_dict().items():
        value = value.clone()
        if ".cls_branches." in name and ".6." in name:
            value[PETR_ROWS] = value.clone()
        if ".reg_branches." in name and ".4." in name:
            x, y, w, l, z, h, s, c, vx, vy = value.clone()  # noqa: E741
            # Heading y: our sine is -cos y and our cosine -sin y.
            value = torch.stack([x, y, z, l, w, h, -c, -s, vx, vy])
        tensors[name] = value
    return tensors


@pytest.mark.parametrize("framework", ["none", "mutr3d"])
def test_public_file_converts_without_loss(framework):
    tracker = tiny_stream(framework, 4)
    converted = convert(_public_file(tracker), tracker.config)
    assert converted.source.name == "StreamPETR" and converted.lacking == () and converted.mmdet3d == "1.0"
    assert {name.split(".")[-1] for name in converted.dropped if name.startswith("pts_bbox_head")} == set(CONSTANTS)
    assert sum(name.startswith("img_roi_head") for name in converted.dropped) == 2 == len(converted.dropped) - 5
    assert len(converted.tensors) > 100
    for name, value in converted.tensors.items():
        assert torch.equal(value, tracker.state_dict()[name]), name


def test_converted_boxes_mean_the_same():
    """Run the converted last layer and read its boxes; read those of the original as StreamPETR does."""
    tracker = tiny_stream("none", 4)
    content = _public_file(tracker)
    layer = "pts_bbox_head.reg_branches.0.4"
    converted = convert(content, tracker.config).tensors
    features = torch.randn(50, 16, generator=torch.Generator().manual_seed(0))
    theirs = features @ content[f"{layer}.weight"].T + content[f"{layer}.bias"]
    ours = features @ converted[f"{layer}.weight"].T + converted[f"{layer}.bias"]
    torch.testing.assert_close(box_code.code_center(ours), theirs[:, :3])
    torch.testing.assert_close(box_code.code_size(ours), theirs[:, 3:6].exp())  # length, width, height
    torch.testing.assert_close(box_code.code_velocity(ours), theirs[:, 8:])
    turn = box_code.code_yaw(ours) - torch.atan2(theirs[:, 6], theirs[:, 7])
    torch.testing.assert_close(turn.cos(), torch.ones(50))


def test_command_makes_a_checkpoint_that_steps_alike(tmp_path, capsys):
    tracker = tiny_stream("mutr3d", 5)
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(config_to_dict(tracker.config)))
    torch.save({"state_dict": _public_file(tracker)}, tmp_path / "in.pth")
    output = tmp_path / "out.safetensors"
    assert main(["convert", str(tmp_path / "in.pth"), "-c", str(tmp_path / "tiny.yaml"), "-o", str(output)]) == 0
    assert "StreamPETR" in capsys.readouterr().out
    restored = load_checkpoint(output)
    states = []
    for one in (tracker, restored):
        state = one.init_state()
        with torch.inference_mode():
            for frame in stream_drive(3):
                state, _ = one.step(state, frame)
        states.append(to_dict(state))
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_files_of_another_kind_are_refused():
    tracker = tiny_stream("none", 4)
    content = _public_file(tracker)
    far = content | {"pts_bbox_head.pc_range": torch.tensor([-70.0, -70, -5, 70, 70, 3])}
    with pytest.raises(InputError, match=r"^model.pc_range: the checkpoint has \[-70.0, .*, the configuration \(-51.2"):
        convert(far, tracker.config)
    incomplete = {name: value for name, value in content.items() if "ego_pose_pe.beta.bias" not in name}
    with pytest.raises(InputError, match="it lacks pts_bbox_head.ego_pose_pe.beta.bias"):
        convert(incomplete, tracker.config)
    model = dataclasses.replace(tracker.config.model, detector="petr")
    with pytest.raises(InputError, match="a StreamPETR checkpoint, but the network of this configuration has no place"):
        convert(content, dataclasses.replace(tracker.config, model=model))


@pytest.mark.parametrize("name", NAMES)
def test_names_and_shapes_are_those_of_the_checkpoints(name):
    config = load_config(CONFIGS / f"{name}.yaml")
    head = published_tracker(name).pts_bbox_head
    shapes = {key: tuple(value.shape) for key, value in head.state_dict().items()}
    expected = {f"{key}.weight": shape for key, shape in HEAD.items()}
    expected |= {f"{key}.bias": shape[:1] for key, shape in HEAD.items()}
    expected |= {"time_embedding.1.weight": (256,), "time_embedding.1.bias": (256,)}
    expected |= {"reference_points.weight": (644, 3), "pseudo_reference_points.weight": (256, 3)}
    shared = ("transformer.", "cls_branches.", "reg_branches.")
    assert {key: shape for key, shape in shapes.items() if not key.startswith(shared)} == expected
    petr = dataclasses.replace(config, model=dataclasses.replace(config.model, detector="petr", framework="none"))
    with torch.device("meta"):
        other = make_tracker(petr).pts_bbox_head.state_dict()
    ours = {key for key in shapes if key.startswith(shared)}
    assert ours == {key for key in other if key.startswith(shared)}
    assert all(shapes[key] == tuple(other[key].shape) for key in ours)
    assert sum(p.numel() for p in head.parameters()) == 11_188_640  # published: 11.19 M


def test_every_tensor_of_the_published_network_arrives():
    network = published_tracker("stream_vov_320x800")
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    tensors = numbered(shapes)
    converted = convert(tensors, network.config)
    assert converted.dropped == () and converted.lacking == ()
    rows = (".cls_branches.0.6.", ".reg_branches.0.4.")
    for name, value in converted.tensors.items():
        assert value.shape == shapes[name]
        if not any(part in name for part in rows):  # turned rows share one number here
            assert value.flatten()[0] == tensors[name].flatten()[0], name


def test_configurations_are_the_published_ones():
    def facts(name: str):
        config = load_config(CONFIGS / f"{name}.yaml")
        assert config.name == name and config.model.detector == "stream_petr" and config.model.num_queries == 644
        assert config.model.stream == StreamConfig(memory_length=1024, pushed=256, propagated=256)
        image = config.image
        size = (image.height, image.width, image.channel_order, image.mean[0])
        return (*size, config.model.backbone, config.model.framework)

    assert facts("stream_vov_320x800_detector") == (320, 800, "bgr", 103.53, "v2_99", "none")
    assert facts("stream_r50_256x704_detector") == (256, 704, "rgb", 123.675, "resnet50", "none")
    assert facts("stream_vov_320x800") == (320, 800, "bgr", 103.53, "v2_99", "mutr3d")
    assert facts("stream_vov_640x1600") == (640, 1600, "bgr", 103.53, "v2_99", "mutr3d")


def test_256x704_keeps_the_rows_that_the_network_was_trained_with():
    """As released: 1600x900 is scaled by 0.44 to 704x396, then the upper 140 rows are dropped."""
    image = load_config(CONFIGS / "stream_r50_256x704_detector.yaml").image
    intrinsics = np.array([[1266.0, 0, 816.0], [0, 1266.0, 491.0], [0, 0, 1]])
    expected = np.array([[557.04, 0, 359.04], [0, 557.04, 216.04 - 140], [0, 0, 1]])
    np.testing.assert_allclose(scale_and_crop_intrinsics(intrinsics, 1600, 900, image), expected)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"stream": StreamConfig(memory_length=4, propagated=5, pushed=2)}, "model.stream.propagated: 5 of"),
        ({"stream": StreamConfig(memory_length=64, propagated=5, pushed=13)}, "model.stream.pushed: 13 is not within"),
        ({"stream": StreamConfig(memory_length=64, propagated=0, pushed=3)}, "model.stream.propagated: 0 of"),
        ({"depth_bins": 29}, "model.depth_bins: stream_petr needs 30 or more, got 29"),
        ({"framework": "pf_track"}, "pf_track with stream_petr; known: .*mutr3d with stream_petr"),
    ],
)
def test_impossible_values_are_refused(change, message):
    config = stream_config("none")
    check_config(config)
    with pytest.raises(InputError, match=message):
        check_config(dataclasses.replace(config, model=dataclasses.replace(config.model, **change)))


@torch.no_grad()
def test_the_stopwatch_finds_every_stage():
    tracker, watch = tiny_stream("mutr3d", 5), Stopwatch(torch.device("cpu"))
    state = timed = tracker.init_state()
    for frame in stream_drive(2):
        state, _ = tracker.step(state, frame)
        with timed_parts(tracker, watch):
            watch.switch("life cycle")
            timed, _ = tracker.step(timed, frame)
        spent = {stage for stage, seconds in watch.stop().items() if seconds}
        assert spent == {"backbone", "neck", "position", "decoder", "life cycle", "other"}
    assert all(torch.equal(value, to_dict(timed)[name]) for name, value in to_dict(state).items())
