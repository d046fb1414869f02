"""PETRv2 as published: names and shapes, converted files, shipped configurations, and what a step costs."""

import dataclasses

import pytest
import torch
from law_helpers import assert_same_tracks
from public_files import CONFIGS, numbered, petr_file, pftrack_file, public_shapes, published_tracker
from tiny_petrv2 import petrv2_config, tiny_petrv2
from tiny_tracker import make_frame

from syncl_core.bench.footprint import footprint
from syncl_core.bench.stopwatch import Stopwatch, timed_parts
from syncl_core.checkpoint import load_checkpoint, save_checkpoint
from syncl_core.commands.convert import EXAMPLES
from syncl_core.config import check_config, load_config
from syncl_core.convert import convert
from syncl_core.errors import InputError
from syncl_core.shipped import shipped_configs
from syncl_core.tensors import to_dict

PARTS = (2, 1, 3, 2, 2)


def _released_shapes(queries: int = 900) -> dict[str, tuple[int, ...]]:
    """The names of the published PETRv2 (V2-99): PETR's, with the gate and a box head in five parts for each layer."""
    names = {}
    for name, shape in public_shapes().items():
        if name.startswith(("STReasoner.", "query_feat_embedding.", "pts_bbox_head.reg_branches.")):
            continue
        inside = name.startswith(("reference_points.", "query_embedding."))
        names["pts_bbox_head." + name if inside else name] = shape
    layers = {f"reg_branches.{i}.reg_branch.{j}": (256, 256) for i in range(6) for j in (0, 3)}
    layers |= {f"reg_branches.{i}.task_heads.{k}.0": (256, 256) for i in range(6) for k in range(5)}
    layers |= {f"reg_branches.{i}.task_heads.{k}.2": (size, 256) for i in range(6) for k, size in enumerate(PARTS)}
    layers |= {f"fpe.{name}": (256, 256, 1, 1) for name in ("conv_reduce", "conv_expand")}
    for name, shape in layers.items():
        names |= {f"pts_bbox_head.{name}.weight": shape, f"pts_bbox_head.{name}.bias": shape[:1]}
    return names | {"pts_bbox_head.reference_points.weight": (queries, 3), "pts_bbox_head.code_weights": (10,)}


def _ours(name: str) -> str:
    inside = ("pts_bbox_head.reference_points.", "pts_bbox_head.query_embedding.")
    return name.removeprefix("pts_bbox_head.") if name.startswith(inside) else name


def test_names_and_shapes_are_those_of_the_checkpoint():
    tracker = published_tracker("petrv2_vov_320x800_detector")
    expected = {_ours(name): shape for name, shape in _released_shapes().items() if "code_weights" not in name}
    assert {name: tuple(value.shape) for name, value in tracker.state_dict().items()} == expected
    petr = sum(p.numel() for p in published_tracker("petr_vov_320x800_900queries").parameters())
    assert sum(p.numel() for p in tracker.parameters()) == petr + 5 * _class_head() + _box_and_gate() == 85_116_740


def test_pf_tracks_own_files_on_petrv2_have_its_class_order():
    """They hold PETRv2's gate, too; it is PF-Track's reasoning that tells whose they are."""
    tracker = tiny_petrv2(4)
    converted = convert(pftrack_file(tracker), tracker.config)
    assert converted.source.name == "PF-Track" and converted.dropped == ("criterion.code_weights",)
    weights = tracker.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in converted.tensors.items())


def _class_head() -> int:
    return 2 * (256 * 256 + 256 + 2 * 256) + 10 * 256 + 10


def _box_and_gate() -> int:
    """What six box heads in parts and the gate have more than PETR's one box head."""
    square = 256 * 256 + 256
    last = 10 * 256 + 10
    return 6 * (2 * square + 5 * square + last) - (2 * square + last) + 2 * square


def test_every_public_tensor_arrives():
    config = load_config(CONFIGS / "petrv2_vov_320x800_detector.yaml")
    tensors = numbered(_released_shapes(), shared_heads=False)
    converted = convert(tensors, config)
    assert converted.source.name == "PETRv2" and "Apache-2.0" in converted.source.licence
    assert converted.dropped == ("pts_bbox_head.code_weights",) and converted.lacking == ()
    assert converted.tensors.keys() == {_ours(name) for name in tensors} - {"pts_bbox_head.code_weights"}
    for name, value in tensors.items():
        if "code_weights" not in name:
            assert converted.tensors[_ours(name)].flatten()[0] == value.flatten()[0], name


def test_a_file_converts_without_loss_and_in_our_class_order(tmp_path):
    tracker = tiny_petrv2(4, framework="none")
    converted = convert(petr_file(tracker), tracker.config)
    assert converted.mmdet3d == "0.17" and converted.lacking == ()
    assert converted.tensors.keys() == tracker.state_dict().keys()
    for name, value in converted.tensors.items():
        assert torch.equal(value, tracker.state_dict()[name]), name
    save_checkpoint(tmp_path / "petrv2.safetensors", tracker)
    loaded = load_checkpoint(tmp_path / "petrv2.safetensors")
    assert loaded.config == tracker.config
    assert_same_tracks(loaded, tracker)


