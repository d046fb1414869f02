"""Optimiser, schedule, event file, configuration, ablations: each against its definition."""

import dataclasses
import math
import struct

import pytest
import torch
from safetensors.torch import save_file
from train_fixture import ToySource, toy_config

from syncl_core.checkpoint import save_checkpoint, save_converted, start_from
from syncl_core.config import SynclConfig, check_config, with_values
from syncl_core.convert import convert
from syncl_core.data.clips import ClipDataset
from syncl_core.errors import InputError
from syncl_core.frames import make_frame
from syncl_core.models.backbones.build import build_backbone
from syncl_core.models.box_code import code_center, code_size
from syncl_core.tracking.base import assigned
from syncl_core.tracking.build import build_tracker
from syncl_core.train_config import TrainConfig, check_train
from syncl_core.training.ablations import ABLATIONS, ablated, format_ablations
from syncl_core.training.clip_model import ClipModel, prepare, set_training
from syncl_core.training.distributed import Workers
from syncl_core.training.event_file import EventFile, crc32c
from syncl_core.training.optimizer import learning_rate, make_optimizer, set_learning_rate
from syncl_core.training.progress import Progress, read_log
from syncl_core.training.run import num_iterations
from syncl_core.training.sources import training_source
from syncl_core.training.start import carry_on, spread


def test_the_learning_rate_is_a_cosine_behind_a_warm_up():
    config = TrainConfig()  # 2e-4, 500 iterations from a third, down to a thousandth
    for iteration in (0, 1, 250, 499, 500, 501, 5000, 9999):
        cosine = 2e-7 + 0.5 * (2e-4 - 2e-7) * (math.cos(math.pi * iteration / 10_000) + 1)
        warm = 1 - (1 - iteration / 500) * (1 - 1 / 3) if iteration < 500 else 1.0
        assert learning_rate(config, iteration, 10_000) == pytest.approx(cosine * warm, rel=1e-9)
    assert learning_rate(config, 10_000, 10_000) == pytest.approx(2e-7)
    assert learning_rate(TrainConfig(warmup_iterations=0), 0, 10) == pytest.approx(2e-4)


def test_the_backbone_learns_slower_and_frozen_weights_not_at_all():
    config = toy_config(backbone_lr_factor=0.1, weight_decay=0.02)
    tracker = build_tracker(config)
    optimizer = make_optimizer(tracker, config.train)
    set_learning_rate(optimizer, 0.5)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert rates == {id(p): 0.05 if name.startswith("img_backbone.") else 0.5 for name, p in tracker.named_parameters()}
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.02}
    prepare(tracker, dataclasses.replace(config.train, freeze_backbone=True))
    trained = sum(len(group["params"]) for group in make_optimizer(tracker, config.train).param_groups)
    assert trained == sum(not name.startswith("img_backbone.") for name, _ in tracker.named_parameters())


def test_recomputed_activations_change_no_gradient():
    config = toy_config()
    images = torch.rand(3, 3, 32, 64, generator=torch.Generator().manual_seed(0)) * 255
    gradients = []
    for recompute in (False, True):
        tracker = build_tracker(config)
        names = list(tracker.state_dict())
        prepare(tracker, dataclasses.replace(config.train, checkpoint_activations=recompute))
        assert list(tracker.state_dict()) == names
        fine, coarse = tracker.img_backbone(images)
        (fine.square().sum() + coarse.square().sum()).backward()
        gradients.append([p.grad for p in tracker.img_backbone.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x.numel()) or x, lambda x: x):
        tracker.img_backbone(images)
    recomputed = sum(saved)
    saved.clear()
    with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x.numel()) or x, lambda x: x):
        build_tracker(config).img_backbone(images)
    assert recomputed < 0.5 * sum(saved)


@pytest.mark.parametrize(
    "train, clips, processes, expected",
    [
        (dict(iterations=7), 100, 8, 7),
        (dict(epochs=12), 28130, 8, 42195),
        (dict(epochs=2, batch_size=4), 100, 2, 25),
        (dict(epochs=1, batch_size=4), 2, 2, 1),
    ],
)
def test_number_of_iterations(train, clips, processes, expected):
    config = dataclasses.replace(SynclConfig(), train=TrainConfig(**train))
    assert num_iterations(config, clips, processes) == expected


