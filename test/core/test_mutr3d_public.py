"""The published MUTR3D networks, tensor by tensor, and the way of their weights into ours."""

import dataclasses
import math

import pytest
import torch
import yaml
from law_helpers import track
from mutr3d_names import mutr3d_file, public_shapes, unused_shapes
from public_files import CONFIGS, numbered, published_tracker
from tiny_mutr3d import CLASSES, mutr3d_config, tiny_mutr3d
from tiny_tracker import drive

from syncl_core.bench.footprint import footprint
from syncl_core.checkpoint import load_checkpoint, save_checkpoint
from syncl_core.cli import main
from syncl_core.config import config_to_dict, load_config
from syncl_core.convert import convert
from syncl_core.errors import InputError
from syncl_core.tracking.build import build_tracker

NETWORKS = [(101, "mutr3d_r101_900x1600", 56_059_386), (50, "mutr3d_r50_900x1600", 36_009_263)]


@pytest.mark.parametrize("depth, name, parameters", NETWORKS)
def test_names_shapes_and_sizes_are_those_of_the_release(depth, name, parameters):
    tracker, expected = published_tracker(name), public_shapes(depth)
    assert {key: tuple(value.shape) for key, value in tracker.state_dict().items()} == expected
    running = ("running_mean", "running_var", "num_batches_tracked")
    counted = sum(math.prod(shape) for key, shape in expected.items() if not key.endswith(running))
    assert sum(p.numel() for p in tracker.parameters()) == counted == parameters


@pytest.mark.parametrize("name", [name for _, name, _ in NETWORKS])
def test_configurations_are_those_of_the_release(name):
    config = load_config(CONFIGS / f"{name}.yaml")
    image, model, track = config.image, config.model, config.track
    assert config.name == name and config.classes == CLASSES
    assert (image.height, image.width, image.channel_order) == (900, 1600, "bgr")
    assert (image.mean, image.std) == ((103.53, 116.28, 123.675), (1.0, 1.0, 1.0))
    assert (model.num_queries, model.embed_dim, model.ffn_dim, model.num_layers) == (300, 256, 512, 6)
    assert (model.detr3d.num_levels, model.detr3d.pad_multiple) == (4, 32)
    assert (model.mutr3d.memory_length, model.mutr3d.memory_period) == (4, 3)
    assert (track.score_threshold, track.filter_threshold, track.max_age, track.max_output) == (0.4, 0.35, 5, 100)
    assert model.position_range == (-61.2, -61.2, -10.0, 61.2, 61.2, 10.0)
    assert model.pc_range == (-51.2, -51.2, -5.0, 51.2, 51.2, 3.0)


def test_images_are_filled_up_to_928_rows_for_maps_at_strides_8_to_64():
    size = footprint(load_config(CONFIGS / "mutr3d_r50_900x1600.yaml"))
    assert size.image_tokens == 6 * (116 * 200 + 58 * 100 + 29 * 50 + 15 * 25)
    assert size.parameters == 36_009_263


def test_every_public_tensor_arrives():
    config = load_config(CONFIGS / "mutr3d_r101_900x1600.yaml")
    tensors = numbered(public_shapes(101) | unused_shapes(), shared_heads=False)
    converted = convert(tensors, config)
    assert (converted.source.name, converted.mmdet3d, converted.lacking) == ("MUTR3D", "0.17", ())
    assert set(converted.dropped) == unused_shapes().keys()
    assert converted.tensors.keys() == public_shapes(101).keys()
    for name, value in converted.tensors.items():
        assert value.shape == tensors[name].shape and value.flatten()[0] == tensors[name].flatten()[0], name


def test_a_converted_file_tracks_like_the_original(tmp_path, capsys):
    """Also with the classes in another order: all layers' rows move."""
    original = tiny_mutr3d(3)
    torch.save({"meta": {"epoch": 24}, "state_dict": mutr3d_file(original)}, tmp_path / "epoch_24.pth")
    order = tuple(reversed(CLASSES))
    for classes in (CLASSES, order):
        config = dataclasses.replace(original.config, classes=classes)
        (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(config_to_dict(config)))
        out = tmp_path / f"{classes[0]}.safetensors"
        files = [str(tmp_path / "epoch_24.pth"), "-c", str(tmp_path / "tiny.yaml"), "-o", str(out)]
        assert main(["convert", *files]) == 0
        assert "MUTR3D" in capsys.readouterr().out
        state, outputs = track(load_checkpoint(out), drive(4))
        expected, expected_outputs = track(original, drive(4))
        tracks, expected_tracks = outputs[-1], expected_outputs[-1]
        assert tracks.valid.any() and torch.equal(tracks.valid, expected_tracks.valid)
        torch.testing.assert_close(state.box, expected.box, atol=1e-5, rtol=1e-5)
        names = [classes[label] for label in tracks.label[tracks.valid].tolist()]
        assert names == [CLASSES[label] for label in expected_tracks.label[tracks.valid].tolist()]
    permuted = load_checkpoint(tmp_path / f"{order[0]}.safetensors").pts_bbox_head.cls_branches
    for ours, theirs in zip(permuted, original.pts_bbox_head.cls_branches, strict=True):
        assert torch.equal(ours[-1].weight.flip(0), theirs[-1].weight)