def test_a_detector_starts_a_tracker():
    tracker = tiny_petrv2(4)
    stage_two = ("STReasoner.", "query_feat_embedding.")
    content = {name: value for name, value in petr_file(tracker).items() if not name.startswith(stage_two)}
    assert convert(content, tracker.config).lacking == ("STReasoner", "query_feat_embedding")
    del content["pts_bbox_head.fpe.conv_expand.bias"]
    with pytest.raises(InputError, match=r"a PETRv2 checkpoint, but it lacks pts_bbox_head.fpe.conv_expand.bias"):
        convert(content, tracker.config)


def test_what_cannot_be_converted_is_refused():
    tracker = tiny_petrv2(4, framework="none")
    with pytest.raises(InputError, match="a PETRv2 checkpoint, whose boxes are those of mmdetection3d 0.17"):
        convert(petr_file(tracker), tracker.config, mmdet3d="1.0")
    petr = dataclasses.replace(tracker.config, model=dataclasses.replace(tracker.config.model, detector="petr"))
    with pytest.raises(InputError, match="a PETRv2 checkpoint, but the network .* has no place for pts_bbox_head.fpe"):
        convert(petr_file(tracker), petr)
    old = numbered({n: s for n, s in _released_shapes().items() if ".fpe." not in n and "_branches" not in n})
    with pytest.raises(InputError, match="a PETR checkpoint, but it lacks pts_bbox_head.cls_branches"):
        convert(old, load_config(CONFIGS / "petrv2_vov_320x800_detector.yaml"))


def test_shipped_configurations_are_those_of_the_publications():
    names = {path.stem for path in shipped_configs()}
    assert {"petrv2_vov_320x800", "petrv2_vov_320x800_detector", "petr_vov_320x800"} <= names
    assert not names & {"tracker", "replay"}
    ours, petr = (load_config(CONFIGS / f"{name}.yaml") for name in ("petrv2_vov_320x800", "petr_vov_320x800"))
    model = dataclasses.replace(ours.model, detector="petr")
    assert dataclasses.replace(ours, name=petr.name, model=model) == petr  # only the detector is another one
    detector = load_config(CONFIGS / "petrv2_vov_320x800_detector.yaml")
    assert (detector.model.num_queries, detector.model.framework, detector.track.slots) == (900, "none", 900)
    assert "petrv2_vov_320x800_detector.yaml" in EXAMPLES


@pytest.mark.parametrize("name", ["petrv2_vov_320x800", "petrv2_vov_320x800_detector"])
def test_the_footprint_counts_both_frames_and_one_backbone(name):
    size = footprint(load_config(CONFIGS / f"{name}.yaml"))
    petr = footprint(load_config(CONFIGS / f"{name.replace('petrv2', 'petr')}.yaml"))
    assert (size.image_tokens, petr.image_tokens) == (12000, 6000)
    assert 1.0 < size.flops / petr.flops < 1.15  # a second backbone would make it 1.9
    assert size.state_bytes > 6000 * 256 * 4


def test_the_empty_state_is_as_large_as_any():
    tracker = tiny_petrv2(4)
    empty = tracker.init_state(1)
    state, _ = tracker.step(empty, make_frame(0))
    before, after = to_dict(empty), to_dict(state)
    assert {k: (v.shape, v.dtype) for k, v in before.items()} == {k: (v.shape, v.dtype) for k, v in after.items()}


def test_its_stages_are_timed():
    tracker, watch = tiny_petrv2(4), Stopwatch(torch.device("cpu"))
    watch.switch("life cycle")
    with timed_parts(tracker, watch), torch.inference_mode():
        tracker.step(tracker.init_state(), make_frame(0))
    seconds = watch.stop()
    for stage in ("backbone", "neck", "position", "decoder", "reasoning", "life cycle", "other"):
        assert seconds[stage] > 0, stage


@pytest.mark.parametrize(
    "change, message",
    [
        ({"image": {"height": 40}}, "image.height, image.width: petrv2 needs multiples of 16, got 40 x 64"),
        ({"image": {"width": 72}}, "image.height, image.width: petrv2 needs multiples of 16, got 32 x 72"),
        ({"model": {"petrv2": {"stand_in_seconds": 0.0}}}, "model.petrv2.stand_in_seconds: must be positive, got 0.0"),
        ({"model": {"framework": "sort"}}, "sort with petrv2; known: .*pf_track with petrv2"),
    ],
)
def test_impossible_settings_are_refused(change, message):
    def replaced(value, changes):
        inner = {k: replaced(getattr(value, k), v) if isinstance(v, dict) else v for k, v in changes.items()}
        return dataclasses.replace(value, **inner)

    check_config(petrv2_config())
    with pytest.raises(InputError, match=message):
        check_config(replaced(petrv2_config(), change))