def test_crc32c_is_castagnoli():
    assert crc32c(b"123456789") == 0xE3069283  # the check value of RFC 3720's polynomial
    assert crc32c(bytes(32)) == 0x8A9136AA and crc32c(bytes(range(32))) == 0x46DD794E  # RFC 3720, B.4


def _slow_crc(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        for bit in range(8):
            low = (crc ^ byte >> bit) & 1
            crc = crc >> 1 ^ (0x82F63B78 if low else 0)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17 & 0xFFFFFFFF) + 0xA282EAD8) & 0xFFFFFFFF


def _records(data: bytes) -> list[bytes]:
    records = []
    while data:
        length, check = struct.unpack("<QI", data[:12])
        body, body_check = data[12 : 12 + length], struct.unpack("<I", data[12 + length : 16 + length])[0]
        assert check == _slow_crc(data[:8]) and body_check == _slow_crc(body)
        records.append(body)
        data = data[16 + length :]
    return records


def _fields(message: bytes) -> list[tuple[int, object]]:
    """Protobuf's wire format, as far as events use it."""

    def varint(at: int) -> tuple[int, int]:
        value = shift = 0
        while True:
            byte = message[at]
            value |= (byte & 127) << shift
            at, shift = at + 1, shift + 7
            if byte < 128:
                return value, at

    found, at = [], 0
    while at < len(message):
        key, at = varint(at)
        if key & 7 == 0:
            value, at = varint(at)
        elif key & 7 == 2:
            length, at = varint(at)
            value, at = message[at : at + length], at + length
        else:
            size, form = {1: (8, "<d"), 5: (4, "<f")}[key & 7]
            value, at = struct.unpack(form, message[at : at + size])[0], at + size
        found.append((key >> 3, value))
    return found


def test_event_files_hold_the_scalars(tmp_path):
    events = EventFile(tmp_path, purge_step=300)
    events.add(301, {"loss": 0.25, "losses/box": -3.5})
    events.add(70_000, {"loss": math.inf})
    events.close()
    (path,) = tmp_path.glob("events.out.tfevents.*")
    version, purge, first, second = (dict(_fields(record)) for record in _records(path.read_bytes()))
    assert version[3] == b"brain.Event:2" and purge[2] == 300 and dict(_fields(purge[7])) == {1: 1}
    assert first[2] == 301 and second[2] == 70_000 and first[1] > 1.6e9
    values = [dict(_fields(value)) for _, value in _fields(first[5])]
    assert values == [{1: b"loss", 2: 0.25}, {1: b"losses/box", 2: -3.5}]
    assert dict(_fields(dict(_fields(second[5]))[1]))[2] == math.inf


def test_where_nobody_sees_a_bar_a_line_now_and_then_says_how_far_it_is(tmp_path, monkeypatch, capsys):
    progress = Progress(tmp_path, 2, 5)  # standard error is a file here
    progress.step(0.1, 1.0, {"loss": 0.25})
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("syncl_core.training.progress.SAY_EVERY", 0.0)
    progress.step(0.1, 1.0, None)
    progress.close()
    said = f"iteration 4 of 5, loss 0.25, 00:00 left; more in {tmp_path / 'log.jsonl'}"
    assert capsys.readouterr().err.splitlines() == [said]


