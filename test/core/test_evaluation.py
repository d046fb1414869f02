"""Laws of the official metrics: known answers for known submissions, and no submission that is scored by mistake."""

import argparse
import json
import math
from dataclasses import replace

import numpy as np
import pytest
from nuscenes_fixture import SCENES, VERSION, edit_table, real_root, write_tiny_nuscenes

from syncl_core.classes import TRACKING_CLASSES
from syncl_core.cli import main
from syncl_core.commands import evaluate
from syncl_core.errors import InputError
from syncl_core.io.submission import tracking_submission, write_submission
from syncl_core.types import ObjectSet

pytest.importorskip("nuscenes", reason="nuscenes-devkit is not installed")
pytest.importorskip("motmetrics", reason="motmetrics is not installed")
from syncl_core.data.nuscenes import NuScenesScenes  # noqa: E402
from syncl_core.evaluation.tracking import evaluate_tracking, format_metrics  # noqa: E402


def ground_truth(data: NuScenesScenes) -> dict[str, ObjectSet]:
    samples = [sample for scene in data.scene_names for sample in data.samples(scene)]
    return {sample.token: data.ground_truth(sample.token, TRACKING_CLASSES) for sample in samples}


def nothing(results: dict[str, ObjectSet]) -> dict[str, ObjectSet]:
    return {token: objects.select(np.zeros(len(objects), bool)) for token, objects in results.items()}


def write(path, results):
    write_submission(path, tracking_submission(results))
    return path


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return NuScenesScenes(write_tiny_nuscenes(tmp_path_factory.mktemp("tiny"), sweeps_between=0))


@pytest.fixture(scope="module")
def truth(tiny):
    return ground_truth(tiny)


def test_the_truth_is_perfect_and_the_root_untouched(tiny, truth, tmp_path):
    before = sorted(tiny.root.rglob("*"))
    path = write(tmp_path / "tracks.json", truth)
    metrics = evaluate_tracking(tiny.root, "", "", path, tmp_path / "metrics")
    assert sorted(tiny.root.rglob("*")) == before
    assert (metrics.amota, metrics.recall, metrics.mota) == (1.0, 1.0, 1.0)
    assert metrics.amotp == pytest.approx(0.0, abs=1e-6)  # some machines' arithmetic gives 2e-8 m
    assert (metrics.ids, metrics.fp, metrics.fn) == (0, 0, 0)
    # A car and a walker, four key frames in each of two scenes; the truck has no points, the far car is out of range.
    assert metrics.gt == 16
    assert {name: row.gt for name, row in metrics.per_class.items() if row.gt} == {"car": 8, "pedestrian": 8}
    assert math.isnan(metrics.per_class["truck"].amota)
    assert metrics.scenes == SCENES
    assert metrics.num_samples == 8
    summary = json.loads((tmp_path / "metrics" / "metrics_summary.json").read_text())
    assert summary["amota"] == 1.0
    assert summary["meta"]["use_camera"] is True
    assert len(json.loads((tmp_path / "metrics" / "metrics_details.json").read_text())["car"]["motar"]) == 40


def with_ghost(objects: ObjectSet) -> ObjectSet:
    """One more car, ten metres beside the real one."""
    ghost = objects.select([name.endswith("-car") and "far" not in name for name in objects.ids])
    assert len(ghost) == 1
    ghost = replace(ghost, ids=("ghost",), centers=ghost.centers + [0.0, 10.0, 0.0])
    arrays = ("scores", "centers", "sizes", "rotations", "velocities", "num_points")
    joined = {name: np.concatenate([getattr(objects, name), getattr(ghost, name)]) for name in arrays}
    return replace(objects, ids=objects.ids + ghost.ids, labels=objects.labels + ghost.labels, **joined)


