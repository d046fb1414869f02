"""Public weights come in whole and unchanged, or not at all: made-up numbers under the public names."""

import dataclasses
import hashlib
import json
import os

import pytest
import torch
import yaml
from law_helpers import assert_same_tracks
from public_files import (
    CONFIGS,
    Trap,
    detector_config,
    numbered,
    petr_file,
    pftrack_file,
    public_shapes,
    with_backbone,
)
from safetensors import safe_open
from safetensors.torch import save_file
from tiny_mutr3d import mutr3d_config
from tiny_tracker import shake, tiny_config, tiny_tracker

from syncl_core.checkpoint import load_checkpoint, save_checkpoint, start_from
from syncl_core.cli import main
from syncl_core.config import config_to_dict, load_config, with_values
from syncl_core.convert import convert
from syncl_core.errors import InputError
from syncl_core.models import box_code
from syncl_core.tracking.build import build_tracker, make_tracker
from syncl_core.weights import SNAPSHOT_FORMAT

STAGE_TWO = ("STReasoner.", "query_feat_embedding.")


@pytest.fixture
def config_file(tmp_path):
    return _written(tmp_path / "tiny.yaml", tiny_config())


def _written(path, config):
    path.write_text(yaml.safe_dump(config_to_dict(config)))
    return path