def test_a_resumed_log_has_no_row_twice(tmp_path):
    first = Progress(tmp_path, 0, 5)
    for iteration in (1, 2, 3, 4):
        first.record(iteration, {"loss": float(iteration), "unmeasured": math.nan})
    first.close()
    with (tmp_path / "log.jsonl").open("a") as log:
        log.write('{"iteration": 5, "lo')  # killed while writing
    second = Progress(tmp_path, 2, 5)
    second.record(3, {"loss": 30.0})
    second.close()
    assert read_log(tmp_path) == [{"iteration": i, "loss": x} for i, x in ((1, 1.0), (2, 2.0), (3, 30.0))]


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("clip_length", 0, "train.clip_length: must be positive, got 0"),
        ("learning_rate", math.nan, "train.learning_rate: must be positive, got nan"),
        ("workers", -1, "train.workers: must be zero or more, got -1"),
        ("grid_mask", 1.5, "train.grid_mask: must be within 0 and 1, got 1.5"),
        ("precision", "fp16", "train.precision: expected auto, bf16 or fp32, got 'fp16'"),
        ("scene_start", "skip", "train.scene_start: expected repeat or move, got 'skip'"),
        ("start_with", "backbone", "train.start_with: expected all or encoder, got 'backbone'"),
        ("engine", "horovod", "train.engine: expected ddp or fsdp, got 'horovod'"),
        ("batch_norm", "yes", "train.batch_norm: expected frozen, fixed or trained, got 'yes'"),
        ("frozen_stages", 5, "train.frozen_stages: must be within 0 and 4, got 5"),
        ("frozen_stages", 1, "train.frozen_stages: only a ResNet has them, got model.backbone small"),
        ("resize", (1.2, 0.9), "train.resize: expected two scales"),
        ("resize", (1.0,), "train.resize: expected two scales"),
    ],
)
def test_impossible_values_are_named(key, value, message):
    config = dataclasses.replace(SynclConfig(), train=dataclasses.replace(TrainConfig(), **{key: value}))
    with pytest.raises(InputError, match=message):
        check_config(config)


def test_values_go_over_a_configuration():
    config = with_values(toy_config(), {"train": {"epochs": 6}, "syncl": {"filter": {"candidates": 7}}})
    assert config.train.epochs == 6 and config.syncl.filter.candidates == 7
    assert config.model == toy_config().model and config.train.clip_length == 3
    with pytest.raises(InputError, match="^train.epoch: unknown key"):
        with_values(toy_config(), {"train": {"epoch": 6}})


@pytest.mark.parametrize("name", ABLATIONS)
def test_every_row_of_the_tables_is_a_valid_configuration(name):
    config = ablated(toy_config(), name)
    assert (config.model == toy_config().model) == (name not in [f"table8/{row}" for row in "23456"])
    assert name in format_ablations()


def test_rows_of_the_trainers_tables():
    names = ("table7/2", "7/3", "table7/4")
    assert [ablated(toy_config(), name).train.clip_length for name in names] == [2, 3, 4]
    rows = {int(name[-1]): ablated(toy_config(), name) for name in ABLATIONS if name.startswith("table8/")}
    assert sorted(rows) == [1, 2, 3, 4, 5, 6] and all(config.train.epochs == 24 for config in rows.values())
    assert [row for row, config in rows.items() if config.syncl.enabled] == [3, 6]
    assert [row for row, config in rows.items() if config.model.track_class_head] == [2, 3, 5, 6]
    assert [row for row, config in rows.items() if config.model.detector == "stream_petr"] == [4, 5, 6]
    with pytest.raises(InputError, match="^--ablation table9: unknown; known: table4a/1"):
        ablated(toy_config(), "table9")


def test_a_spread_start_puts_boxes_at_their_queries():
    """Every box is a resting car where its query is, and queries differ; as published neither is so."""
    config = toy_config()
    frame = make_frame(ToySource().frame_set("toy-0", 0), config.image)
    tracker = build_tracker(config)
    for started in (False, True):
        with torch.inference_mode():
            head = tracker.observe(tracker.init_state(), frame).head
        references = tracker.reference_points.weight.detach()
        low, high = torch.tensor(config.model.pc_range).view(2, 3)
        where = low + references * (high - low)
        close = (code_center(head.box[-1, 0, :16]) - where).abs().max() < 0.01
        car = torch.allclose(code_size(head.box[-1, 0, :16]), torch.tensor([4.6, 1.9, 1.7]), atol=1e-4)
        alike = (head.features[-1, 0, :16] - head.features[-1, 0, :1]).abs().mean() < 0.3
        assert (bool(close), car, bool(alike)) == ((True, True, False) if started else (False, False, True))
        spread(tracker)