def test_switches_misses_and_false_positives_are_counted(tiny, truth, tmp_path):
    """First scene: the car changes its id half-way and a ghost is there twice. Second scene: no walker."""
    results = {}
    for index, (token, objects) in enumerate(truth.items()):
        scene, frame = divmod(index, 4)
        ids = tuple(f"{i}-again" if scene == 0 and frame >= 2 and i.endswith("-car") else i for i in objects.ids)
        found = replace(objects, ids=ids).select([not (scene == 1 and i.endswith("walker")) for i in ids])
        results[token] = with_ghost(found) if scene == 0 and frame < 2 else found
    metrics = evaluate_tracking(tiny.root, VERSION, SCENES, write(tmp_path / "tracks.json", results))
    car, pedestrian = metrics.per_class["car"], metrics.per_class["pedestrian"]
    assert (car.ids, car.fp, car.fn) == (1, 2, 0)
    assert car.mota == pytest.approx(1 - (1 + 2) / 8)
    assert (pedestrian.ids, pedestrian.fp, pedestrian.fn) == (0, 0, 4)
    assert pedestrian.recall == pedestrian.mota == 0.5
    assert (metrics.ids, metrics.fp, metrics.fn) == (1, 2, 4)
    assert metrics.mota == pytest.approx((car.mota + pedestrian.mota) / 2)


def test_classes_that_do_not_count(tiny, truth, tmp_path, capsys):
    """A tracker of cars alone is perfect among cars; the figures of a class do not depend on which others count."""
    cars = {token: objects.select([label == "car" for label in objects.labels]) for token, objects in truth.items()}
    path = write(tmp_path / "cars.json", cars)
    every, done = evaluate_tracking(tiny.root, "", "", path), []
    some = evaluate_tracking(tiny.root, "", "", path, classes=["car", "bus"], on_class=lambda: done.append(1))
    assert len(done) == 2
    assert (every.amota, every.gt) == (0.5, 16)
    assert (some.amota, some.gt, some.fn, set(some.per_class)) == (1.0, 8, 0, {"car", "bus"})
    assert some.per_class["car"] == every.per_class["car"]
    assert main(["eval", str(tiny.root), str(path), "--class", "car", "--class", "bus"]) == 0
    assert capsys.readouterr().out == format_metrics(some) + "\n"
    assert main(["eval", str(tiny.root), str(path), "--class", "tram"]) == 2
    assert "classes: expected some of car, truck, bus, " in capsys.readouterr().err
    with pytest.raises(InputError, match="expected some of .*, got none"):
        evaluate_tracking(tiny.root, "", "", path, classes=[])


def test_a_tracker_that_found_nothing_has_defined_metrics(tiny, truth, tmp_path):
    metrics = evaluate_tracking(tiny.root, "", "", write(tmp_path / "tracks.json", nothing(truth)))
    assert (metrics.amota, metrics.amotp, metrics.recall, metrics.mota) == (0.0, 2.0, 0.0, 0.0)
    assert (metrics.ids, metrics.fp, metrics.fn) == (0, 0, 16)


def test_selections_of_scenes(tiny, truth, tmp_path, capsys):
    """A perfect second scene: perfect on the split that is this scene, not on both; only its key frames are needed."""
    half = {t: o if tiny.scene_of(t) == SCENES[1] else o.select(np.zeros(len(o), bool)) for t, o in truth.items()}
    whole = write(tmp_path / "whole.json", half)
    part = write(tmp_path / "part.json", {t: o for t, o in half.items() if tiny.scene_of(t) == SCENES[1]})
    for selection in ("tiny_val", [SCENES[1]]):
        metrics = evaluate_tracking(tiny.root, "", selection, whole)
        assert (metrics.amota, metrics.gt, metrics.scenes) == (1.0, 8, (SCENES[1],))
    assert evaluate_tracking(tiny.root, "", "", part).scenes == (SCENES[1],)
    assert evaluate_tracking(tiny.root, "", "", whole).recall == 0.5
    with pytest.raises(InputError, match=f"lacks 4 of the 8 key frames .*{SCENES[0]}-sample-0"):
        evaluate_tracking(tiny.root, "", SCENES, part)
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


