"""`syncl train` as the user has it: files, switches, and one line for every mistake. Official scores of known boxes."""

import contextlib
import json
import math

import numpy as np
import pytest
import torch
from nuscenes_fixture import SCENES, real_root, write_tiny_nuscenes
from train_fixture import ToySource, toy_config

from syncl_core.checkpoint import load_checkpoint
from syncl_core.classes import DETECTION_CLASSES
from syncl_core.cli import main
from syncl_core.config import SynclConfig
from syncl_core.frames import make_frame
from syncl_core.io.folder_lock import locked
from syncl_core.tracking.build import build_tracker
from syncl_core.training.progress import read_log

pytest.importorskip("nuscenes", reason="nuscenes-devkit is not installed")
pytest.importorskip("motmetrics", reason="motmetrics is not installed")
from syncl_core.data.nuscenes import NuScenesScenes  # noqa: E402
from syncl_core.evaluation.detection import attribute, evaluate_detection  # noqa: E402
from syncl_core.training.evaluate import detections  # noqa: E402

_CONFIG = """
name: tiny
image: {height: 32, width: 64}
model: {embed_dim: 32, num_queries: 16, num_layers: 2, num_heads: 2, ffn_dim: 64, reasoning_layers: 1, depth_bins: 8}
track: {slots: 8}
train: {clip_length: 2, iterations: 2, workers: 1, log_every: 1, evaluate_every: 2, batch_norm: trained}
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_tiny_nuscenes(tmp_path_factory.mktemp("data"), sweeps_between=0)


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(_CONFIG)
    return path


def test_two_runs_do_not_share_a_folder(root, config, tmp_path, capsys):
    data = ["--data", str(root), "--split", "tiny_val", "--device", "cpu", "--set", "train.evaluate_every=0"]
    with locked(tmp_path / "run"):
        assert main(["train", str(config), *data, "-o", str(tmp_path / "run")]) == 2
    assert "run: another syncl process is at work here" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]


def test_a_run_that_ended_meanwhile_is_not_buried(root, config, tmp_path, capsys, monkeypatch):
    @contextlib.contextmanager
    def locked_late(folder):
        folder.mkdir()
        (folder / "last.pt").write_text("of the other one")
        yield

    monkeypatch.setattr("syncl_core.io.folder_lock.locked", locked_late)
    data = ["--data", str(root), "--split", "tiny_val", "--device", "cpu", "--set", "train.evaluate_every=0"]
    assert main(["train", str(config), *data, "-o", str(tmp_path / "run")]) == 2
    assert "run: holds a run already" in capsys.readouterr().err
    assert (tmp_path / "run" / "last.pt").read_text() == "of the other one"


def test_a_run_leaves_weights_log_and_scores(root, config, tmp_path, capsys):
    out = tmp_path / "run"
    data = ["--data", str(root), "--split", "tiny_val", "--eval-split", "tiny_val", "--device", "cpu", "-o", str(out)]
    assert main(["train", str(config), *data, "--ablation", "table6/4", "--set", "train.seed=3"]) == 0
    said = capsys.readouterr()
    assert f"trained weights -> {out / 'last.safetensors'}" in said.out
    assert "note: 1 of the 1 scenes to evaluate on are trained on" in said.err
    for name in ("last.safetensors", "best.safetensors"):
        tracker = load_checkpoint(out / name)
        assert tracker.config.syncl.enabled and tracker.config.syncl.filter.candidates == 4
        assert tracker.config.train.seed == 3 and not [n for n in tracker.state_dict() if "contrast" in n]
    scores = json.loads((out / "evaluations" / "iteration-0000002" / "scores.json").read_text())
    assert scores["score"] == scores["amota"] and {"nds", "map", "mATE", "ids", "ap/car"} <= scores.keys()
    assert main(["train", str(config), *data]) == 2
    assert "holds a run already; give --resume" in capsys.readouterr().err
    assert main(["train", str(config), *data, "--resume"]) == 2
    assert f"syncl: error: {out / 'last.pt'}: " in capsys.readouterr().err
    again = ["--ablation", "table6/4", "--set", "train.seed=3", "--resume", "--set", "train.workers=0"]
    again += ["--init", "gone.safetensors"]  # as it was started; the snapshot has it
    assert main(["train", str(config), *data, *again]) == 0


def test_a_tracker_of_cars_is_judged_by_cars(root, config, tmp_path):
    """Settings that fit only together are checked together."""
    data = ["--data", str(root), "--split", "tiny_val", "--eval-split", "tiny_val", "--device", "cpu"]
    few = ["--set", "classes=[car]", "--set", "num_tracking_classes=1", "--set", "train.iterations=1"]
    assert main(["train", str(config), *data, *few, "-o", str(tmp_path / "run")]) == 0
    folder = tmp_path / "run" / "evaluations" / "iteration-0000001"
    scores = json.loads((folder / "scores.json").read_text())
    assert scores["amota"] == scores["amota/car"] and "pedestrian" not in (folder / "metrics.txt").read_text()


@pytest.mark.parametrize("name, split, frames", [("two_frames", "two_frames", 2), ("mini_val", "mini_val", 40)])
def test_real_tables_and_images_train_and_are_scored(name, split, frames, config, tmp_path):
    """With SynCL, by the ordinary command. Of mini_val one scene counts, two of whose key frames have images."""
    out = tmp_path / "run"
    data = ["--data", str(real_root(f"nuscenes_{name}")), "--split", split, "--eval-split", split, "--device", "cpu"]
    assert main(["train", str(config), *data, "--set", "syncl.enabled=true", "-o", str(out)]) == 0
    rows = [row for row in read_log(out) if "loss" in row]
    assert len(rows) == 2 and all(math.isfinite(row["loss"]) and row["stats/objects"] > 5 for row in rows)
    assert (
        (out / "evaluations/iteration-0000002/metrics.txt").read_text().startswith(f"1 scene(s), {frames} key frames")
    )


def test_a_detector_is_scored_by_nds(root, config, tmp_path):
    out = tmp_path / "detector"
    data = ["--data", str(root), "--split", "tiny_val", "--eval-split", "tiny_val", "--device", "cpu", "-o", str(out)]
    assert main(["train", str(config), *data, "--set", "model.framework=none", "--set", "train.clip_length=1"]) == 0
    scores = json.loads((out / "evaluations" / "iteration-0000002" / "scores.json").read_text())
    assert scores["score"] == scores["nds"] and "amota" not in scores


def test_runs_share_the_maps_of_a_frozen_encoder(root, config, tmp_path, capsys):
    data = ["--data", str(root), "--split", "tiny_val", "--device", "cpu", "--maps", str(tmp_path / "maps")]
    network = "{framework: mutr3d, detector: detr3d, backbone: lean, future_steps: 1}"
    frozen = "{freeze_encoder: true, batch_norm: frozen, resize: [1, 1], grid_mask: 0, evaluate_every: 0}"
    start = ["--set", f"model={network}", "--set", f"train={frozen}", "--set", "train.iterations=2"]
    made = []
    for name, seed in (("one", 0), ("two", 5)):
        init = ["--init", str(tmp_path / "one" / "last.safetensors")] if made else []
        own = ["--set", f"train.seed={seed}", "-o", str(tmp_path / name)]
        assert main(["train", str(config), *data, *start, *init, *own]) == 0
        assert not list((tmp_path / name).glob("encoded-*"))
        assert ("without --init the parts that train.freeze_... freezes" in capsys.readouterr().err) == (not init)
        made.append(sorted(tmp_path.glob("maps/encoded-*")))
    assert len(made[0]) == 2 and made[1] == made[0]  # the maps and which of them are there


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["{config}", "-o", "{out}", "--resume"], "{out}/last.pt: no such snapshot; nothing to resume"),
        (["{config}"], "syncl train needs CONFIG and -o OUT; see syncl train --help"),
        (
            ["{config}", "-o", "{out}", "--set", "train.epoch=3"],
            "train.epoch: unknown key; did you mean epochs?",
        ),
        (["{config}", "-o", "{out}", "--set", "train.epochs"], "--set train.epochs: expected KEY=VALUE"),
        (["{config}", "-o", "{out}", "--set", "name=[1"], "--set name=[1: the value is not valid YAML"),
        (["{config}", "-o", "{out}", "--ablation", "table9/1"], "--ablation table9/1: unknown; known: table4a/1"),
        (
            ["{config}", "-o", "{out}", "--ablation", "table4a/5", "--set", "model.framework=none"],
            "{config}: model.framework: none has no tracks, which syncl.enabled needs; give a tracker",
        ),
        (["{config}", "-o", "{out}", "--maps", "x"], "--maps: without train.freeze_encoder no feature maps are kept"),
        (["{config}", "-o", "{out}", "--device", "warp"], "device 'warp' cannot be used: "),
        (["{config}", "-o", "{out}", "--data", "/nowhere"], "/nowhere: no such folder; expected a nuScenes root"),
        (["{config}", "-o", "{out}", "--data", "{root}", "--split", "x"], "{root}: split 'x' is unknown"),
        (
            ["{config}", "-o", "{out}", "--data", "{root}", "--split", "tiny_val", "--init", "/no.pth"]
            + ["--set", "train.evaluate_every=0"],
            "--init /no.pth: no such file",
        ),
        (["{config}", "-o", "{out}", "--init", "{config}"], "{config}: "),
        (
            ["{config}", "-o", "{out}", "--eval-data", "{root}", "--set", "train.evaluate_every=0"],
            "--eval-data: nothing is evaluated without --set train.evaluate_every=N",
        ),
        (
            ["{config}", "-o", "{out}", "--data", "{root}", "--split", "tiny_val", "--set", "image.height=48"]
            + ["--set", "train.evaluate_every=0"],
            "{root}: tiny-0002: CAM_FRONT: image of 64x36 pixels scaled to width 64 has 36 rows, the network needs 48",
        ),
        (
            ["{config}", "-o", "{out}", "--data", "{root}", "--split", "tiny_val", "--set", "num_tracking_classes=2"]
            + ["--set", "classes=[car, tram]", "--set", "train.evaluate_every=0"],
            "{root}: classes: nuScenes has no tram; its classes are car, truck",
        ),
        (
            ["{config}", "-o", "{out}", "--data", "{root}", "--split", "tiny_val", "--set", "num_tracking_classes=8"],
            "classes: construction_vehicle cannot stand in tracks.json",
        ),
        (["{config}", "-o", "{out}", "--set", "image.height=48"], "world: CAM_FRONT: image of 64x36 pixels scaled to"),
        (["{config}", "-o", "{out}", "--set", "track.max_output=501"], "track.max_output: 501 boxes cannot stand in"),
        (["{config}", "-o", "{out}", "--version", "v1.0-mini"], "--version: the world has no versions"),
    ],
)
def test_mistakes_are_one_line(root, config, tmp_path, capsys, arguments, message):
    known = {"config": config, "out": tmp_path / "run", "root": root}
    assert main(["train", *(a.format(**known) for a in arguments)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"syncl: error: {message.format(**known)}") and error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_ablations_are_listed(capsys):
    assert main(["train", "--list-ablations"]) == 0
    assert "table4a/5" in capsys.readouterr().out


def test_true_boxes_are_perfect_detections(root):
    """The devkit's own figures: nothing is lost on the way into its format but the attributes, which are guessed."""
    data = NuScenesScenes(root)
    samples = [sample for scene in SCENES for sample in data.samples(scene)]
    truth = {sample.token: data.ground_truth(sample.token, DETECTION_CLASSES) for sample in samples}
    metrics = evaluate_detection(root, "", "", truth)
    assert metrics.class_ap == pytest.approx({"car": 1.0, "pedestrian": 1.0, "barrier": 1.0}, abs=1e-9)
    assert metrics.present_ap == pytest.approx(1.0) and metrics.mean_ap == pytest.approx(0.3)
    assert (metrics.scenes, metrics.num_samples) == (SCENES, 8)
    # Of nine classes with a speed, two are there and have none wrong; the others count as 1.
    assert metrics.errors["mAVE"] == pytest.approx(6 / 8) and metrics.errors["mATE"] == pytest.approx(7 / 10)
    nothing = evaluate_detection(root, "", "tiny_val", {})
    assert (nothing.nds, nothing.present_ap, nothing.num_samples) == (0.0, 0.0, 4)


