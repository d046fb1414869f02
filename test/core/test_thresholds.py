"""Thresholds side by side are thresholds one by one, the best one is chosen, and `syncl tune` writes it down."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from nuscenes_fixture import SCENES, write_tiny_nuscenes
from test_cli import CONFIG as TINY
from tiny_mutr3d import tiny_mutr3d
from tiny_petrv2 import tiny_petrv2
from tiny_stream import tiny_stream
from tiny_tracker import tiny_tracker

from syncl_core.checkpoint import save_checkpoint
from syncl_core.cli import main
from syncl_core.config import RigConfig, SynclConfig, load_config
from syncl_core.errors import InputError
from syncl_core.tracking.build import build_tracker
from syncl_core.training.distributed import Workers
from syncl_core.training.thresholds import at_threshold, best_threshold, format_scores, scores_by_threshold

pytest.importorskip("motmetrics", reason="motmetrics is not installed")
from syncl_core.data.nuscenes_clips import NuScenesClips  # noqa: E402
from syncl_core.training.evaluate import Evaluation  # noqa: E402

VALUES = (0.2, 0.4, 0.9)
TRACKERS = {
    "pf_track": tiny_tracker,
    "petrv2": tiny_petrv2,
    "mutr3d": tiny_mutr3d,
    "stream": lambda: tiny_stream("mutr3d"),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return write_tiny_nuscenes(tmp_path_factory.mktemp("data"), sweeps_between=0)


@pytest.mark.parametrize("kind", TRACKERS)
def test_side_by_side_is_one_by_one_but_looks_once(root, tmp_path, kind):
    tracker = TRACKERS[kind]().eval()
    rig = RigConfig(cameras=("CAM_FRONT", "CAM_FRONT_RIGHT", "CAM_FRONT_LEFT"))
    tracker.config = dataclasses.replace(tracker.config, rig=rig)
    clips = NuScenesClips(root, tracker.config)
    looks, encode = [], tracker.encode

    def counted(frame, *more):
        looks.append(frame.t_ns.item())
        return encode(frame, *more)

    tracker.encode = counted
    scenes = []
    together = Evaluation(clips, tmp_path / "together", Workers())
    scores = scores_by_threshold(together, tracker, VALUES, lambda: scenes.append(len(looks)))
    frames = [clips.num_key_frames(scene) for scene in SCENES]
    assert scenes == [sum(frames[: i + 1]) for i in range(len(frames))] and len(set(looks)) == len(looks)
    files = [(tmp_path / "together" / f"threshold-{value:g}" / "tracks.json").read_text() for value in VALUES]
    assert files[0] != files[-1], "thresholds must matter"
    for value, text in zip(VALUES, files, strict=True):
        alone = at_threshold(tracker, value)
        assert alone.config.track.score_threshold == value and tracker.config.track.score_threshold == 0.4
        expected = Evaluation(clips, tmp_path / f"alone-{value}", Workers())(alone, 7)
        assert (tmp_path / f"alone-{value}" / "iteration-0000007" / "tracks.json").read_text() == text
        assert json.dumps(scores[value]) == json.dumps(expected)  # as text: NaN equals NaN


def test_unusable_images_cost_their_key_frames_and_are_told(tmp_path, capsys):
    """As in training, where their clips are left out: a run must not end over one torn file."""
    root, tracker = write_tiny_nuscenes(tmp_path / "data", sweeps_between=0), tiny_mutr3d().eval()
    rig = RigConfig(cameras=("CAM_FRONT", "CAM_FRONT_RIGHT", "CAM_FRONT_LEFT"))
    tracker.config = dataclasses.replace(tracker.config, rig=rig)
    clips = NuScenesClips(root, tracker.config)
    Evaluation(clips, tmp_path / "whole", Workers())(tracker, 1)
    assert not capsys.readouterr().err
    samples = clips.data.samples(SCENES[0])
    stamps = [
        clips.data.frame_set(sample.token, ("CAM_FRONT",)).views[0].t_ns // 1000 for sample in (samples[1], samples[-1])
    ]
    torn, gone = (next(root.glob(f"samples/CAM_FRONT/*{stamp}*")) for stamp in stamps)
    torn.write_bytes(torn.read_bytes()[:-100])  # its header is whole
    gone.unlink()
    clips = NuScenesClips(root, tracker.config)
    Evaluation(clips, tmp_path / "torn", Workers())(tracker, 1)
    torn_note, outside_note = capsys.readouterr().err.splitlines()
    assert torn_note.startswith(f"note: {root}: {SCENES[0]}: a key frame counts as one without boxes: frame set at ")
    where = "outside their scene's longest run of frames with all images"
    assert outside_note == f"note: {root}: key frames {where}, which count as ones without boxes: 1"
    for name, without in (("whole", set()), ("torn", {1, len(samples) - 1})):
        tracks = json.loads((tmp_path / name / "iteration-0000001" / "tracks.json").read_text())["results"]
        assert [bool(tracks[sample.token]) for sample in samples] == [i not in without for i in range(len(samples))]


def test_other_thresholds_keep_their_ratio_and_weights_are_shared():
    tracker = tiny_mutr3d(filter_threshold=0.3, output_threshold=0.2, record_threshold=0.4)
    other = at_threshold(tracker, 0.1)
    track = other.config.track
    assert (track.score_threshold, track.filter_threshold, track.output_threshold) == (0.1, 0.075, 0.05)
    assert track.record_threshold == 0.1 and at_threshold(other, 0.4).config == tracker.config
    assert dataclasses.replace(track, **dataclasses.asdict(tracker.config.track)) == tracker.config.track
    assert all(a is b for a, b in zip(tracker.parameters(), other.parameters(), strict=True))
    high = at_threshold(tiny_mutr3d(filter_threshold=0.8), 1.0).config.track
    assert high.filter_threshold == 1.0  # not 2


def test_what_has_no_threshold_to_choose_is_refused():
    tracker = tiny_mutr3d()
    for value in (-0.1, 0.0, 1.5, float("nan")):
        with pytest.raises(InputError, match="track.score_threshold: expected a threshold above 0, at most 1, got"):
            at_threshold(tracker, value)
    with pytest.raises(InputError, match="track.score_threshold: is 0"):
        at_threshold(tiny_mutr3d(score_threshold=0.0), 0.3)
    config = SynclConfig()
    tracker.config = dataclasses.replace(config, model=dataclasses.replace(config.model, framework="none"))
    with pytest.raises(InputError, match="model.framework: none has no tracks"):
        at_threshold(tracker, 0.3)


def test_the_highest_amota_wins_and_of_equal_ones_the_lowest_threshold():
    names = ("amotp", "recall", "ids", "fp", "fn")
    scores = {
        value: dict.fromkeys(names, 1.0) | {"amota": amota} for value, amota in ((0.4, 0.3), (0.2, 0.3), (0.1, 0))
    }
    assert best_threshold(scores) == 0.2
    lines = format_scores(scores, SynclConfig()).splitlines()
    assert [line.split()[0] for line in lines] == ["threshold", "0.4", "0.2", "0.1"]
    assert [("*" in line, "now" in line) for line in lines[1:]] == [(False, True), (True, False), (False, False)]


def test_tune_writes_the_configuration_that_it_says(root, tmp_path, capsys):
    (tmp_path / "tiny.yaml").write_text(TINY)
    output = tmp_path / "new" / "tuned.yaml"
    command = ["tune", str(root), "-c", str(tmp_path / "tiny.yaml"), "--device", "cpu", "-o", str(output)]
    assert main([*command, "--thresholds", "0.3", "0.5", "0.3"]) == 0
    said, note = capsys.readouterr()
    assert "untrained, the figures mean nothing" in note
    assert [line.split()[0] for line in said.splitlines()[:-1]] == ["threshold", "0.3", "0.5"]
    starred = next(line for line in said.splitlines() if "*" in line)
    tuned, before = load_config(output), load_config(tmp_path / "tiny.yaml")
    assert f"{tuned.track.score_threshold:g}" == starred.split()[0] and said.splitlines()[-1].endswith(str(output))
    assert tuned == at_threshold(build_tracker(before), tuned.track.score_threshold).config
    assert main(command) == 2 and "exists already" in capsys.readouterr().err
    (tmp_path / "file").touch()
    nowhere = tmp_path / "file" / "tuned.yaml"
    assert main([*command[:-1], str(nowhere)]) == 2
    said, error = capsys.readouterr()
    assert not said and str(nowhere.parent) in error  # before the work, not after it
    (folder := tmp_path / "folder").mkdir()
    assert main([*command[:-1], str(folder), "--overwrite"]) == 2
    said, error = capsys.readouterr()
    assert not said and error == f"syncl: error: {folder}: is a folder; give the name of a file\n"
    weights = tmp_path / "tiny.safetensors"
    save_checkpoint(weights, build_tracker(before))
    again = ["tune", str(root), "--checkpoint", str(weights), "--device", "cpu", "-o", str(tmp_path / "again.yaml")]
    assert main([*again, "--thresholds", "0.3"]) == 0
    said, note = capsys.readouterr()
    assert said.splitlines()[-1].endswith(f"-c {again[-1]} --checkpoint {weights}") and "untrained" not in note
    assert main([*command, "--overwrite", "--thresholds", "2"]) == 2
    assert "track.score_threshold: expected a threshold above 0, at most 1, got 2" in capsys.readouterr().err
    assert load_config(output) == tuned
    assert not list(tmp_path.glob("syncl-tune*")) and torch.is_grad_enabled()