def _convert(tmp_path, config_file, content, capsys, name="in.pth", *options: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `syncl convert`; `content` is saved as a pickle unless it is already a file."""
    if content is not None:
        torch.save(content, tmp_path / name)
    command = ["convert", str(tmp_path / name), "-c", str(config_file), "-o", str(tmp_path / "out" / "out.safetensors")]
    code = main([*command, *options])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def _refusal(tmp_path, config_file, content, capsys, name="in.pth") -> str:
    """The one line `syncl convert` refuses with; nothing may be left behind."""
    code, _, err = _convert(tmp_path, config_file, content, capsys, name)
    assert code == 2 and err.count("\n") == 1
    assert err.startswith(f"syncl: error: {tmp_path / name}: ")
    assert not (tmp_path / "out").exists()
    return err


def test_every_public_tensor_arrives():
    """All 1,002 names of PF-Track on V2-99, each with its own number."""
    config = load_config(CONFIGS / "petr_vov_320x800.yaml")
    tensors = numbered(public_shapes()) | {"criterion.code_weights": torch.ones(10)}
    converted = convert(tensors, config)
    assert converted.dropped == ("criterion.code_weights",) and converted.lacking == ()
    copies = {name for name in tensors if "_branches." in name and "_branches.0." not in name}
    assert converted.tensors.keys() == tensors.keys() - copies - {"criterion.code_weights"}
    for name, value in converted.tensors.items():
        assert value.shape == tensors[name].shape and value.flatten()[0] == tensors[name].flatten()[0], name
    assert len({v.flatten()[0].item() for v in converted.tensors.values()}) == len(converted.tensors)


def test_pftrack_file_converts_without_loss(tmp_path, config_file, capsys):
    tracker = tiny_tracker(3)
    content = {"meta": {"epoch": 12, "config": "text"}, "state_dict": pftrack_file(tracker), "optimizer": {"lr": 1.0}}
    code, out, err = _convert(tmp_path, config_file, content, capsys)
    assert code == 0 and err == ""
    assert "CC BY-NC-SA 4.0" in out and "left out: criterion.code_weights" in out
    restored = load_checkpoint(tmp_path / "out" / "out.safetensors")
    for name, value in tracker.state_dict().items():
        assert torch.equal(value, restored.state_dict()[name]), name
    assert_same_tracks(restored, tracker)
    assert os.listdir(tmp_path / "out") == ["out.safetensors"]


def test_metadata_tells_how_to_use_the_weights_and_where_they_are_from(tmp_path, config_file, capsys):
    _convert(tmp_path, config_file, {"state_dict": pftrack_file(tiny_tracker(3))}, capsys)
    with safe_open(tmp_path / "out" / "out.safetensors", framework="pt") as file:
        metadata = file.metadata()
    config, origin = json.loads(metadata["config"]), json.loads(metadata["origin"])
    assert config == json.loads(json.dumps(config_to_dict(tiny_config())))
    assert {"mean", "std", "channel_order", "height", "width"} <= config["image"].keys()
    assert config["classes"][0] == "car" and config["rig"]["model_frame"] == "LIDAR_TOP"
    assert config["track"]["step_seconds"] == 0.5
    assert "a = -heading - pi/2" in metadata["box_convention"] and metadata["complete"] == "true"
    assert origin["file"] == "in.pth" and origin["family"] == "PF-Track" and origin["mmdet3d"] == "0.17"
    assert origin["sha256"] == hashlib.sha256((tmp_path / "in.pth").read_bytes()).hexdigest()
    assert origin["licence"].startswith("CC BY-NC-SA 4.0")


def test_older_names_and_wrappers_are_understood():
    tracker = tiny_tracker(3)
    tensors = {}
    for name, value in pftrack_file(tracker).items():
        for new, old in (
            (".attentions.0.attn.", ".self_attn.attn."),
            (".attentions.1.attn.", ".multihead_attn."),
            (".decoder.post_norm.", ".decoder.norm."),
        ):
            name = name.replace(new, old)
        tensors[f"module.{name}"] = value
    converted = convert(tensors, tracker.config).tensors
    assert all(torch.equal(value, tracker.state_dict()[name]) for name, value in converted.items())
    assert any(".attentions.1.attn.in_proj_weight" in name for name in converted)


def test_half_precision_becomes_single():
    tracker = tiny_tracker(3)
    tensors = {k: v.half() if v.is_floating_point() else v for k, v in pftrack_file(tracker).items()}
    converted = convert(tensors, tracker.config).tensors
    assert all(v.dtype == torch.float32 for k, v in converted.items() if not k.endswith("num_batches_tracked"))
    for name, value in converted.items():
        torch.testing.assert_close(value, tracker.state_dict()[name], rtol=1e-3, atol=1e-3)


def test_petr_comes_with_its_queries_and_in_our_class_order():
    tracker = shake(build_tracker(detector_config()), 4)
    converted = convert(petr_file(tracker), tracker.config)
    assert converted.source.name == "PETR" and converted.lacking == ()
    assert converted.dropped == ("pts_bbox_head.code_weights",)
    for name, value in converted.tensors.items():
        assert torch.equal(value, tracker.state_dict()[name]), name


@pytest.mark.parametrize("make_file", [petr_file, pftrack_file])
def test_boxes_of_the_newer_convention_mean_the_same(make_file):
    """Run the converted last layer and read its boxes; read those of the original as mmdetection3d 1.0 does."""
    tracker = shake(build_tracker(detector_config()), 4)
    content = make_file(tracker)
    layer = "pts_bbox_head.reg_branches.0.4"
    converted = convert(content, tracker.config, mmdet3d="1.0").tensors
    features = torch.randn(50, 16, generator=torch.Generator().manual_seed(0))
    theirs = features @ content[f"{layer}.weight"].T + content[f"{layer}.bias"]
    ours = features @ converted[f"{layer}.weight"].T + converted[f"{layer}.bias"]
    length, width, height = theirs[:, 2].exp(), theirs[:, 3].exp(), theirs[:, 5].exp()
    torch.testing.assert_close(box_code.code_size(ours), torch.stack([length, width, height], dim=1))
    torch.testing.assert_close(box_code.code_center(ours), theirs[:, [0, 1, 4]])
    torch.testing.assert_close(box_code.code_velocity(ours), theirs[:, 8:])
    turn = box_code.code_yaw(ours) - torch.atan2(theirs[:, 6], theirs[:, 7])
    torch.testing.assert_close(turn.cos(), torch.ones(50))


def test_newer_convention_reaches_the_refinement_too():
    tracker = tiny_tracker(3)
    converted = convert(pftrack_file(tracker), tracker.config, mmdet3d="1.0").tensors
    old, new = tracker.state_dict()["STReasoner.track_reg.6.bias"], converted["STReasoner.track_reg.6.bias"]
    assert torch.equal(new, torch.stack([*old[:2], old[3], old[2], *old[4:6], -old[7], -old[6], *old[8:]]))


def test_stage_one_starts_stage_two(tmp_path, config_file, capsys):
    tracker = tiny_tracker(3)
    content = {k: v for k, v in pftrack_file(tracker).items() if not k.startswith(STAGE_TWO)}
    assert convert(content, detector_config()).lacking == ()
    code, out, _ = _convert(tmp_path, config_file, content, capsys)
    assert code == 0 and "only a start for training: it lacks STReasoner, query_feat_embedding" in out
    path = tmp_path / "out" / "out.safetensors"
    with pytest.raises(InputError, match=r"holds no weights for STReasoner, query_feat_embedding: it is a start for"):
        load_checkpoint(path)
    start, fresh = load_checkpoint(path, allow_lacking=True), build_tracker(tiny_config())
    for name, value in start.state_dict().items():
        expected = fresh if name.startswith(STAGE_TWO) else tracker
        assert torch.equal(value, expected.state_dict()[name]), name


@pytest.mark.parametrize(
    "changes",
    [
        {"model": {"track_class_head": True}},
        {"train": {"start_with": "encoder"}, "model": {"num_queries": 7}},
        {"train": {"start_with": "encoder"}, "classes": ["car"], "num_tracking_classes": 1},
    ],
)
def test_a_public_file_starts_what_its_conversion_starts(tmp_path, changes):
    """A head for tracks alone, other queries, other classes: what is not asked for need not fit."""
    tracker = tiny_tracker(3)
    content = {k: v for k, v in pftrack_file(tracker).items() if not k.startswith(STAGE_TWO)}
    public, ours = tmp_path / "public.pth", tmp_path / "ours.safetensors"
    torch.save(content, public)
    detector = _written(tmp_path / "detector.yaml", detector_config())
    assert main(["convert", str(public), "-c", str(detector), "-o", str(ours)]) == 0
    config = with_values(tiny_config(), changes)
    started = [build_tracker(config, seed=5) for _ in range(2)]
    told = [start_from(path, one) for path, one in zip((public, ours), started, strict=True)]
    assert told[0][0] == told[1][0] and len(told[0][0]) > 20
    for name, value in started[0].state_dict().items():
        assert torch.equal(value, started[1].state_dict()[name]), name


@pytest.mark.parametrize(
    "backbone, prefix, extra",
    [
        ("v2_99", "backbone.bottom_up.", {"backbone.fpn_lateral3.weight": (4, 4, 1, 1), "fcos3d_head.x": (1,)}),
        # DD3D for nuScenes:
        ("v2_99", "backbone.bottom_up.", {"attr_logits.bias": (9,), "speed.weight": (1, 4, 3, 3)}),
        ("v2_99", "img_backbone.", {}),
        ("resnet50", "", {"fc.weight": (1000, 2048), "fc.bias": (1000,)}),
        ("resnet101_caffe", "", {}),
    ],
)
def test_backbones_start_a_network(backbone, prefix, extra):
    config = with_backbone(backbone)
    with torch.device("meta"):
        shapes = {k: tuple(v.shape) for k, v in make_tracker(config).img_backbone.state_dict().items()}
    frozen = {k: v for k, v in shapes.items() if not k.endswith("num_batches_tracked")}  # as frozen batch norms have it
    tensors = numbered({prefix + k: v for k, v in frozen.items()} | extra)
    converted = convert(tensors, config)
    assert converted.dropped == tuple(extra) and "pts_bbox_head" in converted.lacking
    assert converted.tensors.keys() == {f"img_backbone.{name}" for name in shapes}
    for name in frozen:
        assert converted.tensors[f"img_backbone.{name}"].flatten()[0] == tensors[prefix + name].flatten()[0]


def test_a_backbone_starts_a_network_with_parts_of_our_own():
    config = with_values(mutr3d_config(), {"model": {"detr3d": {"votes": True, "proposals": True, "tower": 1}}})
    names = build_tracker(config).img_backbone.state_dict()
    converted = convert(numbered({f"img_backbone.{k}": tuple(v.shape) for k, v in names.items()}), config)
    assert {"voter", "proposer", "tower"} <= set(converted.lacking)


def test_another_network_is_refused(tmp_path, config_file, capsys):
    mutr3d = numbered({"reference_points.weight": (3, 256), "query_embedding.weight": (300, 512)})
    assert "no place for query_embedding.weight" in _refusal(tmp_path, config_file, mutr3d, capsys)
    assert "no checkpoint that can be converted" in _refusal(tmp_path, config_file, {"a.b": torch.ones(1)}, capsys)
    tracker = pftrack_file(tiny_tracker(3))
    more = tracker | {"pts_bbox_head.extra.weight": torch.ones(1), "img_neck.fpn_convs.1.conv.bias": torch.ones(1)}
    assert "no place for img_neck.fpn_convs.1.conv.bias, pts_bbox_head.extra.weight" in _refusal(
        tmp_path, config_file, more, capsys
    )
    wide = tracker | {"reference_points.weight": torch.ones(900, 3)}
    assert "reference_points.weight has shape [900, 3], the network needs [12, 3]" in _refusal(
        tmp_path, config_file, wide, capsys
    )


def test_wrong_class_count_is_refused(tmp_path, config_file, capsys):
    tensors = pftrack_file(tiny_tracker(3))
    tensors = {k: v[:7].clone() if ".cls_branches." in k and ".6." in k else v for k, v in tensors.items()}
    assert "pts_bbox_head.cls_branches.0.6.weight has shape [7, 16]" in _refusal(tmp_path, config_file, tensors, capsys)


def test_other_class_names_are_refused():
    tracker = tiny_tracker(3)
    config = dataclasses.replace(tracker.config, classes=(*tracker.config.classes[:9], "tram"))
    with pytest.raises(InputError, match=r"^classes: the checkpoint has car, .*; the configuration car, .*, tram$"):
        convert(pftrack_file(tracker), config)


def test_missing_tensors_are_refused(tmp_path, config_file, capsys):
    whole = pftrack_file(tiny_tracker(3))
    for missing in ("query_embedding.0.bias", "STReasoner.track_cls.6.bias", "query_feat_embedding.weight"):
        tensors = {k: v for k, v in whole.items() if k != missing}
        assert f"it lacks {missing}" in _refusal(tmp_path, config_file, tensors, capsys)
    headless = {k: v for k, v in whole.items() if not k.startswith("img_neck")}
    assert "it lacks img_neck.fpn_convs.0.conv.bias, " in _refusal(tmp_path, config_file, headless, capsys)


def test_unequal_copies_are_refused(tmp_path, config_file, capsys):
    tensors = pftrack_file(tiny_tracker(3))
    tensors["pts_bbox_head.reg_branches.1.2.weight"][0, 0] += 1e-3
    assert "reg_branches.1.2.weight differs from pts_bbox_head.reg_branches.0.2.weight" in _refusal(
        tmp_path, config_file, tensors, capsys
    )


def test_half_precision_with_nan_is_refused(tmp_path, config_file, capsys):
    tensors = {k: v.half() if v.is_floating_point() else v for k, v in pftrack_file(tiny_tracker(3)).items()}
    tensors["query_embedding.2.weight"][1, 1] = torch.nan
    assert "query_embedding.2.weight holds NaN" in _refusal(tmp_path, config_file, tensors, capsys)


@pytest.mark.parametrize("keep", [0, 100, -100])
def test_truncated_file_is_refused(tmp_path, config_file, capsys, keep):
    torch.save({"state_dict": pftrack_file(tiny_tracker(3))}, tmp_path / "in.pth")
    (tmp_path / "in.pth").write_bytes((tmp_path / "in.pth").read_bytes()[:keep])
    assert "PyTorch file" in _refusal(tmp_path, config_file, None, capsys)


@pytest.mark.parametrize("text", ["hi", "a", "(.", "<html>", "0", "version https://git-lfs.github.com/spec/v1"])
def test_a_text_file_is_refused(tmp_path, config_file, capsys, text):
    (tmp_path / "in.pth").write_text(text)
    assert "PyTorch file" in _refusal(tmp_path, config_file, None, capsys)


def test_code_in_a_pickle_is_named_and_not_run(tmp_path, config_file, capsys):
    content = {"state_dict": pftrack_file(tiny_tracker(3)), "meta": Trap(tmp_path / "sprung")}
    message = _refusal(tmp_path, config_file, content, capsys)
    assert "it asks for posix.mkdir" in message and "weights_only=False)['state_dict']" in message
    assert not (tmp_path / "sprung").exists()


def test_safetensors_are_read_as_well(tmp_path, config_file, capsys):
    save_file(pftrack_file(tiny_tracker(3)), tmp_path / "in.safetensors")
    assert _convert(tmp_path, config_file, None, capsys, "in.safetensors")[0] == 0
    (tmp_path / "in.safetensors").write_bytes(b"cut")
    code, _, err = _convert(tmp_path, config_file, None, capsys, "in.safetensors", "--overwrite")
    assert code == 2 and "truncated or not a safetensors file" in err
    assert load_checkpoint(tmp_path / "out" / "out.safetensors").config == tiny_config()  # the old one is still there


def test_our_own_files_are_not_public_ones(tmp_path, config_file, capsys):
    """Their names are those of public files, but their boxes and classes are in order already."""
    tracker = tiny_tracker(3)
    save_checkpoint(tmp_path / "in.safetensors", tracker)
    code, _, err = _convert(tmp_path, config_file, None, capsys, "in.safetensors")
    assert code == 2 and "in.safetensors: is a checkpoint of this program already; use it as it is" in err
    torch.save({"format": SNAPSHOT_FORMAT, "model": tracker.state_dict()}, tmp_path / "last.pt")
    code, _, err = _convert(tmp_path, config_file, None, capsys, "last.pt")
    assert code == 2 and "is a snapshot for --resume; its weights are in last.safetensors" in err
    with pytest.raises(InputError, match="is a snapshot for --resume"):
        load_checkpoint(tmp_path / "last.pt")


def test_results_are_not_overwritten_unasked(tmp_path, config_file, capsys):
    content = pftrack_file(tiny_tracker(3))
    assert _convert(tmp_path, config_file, content, capsys)[0] == 0
    code, _, err = _convert(tmp_path, config_file, content, capsys)
    assert code == 2 and "out.safetensors: exists already" in err
    assert _convert(tmp_path, config_file, content, capsys, "in.pth", "--overwrite")[0] == 0
    command = ["convert", str(tmp_path / "in.pth"), "-c", str(config_file), "-o", str(tmp_path / "out.pth")]
    assert main(command) == 2
    assert "out.pth: the output is a .safetensors file" in capsys.readouterr().err