def test_a_tracker_carries_on_as_its_detector(tmp_path):
    """The detector's boxes, in the ordinary decoder with tracks beside and in the parallel one; as published neither.

    With one layer: later self-attentions look at tracks, and the parallel decoder has none.
    """
    config = with_values(toy_config(), {"model": {"num_layers": 1, "dropout": 0.1}})
    detector = build_tracker(with_values(config, {"model": {"framework": "none"}}), seed=3).eval()
    attention = detector.pts_bbox_head.transformer["decoder"].layers[0].attentions[0]["attn"]
    torch.nn.init.normal_(attention.in_proj_bias)  # or it would have nothing to say of queries without content
    save_checkpoint(tmp_path / "detector.safetensors", detector)
    frames = [make_frame(ToySource().frame_set("toy-0", i), config.image) for i in range(2)]
    tracker, close = build_tracker(config, seed=4), []
    for carried in (False, True):
        loaded, _ = start_from(tmp_path / "detector.safetensors", tracker)
        if carried:
            carry_on(tracker.train(), loaded)  # as a training has it: dropout must not count
        tracker.eval()
        with torch.inference_mode():
            expected = detector.observe(detector.init_state(), frames[1]).head.box[-1]
            first = tracker.observe(tracker.init_state(), frames[0])
            state = tracker.commit(first, assigned(torch.where(first.track_id[0] < 0, torch.arange(24), -1)[None]))
            seen = tracker.observe(state, frames[1], parallel=True)
        close += [(part.box[-1, :, :16] - expected).abs().max() < 1e-3 for part in (seen.head, seen.parallel)]
    assert seen.valid[0, 16:].any() and close == [False, False, True, True]
    before = {name: value.clone() for name, value in tracker.state_dict().items()}
    for known in (before, {name for name in before if not name.startswith("pts_bbox_head.transformer.")}, ()):
        carry_on(tracker, known)
        assert all(torch.equal(value, before[name]) for name, value in tracker.state_dict().items())


def test_a_spread_start_tells_stream_petrs_queries_apart():
    """They have no content of their own: what the decoder makes of them differs by their positions only."""
    stream = {"memory_length": 16, "pushed": 8, "propagated": 8}
    model = {"framework": "mutr3d", "detector": "stream_petr", "depth_bins": 32, "stream": stream}
    config = with_values(toy_config(), {"model": model})
    tracker, frame = build_tracker(config), make_frame(ToySource().frame_set("toy-0", 0), config.image)
    apart = []
    for _ in range(2):
        with torch.inference_mode():
            features = tracker.observe(tracker.init_state(), frame).head.features[-1, 0, :16]
        apart.append((features - features.mean(dim=0)).abs().mean().item())
        spread(tracker)
    assert apart[1] > 2 * apart[0]


def test_a_spread_start_scatters_detr3ds_queries_over_the_ground():
    """As MUTR3D has them they begin near the vehicle; of uniform ones three quarters are outside the middle half."""
    model = {"framework": "mutr3d", "detector": "detr3d", "num_queries": 1000}
    tracker, outside = build_tracker(with_values(toy_config(), {"model": model})), []
    for _ in range(2):
        place = tracker.reference_points(tracker.query_embedding.weight.chunk(2, dim=1)[0]).sigmoid()
        outside.append(((place[:, :2] - 0.5).abs() > 0.25).any(dim=1).float().mean().item())
        spread(tracker)
    assert outside[0] < 0.3 and 0.65 < outside[1] < 0.85
    assert (place[:, 2] == 0.5).all()


@pytest.mark.parametrize(
    "key, value", [("freeze_backbone", True), ("checkpoint_activations", True), ("frozen_stages", 1)]
)
def test_trained_batch_norm_needs_a_backbone_that_learns_and_runs_once(key, value):
    """Activations that are worked out twice would move its statistics twice."""
    train = TrainConfig(batch_norm="trained", **{key: value})
    with pytest.raises(InputError, match=f"train.batch_norm: trained, but train.{key} is "):
        check_train(train)