def test_attributes_follow_from_class_and_speed():
    assert [attribute("car", v) for v in (0.1, 0.3)] == ["vehicle.parked", "vehicle.moving"]
    assert [attribute("bus", v) for v in (0.1, 0.3)] == ["vehicle.stopped", "vehicle.moving"]
    assert [attribute("bicycle", v) for v in (0.1, 0.3)] == ["cycle.without_rider", "cycle.with_rider"]
    assert attribute("pedestrian", 0.0) == "pedestrian.standing" and attribute("barrier", 9.0) == ""


@torch.inference_mode()
def test_detections_are_the_best_classes_of_all_rows():
    config, source = toy_config(), ToySource()
    tracker = build_tracker(config)
    tracker.STReasoner.track_cls[-1].bias += 4.0  # rows become tracks
    state = tracker.init_state()
    for index in range(2):
        observation = tracker.observe(state, make_frame(source.frame_set("toy-0", index), config.image))
        found = detections(observation, config, count=30)
        state = tracker.commit(observation, tracker.judge(observation))
    scores, boxes = observation.refined.logits[0].sigmoid(), observation.refined.box[0]
    slow = sorted(
        (
            (float(scores[row, label]), row, label)
            for row in range(24)
            for label in range(10)
            if observation.valid[0, row]
        ),
        reverse=True,
    )[:30]
    assert observation.valid[0].sum() > 16 and any(row >= 16 for _, row, _ in slow)
    assert found.score[0].tolist() == pytest.approx([score for score, _, _ in slow])
    for place, (_, row, label) in enumerate(slow):
        same = [i for i in range(30) if abs(found.score[0, i] - slow[place][0]) < 1e-7]
        assert any(found.label[0, i] == label and torch.equal(found.center[0, i, :2], boxes[row, :2]) for i in same)
    assert len(set(found.track_id[0].tolist())) == 30 and found.track_id.max() < 0
    assert np.isfinite(found.yaw.numpy()).all() and not math.isnan(found.velocity.sum())
    assert SynclConfig().classes == DETECTION_CLASSES
