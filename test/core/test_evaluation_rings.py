"""Rings: boxes and objects find each other as a slow reading of the rule says; counts by hand on the tiny data."""

import math
import random
from dataclasses import replace

import numpy as np
import pytest
from nuscenes_fixture import write_tiny_nuscenes

from syncl_core.classes import TRACKING_CLASSES
from syncl_core.cli import main
from syncl_core.io.submission import tracking_submission, write_submission
from syncl_core.types import ObjectSet

pytest.importorskip("nuscenes", reason="nuscenes-devkit is not installed")
from syncl_core.data.nuscenes import NuScenesScenes  # noqa: E402
from syncl_core.evaluation.rings import compare_boxes, format_rings, match_boxes, measure_rings  # noqa: E402


def random_objects(rng: random.Random, count: int) -> ObjectSet:
    return ObjectSet(
        t_ns=0,
        ids=tuple(map(str, range(count))),
        labels=tuple(rng.choice(("car", "bus")) for _ in range(count)),
        scores=np.array([rng.choice((0.2, 0.5, rng.random())) for _ in range(count)]),
        centers=np.array([[rng.uniform(0, 8), rng.uniform(0, 8), rng.uniform(-9, 9)] for _ in range(count)]).reshape(
            -1, 3
        ),
        sizes=np.ones((count, 3)),
        rotations=np.tile([1.0, 0.0, 0.0, 0.0], (count, 1)),
        velocities=np.zeros((count, 2)),
    )


def slow_match(boxes: ObjectSet, truth: ObjectSet) -> list[int]:
    free, match = set(range(len(truth))), [-1] * len(boxes)
    for row in sorted(range(len(boxes)), key=lambda i: (-boxes.scores[i], i)):
        near = []
        for k in free:
            apart = math.dist(boxes.centers[row][:2], truth.centers[k][:2])
            if boxes.labels[row] == truth.labels[k] and apart < 2.0:
                near.append((apart, k))
        if near:
            match[row] = min(near)[1]
            free.remove(match[row])
    return match


def test_matches_are_those_of_the_slow_rule():
    rng, numbers = random.Random(1), []
    for _ in range(200):
        boxes, truth = (random_objects(rng, rng.randrange(12)) for _ in range(2))
        match = match_boxes(boxes, truth).tolist()
        assert match == slow_match(boxes, truth)
        numbers.append(sum(k >= 0 for k in match))
    assert min(numbers) == 0 and max(numbers) > 5


def test_what_counts_in_a_frame():
    """Also frames without objects or without boxes. The vehicle is at (3, 4)."""
    rng, seen = random.Random(2), set()
    pose = np.eye(4)
    pose[:2, 3] = 3.0, 4.0
    for _ in range(200):
        boxes, truth = (random_objects(rng, rng.choice((0, 0, 3, 9))) for _ in range(2))
        truth = replace(truth, num_points=np.array([rng.choice((0, 5)) for _ in truth.ids], dtype=np.int64))
        found, right = compare_boxes(boxes, truth, pose)
        match = slow_match(boxes, truth)
        expected = [_row(truth, k, k in match) for k in range(len(truth)) if truth.num_points[k]]
        assert found == pytest.approx(np.array(expected).reshape(-1, 3))
        expected = [_row(boxes, i, k >= 0) for i, k in enumerate(match) if k < 0 or truth.num_points[k]]
        assert right == pytest.approx(np.array(expected).reshape(-1, 3))
        seen.add((len(boxes) > 0, len(truth) > 0))
    assert len(seen) == 4


def _row(objects: ObjectSet, row: int, has_counterpart: bool) -> list[float]:
    away = math.dist(objects.centers[row][:2], (3.0, 4.0))
    return [float(TRACKING_CLASSES.index(objects.labels[row])), away, float(has_counterpart)]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return NuScenesScenes(write_tiny_nuscenes(tmp_path_factory.mktemp("tiny"), sweeps_between=0))


def test_counts_by_hand(tiny, tmp_path, capsys):
    """Twice a car at 20.2, 19.3, 18.3 and 17.3 m and a walker at 11.2, 8.3, 5.7 and 4.0 m, each at a key frame."""
    submission = {}
    for index, sample in enumerate(s for scene in tiny.scene_names for s in tiny.samples(scene)):
        truth = tiny.ground_truth(sample.token, TRACKING_CLASSES)
        is_walker = np.array([label == "pedestrian" for label in truth.labels])
        # In the first scene the walker is 2.5 m off in the first frame and unknown in the second.
        moved = truth.centers + np.where(is_walker[:, None] & (index == 0), [0.0, -2.5, 0.0], 0.0)
        submission[sample.token] = replace(truth, centers=moved).select(~is_walker | (index != 1))
    path = tmp_path / "tracks.json"
    write_submission(path, tracking_submission(submission))
    rings = measure_rings(tiny.root, "", "", path)
    assert [(ring.low_m, ring.high_m) for ring in rings] == [(0, 10), (10, 20), (20, 30), (30, 40), (40, 50)]
    assert [ring.objects["pedestrian"] for ring in rings] == [6, 2, 0, 0, 0]
    assert [ring.tracked["pedestrian"] for ring in rings] == [5, 1, 0, 0, 0]
    assert [ring.objects["car"] for ring in rings] == [ring.tracked["car"] for ring in rings] == [0, 6, 2, 0, 0]
    # A truck that no sensor hit, at 16 to 22 m, is no object, and its box does not count.
    assert sum(ring.objects["truck"] for ring in rings) == 0
    assert [(ring.boxes, ring.right) for ring in rings] == [(5, 5), (8, 7), (2, 2), (0, 0), (0, 0)]
    assert main(["eval", str(tiny.root), str(path), "--by-distance"]) == 0
    printed = capsys.readouterr().out
    assert format_rings(rings) in printed and "all " in printed
    assert "10-20 m             8     0.88        8     0.88        1.00        0.50" in printed
    assert main(["eval", str(tiny.root), str(path), "--by-distance", "--class", "barrier"]) == 2
    assert "classes: expected some of" in capsys.readouterr().err
    # Of one class alone nothing of the others is left: neither objects nor boxes.
    assert main(["eval", str(tiny.root), str(path), "--by-distance", "--class", "pedestrian"]) == 0
    printed = capsys.readouterr().out
    assert "10-20 m             2     0.50        2     0.50        0.50\n" in printed and "car" not in printed