def test_first_stages_and_the_weights_of_batch_norms_stay():
    backbone = build_backbone("resnet50")
    tracker = torch.nn.Module()
    tracker.img_backbone, tracker.ENCODER = backbone, ("img_backbone.",)
    prepare(tracker, TrainConfig(batch_norm="fixed", frozen_stages=2))
    learns = {name for name, parameter in backbone.named_parameters() if parameter.requires_grad}
    norms = {name for name in dict(backbone.named_parameters()) if ".bn" in name or "downsample.1" in name}
    assert learns == {name for name in dict(backbone.named_parameters()) if name[:6] in ("layer3", "layer4")} - norms
    assert len(norms) == 2 * 52 and len(learns) == 3 * (6 + 3) + 2  # convolutions and shortcuts of two stages


@pytest.mark.parametrize(
    "norm, frozen, running", [("frozen", False, False), ("fixed", False, False), ("trained", False, True)]
)
def test_batch_norm_learns_statistics_only_if_told(norm, frozen, running):
    config = toy_config(batch_norm=norm, freeze_backbone=frozen)
    model = ClipModel(build_tracker(config), torch.nn.Identity())
    set_training(model, config.train)
    modes = {m.training for m in model.tracker.img_backbone.modules() if isinstance(m, torch.nn.BatchNorm2d)}
    assert modes == {running} and model.tracker.training and model.tracker.pts_bbox_head.training


def test_the_world_is_as_long_as_the_run_and_as_high_as_its_images():
    config = dataclasses.replace(toy_config(iterations=50, batch_size=4), rig=SynclConfig().rig)
    config = with_values(config, {"image": {"height": 64, "width": 160}, "train": {"resize": [0.8, 1.2]}})
    source = training_source("world", "", "train", config, Workers(size=2))
    assert len(source.scene_names) == 10  # 400 clips, 40 key frames a scene
    assert (source.image_width, source.image_height) == (160, 80)
    config = with_values(config, {"train": {"resize": [1.0, 1.2]}})
    assert training_source("world", "", "train", config, Workers()).image_height == 64
    config = with_values(config, {"train": {"first_scene": 350}})
    later = training_source("world", "", "train", config, Workers(size=2)).scene_names
    assert (later[0], later[-1]) == ("world-train-000350", "world-train-000359")
    config = with_values(config, {"train": {"scenes": 3}})
    few = training_source("world", "", "train", config, Workers(size=2)).scene_names
    assert few == ("world-train-000350", "world-train-000351", "world-train-000352")
    config = with_values(config, {"train": {"first_scene": 18}})
    assert training_source("world", "", "val", config, Workers()).scene_names == ("world-val-18", "world-val-19")
    clip = ClipDataset(training_source("world", "", "train", config, Workers()), config)[0]
    assert clip.names[0].startswith("world-train-") and clip.frames[0].images.shape == (1, 6, 3, 64, 160)
    assert clip.targets[0].valid.any()


def test_start_names_what_does_not_fit(tmp_path):
    path = tmp_path / "start.safetensors"
    save_checkpoint(path, build_tracker(toy_config()))
    assert start_from(path, build_tracker(toy_config()))[1] == []
    other = with_values(toy_config(), {"model": {"ffn_dim": 65}})
    with pytest.raises(InputError, match=rf"^{path}: \S+ has shape \[64\], the network needs \[65\]$"):
        start_from(path, build_tracker(other))
    shorter = with_values(toy_config(), {"model": {"pc_range": [-40, -40, -5, 40, 40, 3]}})
    with pytest.raises(InputError, match=rf"^{path}: model.pc_range: the checkpoint has "):
        start_from(path, build_tracker(shorter))


@pytest.mark.parametrize("changes", [{"num_heads": 1}, {"backbone": "resnet50"}])
def test_weights_of_a_network_that_works_out_something_else_start_nothing(changes, tmp_path):
    """Every tensor has its place, and none of them means the same."""
    path, config = tmp_path / "start.safetensors", with_values(toy_config(), {"model": {"backbone": "resnet50_caffe"}})
    save_checkpoint(path, build_tracker(config))
    (key,) = changes
    with pytest.raises(InputError, match=rf"^{path}: model.{key}: the checkpoint has "):
        start_from(path, build_tracker(with_values(config, {"model": changes})))