def test_a_saved_tracker_comes_back(tmp_path):
    tracker = tiny_mutr3d(1)
    save_checkpoint(tmp_path / "own.safetensors", tracker)
    loaded = load_checkpoint(tmp_path / "own.safetensors", tracker.config)
    assert torch.equal(track(loaded, drive(3))[0].box, track(tracker, drive(3))[0].box)
    model = dataclasses.replace(tracker.config.model.mutr3d, memory_period=2)
    other = dataclasses.replace(tracker.config, model=dataclasses.replace(tracker.config.model, mutr3d=model))
    with pytest.raises(InputError, match=r"model\.mutr3d: the checkpoint has"):
        load_checkpoint(tmp_path / "own.safetensors", other)


def test_older_files_call_the_offsets_otherwise():
    config = _with_backbone("resnet50_caffe_dcn")
    tracker = build_tracker(config)
    old = {name.replace(".conv2.conv_offset.", ".conv2_offset."): v for name, v in mutr3d_file(tracker).items()}
    assert old.keys() != tracker.state_dict().keys()
    assert convert(old, config).tensors.keys() == tracker.state_dict().keys()


def test_damaged_or_foreign_files_are_refused():
    config = _with_backbone("resnet50_caffe_dcn")
    content = mutr3d_file(build_tracker(config))
    offset = "img_backbone.layer3.2.conv2.conv_offset.weight"
    with pytest.raises(InputError, match=rf"a MUTR3D checkpoint, but it lacks {offset}"):
        convert({name: value for name, value in content.items() if name != offset}, config)
    with pytest.raises(InputError, match=r"no place for memory_bank\.extra"):
        convert(content | {"memory_bank.extra": torch.ones(1)}, config)
    with pytest.raises(InputError, match=r"leave 1\.0 out"):
        convert(content, config, mmdet3d="1.0")
    with pytest.raises(InputError, match=r"cls_branches.*has shape \[7, 16\], the network needs \[10, 16\]"):
        convert(content, dataclasses.replace(config, classes=(*CLASSES, "a", "b", "c")))


def test_a_plain_backbone_starts_a_deformable_one():
    """Zero offsets and half weights, as an untrained deformable convolution has them."""
    config = _with_backbone("resnet50_caffe_dcn")
    backbone = build_tracker(_with_backbone("resnet50_caffe")).img_backbone.state_dict()
    converted = convert(backbone, config)
    offsets = [name for name in converted.tensors if ".conv_offset." in name]
    assert len(offsets) == 2 * (6 + 3) and not any(converted.tensors[name].any() for name in offsets)
    expected = build_tracker(config).img_backbone.state_dict()
    assert converted.tensors.keys() == {f"img_backbone.{name}" for name in expected}
    assert {"query_interact", "memory_bank", "bbox_size_fc", "pts_bbox_head"} < set(converted.lacking)


def test_a_monocular_detector_starts_the_backbone():
    """FCOS3D on the same deformable ResNet, from which DETR3D is usually trained."""
    config = _with_backbone("resnet50_caffe_dcn")
    backbone = build_tracker(config).img_backbone.state_dict()
    content = {f"backbone.{name}": value + 1 for name, value in backbone.items()}
    content |= {"neck.lateral_convs.0.conv.weight": torch.ones(2), "bbox_head.conv_cls.weight": torch.ones(2)}
    converted = convert(content, config)
    assert converted.source.name == "FCOS3D backbone" and len(converted.dropped) == 2
    for name, value in backbone.items():
        assert torch.equal(converted.tensors[f"img_backbone.{name}"], value + 1), name


@pytest.mark.parametrize(
    "changes, message",
    [
        ("model: {detector: detr3d}", "model.framework, model.detector: pf_track with detr3d; known: "),
        ("model: {detr3d: {num_levels: 9}}", "model.detr3d.num_levels: must be within 3 and 8, got 9"),
        ("model: {detr3d: {num_levels: 2}}", "model.detr3d.num_levels: must be within 3 and 8, got 2"),
        ("model: {detr3d: {pad_multiple: 0}}", "model.detr3d.pad_multiple: "),
        ("model: {mutr3d: {memory_length: 0}}", "model.mutr3d.memory_length: "),
        ("model: {mutr3d: {memory_period: -1}}", "model.mutr3d.memory_period: "),
        ("model: {mutr3d: {length: 4}}", "model.mutr3d.length: unknown key"),
        ("track: {filter_threshold: 1.5}", "track.filter_threshold: must be within 0 and 1"),
    ],
)
def test_impossible_options_are_refused(tmp_path, changes, message):
    (tmp_path / "bad.yaml").write_text(changes)
    with pytest.raises(InputError) as refusal:
        load_config(tmp_path / "bad.yaml")
    assert str(refusal.value).startswith(f"{tmp_path / 'bad.yaml'}: {message}")


def _with_backbone(name: str):
    config = mutr3d_config()
    return dataclasses.replace(config, model=dataclasses.replace(config.model, backbone=name))