def test_unusable_input_is_named(tiny, truth, tmp_path):
    path = write(tmp_path / "tracks.json", truth)
    with pytest.raises(InputError, match="no scene 'x'"):
        evaluate_tracking(tiny.root, "", ["x"], path)
    with pytest.raises(InputError, match=r"tracks\.json/metrics: cannot make this folder: Not a directory"):
        evaluate_tracking(tiny.root, "", ["x"], path, path / "metrics")  # before anything else, also before the scene
    with pytest.raises(InputError, match="split 'x' is unknown"):
        evaluate_tracking(tiny.root, "", "x", path)
    foreign = write(tmp_path / "foreign.json", {"elsewhere": next(iter(truth.values()))})
    with pytest.raises(InputError, match="is it from another data set"):
        evaluate_tracking(tiny.root, "", "", foreign)
    submission = tracking_submission(truth)
    boxes = submission["results"][f"{SCENES[0]}-sample-0"]
    boxes[1]["tracking_id"] = boxes[0]["tracking_id"]
    write_submission(tmp_path / "twice.json", submission)
    with pytest.raises(InputError, match=f"{SCENES[0]}-sample-0: id .* occurs twice"):
        evaluate_tracking(tiny.root, "", "", tmp_path / "twice.json")


def test_roots_the_devkit_cannot_evaluate_are_named(truth, tmp_path):
    root = write_tiny_nuscenes(tmp_path / "tiny", sweeps_between=0)
    path = write(tmp_path / "tracks.json", truth)
    edit_table(root, "sample_annotation", lambda records: records.clear())
    with pytest.raises(InputError, match="no ground truth"):
        evaluate_tracking(root, "", "", path)
    (root / "maps" / "map.png").unlink()
    with pytest.raises(InputError, match=f"nuscenes-devkit cannot evaluate .*{root}/maps/map.png does not exist"):
        evaluate_tracking(root, "", "", path)


def test_command_prints_and_writes_the_table(tiny, truth, tmp_path, capsys):
    parser = argparse.ArgumentParser()
    evaluate.add_parser(parser.add_subparsers())
    path = write(tmp_path / "tracks.json", truth)
    args = parser.parse_args(["eval", str(tiny.root), str(path), "--split", "tiny_val", "-o", str(tmp_path / "out")])
    assert args.run(args) == 0
    table = capsys.readouterr().out
    assert (tmp_path / "out" / "metrics.txt").read_text() == table
    row = next(line.split() for line in table.splitlines() if line.startswith("all"))
    assert row == ["all", "1.000", "0.000", "1.000", "1.000", "0", "0", "0", "8"]
    assert "trailer, truck" in table.splitlines()[-1]


def test_table_shows_undefined_as_dash(tiny, truth, tmp_path):
    metrics = evaluate_tracking(tiny.root, "", [SCENES[0]], write(tmp_path / "tracks.json", nothing(truth)))
    car = next(line.split() for line in format_metrics(metrics).splitlines() if line.startswith("car"))
    assert car == ["car", "0.000", "2.000", "0.000", "0.000", "-", "-", "4", "4"]


@pytest.fixture(scope="module")
def mini_val():
    data = NuScenesScenes(real_root("nuscenes_mini_val"))
    return data, ground_truth(data)


def test_real_truth_with_points_is_perfect(mini_val, tmp_path):
    data, results = mini_val
    seen = {token: objects.select(objects.num_points > 0) for token, objects in results.items()}
    metrics = evaluate_tracking(data.root, "", "mini_val", write(tmp_path / "tracks.json", seen))
    assert metrics.amota == 1.0
    assert (metrics.ids, metrics.fp, metrics.fn) == (0, 0, 0)


def test_real_truth_with_unseen_boxes_has_known_metrics(mini_val, tmp_path):
    data, results = mini_val
    metrics = evaluate_tracking(data.root, "", "mini_val", write(tmp_path / "tracks.json", results))
    assert round(metrics.amota, 4) == 0.9715
    assert round(metrics.amotp, 3) == 0.018
    assert (metrics.ids, metrics.fp) == (0, 83)


def test_real_truth_with_short_lived_ids_has_known_metrics(mini_val, tmp_path):
    """A new id every five key frames."""
    data, results = mini_val
    renamed = {}
    for scene in data.scene_names:
        for index, sample in enumerate(data.samples(scene)):
            objects = results[sample.token]
            renamed[sample.token] = replace(objects, ids=tuple(f"{i}-{index // 5}" for i in objects.ids))
    metrics = evaluate_tracking(data.root, "", "mini_val", write(tmp_path / "tracks.json", renamed))
    assert round(metrics.amota, 4) == 0.7845
    assert round(metrics.amotp, 3) == 0.393
    assert metrics.ids == 671
