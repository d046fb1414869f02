"""`make demo` after its set-up, on a small scene: everything it promises is there and fits together."""

import dataclasses
import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("rclpy")

import numpy as np
from nuscenes_fixture import REAL_GAPS_MS, SAMPLES_PER_SCENE, SCENES, write_tiny_nuscenes
from processes import ROOT

from syncl_core.classes import TRACKING_CLASSES
from syncl_core.config import SynclConfig
from syncl_core.data.nuscenes import NuScenesScenes
from syncl_core.io.bag_reader import BagReader
from syncl_core.io.key_frames import objects_at
from syncl_core.io.submission import read_submission
from syncl_core.io.track_bag import write_track_bag
from syncl_ros import demo


def run_demo(*arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "syncl_ros.demo", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, timeout=180)


def test_demo_on_a_nuscenes_root(tmp_path):
    root, output = write_tiny_nuscenes(tmp_path / "nuscenes"), tmp_path / "out"
    result = run_demo("--data", root, "--scene", SCENES[1], "--device", "cpu", "-o", output)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "AMOTA" in result.stdout and "weights of the synthetic world" in result.stdout
    for name in ("picture.png", "video.mp4", "metrics.txt"):
        assert str(output / name) in result.stdout and (output / name).stat().st_size > 100
    with BagReader(output / "tracks") as reader:
        assert reader.counts["/tracker/tracks"] == reader.counts["/tracker/markers"] == SAMPLES_PER_SCENE
        assert reader.counts["/ground_truth/objects"] == SAMPLES_PER_SCENE
        tracks = reader.object_sets("/tracker/tracks")
    submission = json.loads((output / "tracks.json").read_text())["results"]
    boxes = {box["tracking_id"] for boxes in submission.values() for box in boxes}
    assert len(submission) == SAMPLES_PER_SCENE and boxes == {i for objects in tracks for i in objects.ids}


def test_key_frames_beside_the_recorded_sets_have_boxes(tmp_path, capsys):
    """What the demo evaluates came over DDS, without velocities, and at the times of the node's sets."""
    data = NuScenesScenes(write_tiny_nuscenes(tmp_path / "nuscenes", sweeps_between=0, gaps_ms=REAL_GAPS_MS))
    samples = data.samples(SCENES[0])
    truth = [data.ground_truth(sample.token, TRACKING_CLASSES) for sample in samples]
    sets = [
        dataclasses.replace(objects_at(truth, t_ns, 10**9), scores=np.full(len(truth[0]), 0.7))
        for t_ns in range(samples[0].t_ns, samples[-1].t_ns + 100_000_000, 500_000_000)
    ]
    made = demo.Demo(data, SCENES[0], SynclConfig(), {}, "", tmp_path / "out")
    write_track_bag(made.result, sets)
    demo._evaluate(made)
    assert "5 of 9 key frames lie between processed sets" in capsys.readouterr().err
    found = read_submission(made.output / "tracks.json")
    for sample, objects in zip(samples, truth, strict=True):
        np.testing.assert_allclose(found[sample.token].centers, objects.centers, atol=0.25)


@pytest.mark.parametrize(
    ("arguments", "culprit"),
    [
        (("--data", "nowhere"), "nowhere"),
        (("--data", "{root}", "--scene", "scene-9999"), "scene-9999"),
        (("--data", "{root}", "--checkpoint", "nothing.safetensors"), "nothing.safetensors"),
        (("--data", "{root}", "--device", "abacus"), "device 'abacus' cannot be used"),
    ],
)
def test_demo_says_in_one_line_what_is_wrong(arguments, culprit, tmp_path):
    root = write_tiny_nuscenes(tmp_path / "nuscenes")
    result = run_demo(*(a.format(root=root) for a in arguments), "-o", tmp_path / "out")
    assert result.returncode == 2
    assert [culprit in line for line in result.stderr.splitlines() if "error" in line] == [True]
    assert not (tmp_path / "out" / "tracks.json").exists()