@pytest.mark.parametrize("framework", ["pf_track", "mutr3d"])
def test_a_class_head_for_tracks_starts_as_that_of_object_queries(framework, tmp_path):
    detector = {"pf_track": "petr", "mutr3d": "detr3d"}[framework]
    config = with_values(toy_config(), {"model": {"framework": framework, "detector": detector}})
    path, plain = tmp_path / "start.safetensors", build_tracker(config, seed=1)
    save_checkpoint(path, plain)
    tracker = build_tracker(with_values(config, {"model": {"track_class_head": True}}), seed=2)
    assert start_from(path, tracker)[1] == []
    weights, own = plain.state_dict(), tracker.state_dict()
    for name in own.keys() - weights.keys():
        twin = name.replace("track_cls_branches", "cls_branches").replace("known_track_cls", "track_cls")
        assert torch.equal(own[name], weights[twin]), name


def test_what_stays_untrained_is_named_as_finely_as_it_must(tmp_path):
    path, config = tmp_path / "start.safetensors", toy_config()
    save_checkpoint(path, build_tracker(with_values(config, {"model": {"num_layers": 1}})))
    deeper = build_tracker(with_values(config, {"model": {"num_layers": 2}}))
    _, (line,) = start_from(path, deeper)
    assert line.startswith(f"{path}: untrained: pts_bbox_head.") and "img_backbone" not in line


@pytest.mark.parametrize("framework", ["pf_track", "mutr3d"])
def test_weights_that_say_no_classes_start_a_network_of_others(framework, tmp_path):
    """Whatever depends on the classes is a class head; an encoder's weights hold none."""
    detector = {"pf_track": "petr", "mutr3d": "detr3d"}[framework]
    values = {"model": {"framework": framework, "detector": detector, "track_class_head": True}}
    config = with_values(toy_config(), values)
    path, weights = tmp_path / "start.safetensors", build_tracker(config, seed=1)
    save_checkpoint(path, weights)
    config = with_values(config, {"classes": ["bus"]}, {"num_tracking_classes": 1})
    with pytest.raises(InputError, match=rf"^{path}: classes: the checkpoint has "):
        start_from(path, build_tracker(config, seed=2))
    other = build_tracker(with_values(config, {"train": {"start_with": "encoder"}}), seed=2)
    loaded, _ = start_from(path, other)
    ours, theirs = other.state_dict(), weights.state_dict()
    assert loaded and all(torch.equal(ours[name], theirs[name]) for name in loaded)
    changed = [name for name in ours if ours[name].shape != theirs[name].shape]
    assert changed and all("cls_branches" in name or "track_cls" in name for name in changed)


def test_public_safetensors_start_a_network(tmp_path):
    path, tracker = tmp_path / "backbone.safetensors", build_tracker(toy_config(), seed=1)
    names = {k: v.clone() for k, v in tracker.state_dict().items() if k.startswith("img_backbone.")}
    save_file(names, path, metadata={"format": "pt"})
    started = build_tracker(toy_config(), seed=2)
    loaded, (line,) = start_from(path, started)
    assert loaded == names.keys() and "img_backbone" not in line
    assert all(torch.equal(started.state_dict()[name], value) for name, value in names.items())


def test_a_backbone_starts_any_head(tmp_path):
    """Heads differ in what a backbone knows nothing of."""
    path, config = tmp_path / "backbone.safetensors", toy_config()
    weights = build_tracker(config).state_dict()
    backbone = {name: value for name, value in weights.items() if name.startswith("img_backbone.")}
    save_converted(path, convert(backbone, config), config, {})
    other = {"model": {"num_heads": 1, "pc_range": [-40, -40, -5, 40, 40, 3]}}
    loaded, _ = start_from(path, build_tracker(with_values(config, other)))
    assert loaded == backbone.keys()
    with pytest.raises(InputError, match=rf"^{path}: image.mean: the checkpoint has "):
        start_from(path, build_tracker(with_values(config, {"image": {"mean": [0, 0, 0]}})))
