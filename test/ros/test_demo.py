"""`make demo` after its set-up, on a small scene: everything it promises is there and fits together."""

import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("rclpy")

from nuscenes_fixture import SAMPLES_PER_SCENE, SCENES, write_tiny_nuscenes
from processes import ROOT

from syncl_core.io.bag_reader import BagReader


def run_demo(*arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "syncl_ros.demo", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, timeout=180)


def test_demo_on_a_nuscenes_root(tmp_path):
    root, output = write_tiny_nuscenes(tmp_path / "nuscenes"), tmp_path / "out"
    result = run_demo("--data", root, "--scene", SCENES[1], "-o", output)
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


@pytest.mark.parametrize(
    ("arguments", "culprit"),
    [
        (("--data", "nowhere"), "nowhere"),
        (("--data", "{root}", "--scene", "scene-9999"), "scene-9999"),
        (("--data", "{root}", "--checkpoint", "nothing.safetensors"), "nothing.safetensors"),
    ],
)
def test_demo_says_in_one_line_what_is_wrong(arguments, culprit, tmp_path):
    root = write_tiny_nuscenes(tmp_path / "nuscenes")
    result = run_demo(*(a.format(root=root) for a in arguments), "-o", tmp_path / "out")
    assert result.returncode == 2
    assert [culprit in line for line in result.stderr.splitlines() if "error" in line] == [True]
    assert not (tmp_path / "out" / "tracks.json").exists()
