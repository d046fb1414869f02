"""Laws of the tracking submission: nothing changes on the way to the file and back, and nothing doubtful gets in."""

import json
from dataclasses import fields, replace

import numpy as np
import pytest

from syncl_core.classes import TRACKING_CLASSES
from syncl_core.config import SynclConfig, TrackConfig
from syncl_core.errors import InputError
from syncl_core.io.submission import (
    check_submittable,
    filter_range,
    read_submission,
    tracking_submission,
    write_submission,
)
from syncl_core.types import ObjectSet


def random_objects(count: int, seed: int = 0, t_ns: int = 0) -> ObjectSet:
    rng = np.random.default_rng(seed)
    rotations = rng.normal(size=(count, 4))
    return ObjectSet(
        t_ns=t_ns,
        ids=tuple(f"a1b2c3d4-{i}" for i in range(count)),
        labels=tuple(rng.choice(TRACKING_CLASSES, count).tolist()),
        scores=rng.uniform(size=count),
        centers=rng.uniform(-80, 80, size=(count, 3)),
        sizes=rng.uniform(0.5, 10, size=(count, 3)),
        rotations=rotations / np.linalg.norm(rotations, axis=1, keepdims=True),
        velocities=rng.normal(size=(count, 2)),
    )


def assert_equal(ours: ObjectSet, theirs: ObjectSet) -> None:
    for field in fields(ObjectSet):
        np.testing.assert_array_equal(getattr(ours, field.name), getattr(theirs, field.name), err_msg=field.name)


@pytest.mark.parametrize("count", [0, 1, 30])
def test_read_inverts_write(tmp_path, count):
    results = {"s0": random_objects(count, seed=1, t_ns=5), "s1": random_objects(2, seed=2, t_ns=7)}
    write_submission(tmp_path / "tracks.json", tracking_submission(results))
    back = read_submission(tmp_path / "tracks.json", {"s0": 5, "s1": 7})
    assert list(back) == ["s0", "s1"]
    for token, objects in results.items():
        assert_equal(back[token], objects)


def test_unknown_velocity_is_zero_in_the_file_which_stays_strict_json(tmp_path):
    objects = replace(random_objects(2), velocities=np.full((2, 2), np.nan))
    write_submission(tmp_path / "tracks.json", tracking_submission({"s0": objects}))
    assert "NaN" not in (tmp_path / "tracks.json").read_text()
    assert (read_submission(tmp_path / "tracks.json")["s0"].velocities == 0).all()


def test_file_has_the_benchmarks_fields_and_size_order():
    objects = replace(random_objects(1), sizes=np.array([[4.5, 1.9, 1.6]]))
    submission = tracking_submission({"s0": objects})
    assert submission["meta"]["use_camera"] and not submission["meta"]["use_lidar"]
    box = submission["results"]["s0"][0]
    assert box["size"] == [1.9, 4.5, 1.6]
    assert box["sample_token"] == "s0"
    assert set(box) == {
        *("sample_token", "translation", "size", "rotation", "velocity"),
        *("tracking_id", "tracking_name", "tracking_score"),
    }


BAD_OBJECTS = {
    "id 'x' occurs twice": {"ids": ("x", "y", "x")},
    "object 'a1b2c3d4-1' has class 'barrier'": {"labels": ("car", "barrier", "car")},
    "object 'a1b2c3d4-2': unusable scores": {"scores": np.array([0.1, 0.2, np.nan])},
    "object 'a1b2c3d4-0': unusable centers": {"centers": np.array([[np.inf, 0, 0], [0, 0, 0], [1, 1, 1]])},
    "object 'a1b2c3d4-2': unusable sizes": {"sizes": np.array([[4.0, 2, 1], [4, 2, 1], [4, 0, 1]])},
    "object 'a1b2c3d4-1': unusable rotations": {"rotations": np.array([[1, 0, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0.0]])},
}


@pytest.mark.parametrize("message", BAD_OBJECTS)
def test_what_the_evaluation_cannot_use_is_named(message):
    objects = replace(random_objects(3), **BAD_OBJECTS[message])
    with pytest.raises(InputError, match=f"^sample s7: {message}"):
        tracking_submission({"s7": objects})


def test_501_boxes_are_too_many():
    tracking_submission({"s7": random_objects(500)})
    with pytest.raises(InputError, match="sample s7: 501 boxes, 500 are allowed"):
        tracking_submission({"s7": random_objects(501)})


def test_a_tracker_that_says_too_much_is_known_before_it_runs():
    check_submittable(SynclConfig(track=TrackConfig(max_output=500)))
    with pytest.raises(InputError, match=r"^track\.max_output: 501 boxes cannot stand in tracks\.json"):
        check_submittable(SynclConfig(track=TrackConfig(max_output=501)))
    with pytest.raises(InputError, match=r"^classes: barrier cannot stand in tracks\.json"):
        check_submittable(SynclConfig(classes=("car", "barrier"), num_tracking_classes=2))


def broken(**changes) -> str:
    submission = tracking_submission({"s0": random_objects(2)})
    box = submission["results"]["s0"][1]
    box.update(changes)
    return json.dumps({**submission, "results": {"s0": [submission["results"]["s0"][0], box]}})


BAD_FILES = {
    "not valid JSON": '{"meta": {}, "resu',
    "lacks 'meta' or 'results'": '{"results": {}}',
    "sample s0: expected a list of boxes": '{"meta": {}, "results": {"s0": {}}}',
    "sample s0, box 1: 'size' must be 3 numbers": broken(size=[1, 2]),
    "sample s0, box 1: 'tracking_score' must be a number": broken(tracking_score="high"),
    "sample s0, box 1: 'translation' must be 3 numbers": broken(translation=[1, None, 3]),
    "sample s0: id 'a1b2c3d4-0' occurs twice": broken(tracking_id="a1b2c3d4-0"),
    "sample s0: object 'a1b2c3d4-1' has class 'tank'": broken(tracking_name="tank"),
    "sample s0: object 'a1b2c3d4-1': unusable sizes": broken(size=[2.0, 0.0, 1.5]),
    "sample s0, box 1: its 'sample_token' is 's1'": broken(sample_token="s1"),
    "sample s0: object 'a1b2c3d4-1': unusable scores": broken(tracking_score=float("nan")),
}


@pytest.mark.parametrize("message", BAD_FILES)
def test_bad_files_are_named(tmp_path, message):
    path = tmp_path / "tracks.json"
    path.write_text(BAD_FILES[message])
    with pytest.raises(InputError, match=f"tracks.json: .*{message}") as caught:
        read_submission(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("field", ["tracking_id", "sample_token"])
def test_a_box_without_a_field_is_named(tmp_path, field):
    submission = tracking_submission({"s0": random_objects(1)})
    del submission["results"]["s0"][0][field]
    write_submission(tmp_path / "tracks.json", submission)
    with pytest.raises(InputError, match=f"sample s0, box 0: lacks '{field}'"):
        read_submission(tmp_path / "tracks.json")


def test_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"nothing\.json: cannot read it: No such file"):
        read_submission(tmp_path / "nothing.json")


def test_writing_is_all_or_nothing(tmp_path, monkeypatch):
    path = tmp_path / "tracks.json"
    path.write_text("old")

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", full_disk)
        with pytest.raises(InputError, match=r"tracks\.json: cannot write it: No space left"):
            write_submission(path, {"new": 1})
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    write_submission(path, {"new": 1})
    assert json.loads(path.read_text()) == {"new": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_no_folder_no_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file/deep: cannot make this folder"):
        write_submission(tmp_path / "file" / "deep" / "tracks.json", {})


def test_range_filter_is_the_rule_box_by_box():
    objects = random_objects(200, seed=3)
    global_from_base = np.eye(4)
    global_from_base[:3, 3] = [10.0, -20.0, 500.0]  # height does not count
    kept = filter_range(objects, global_from_base)
    expected = []
    for track_id, label, center in zip(objects.ids, objects.labels, objects.centers, strict=True):
        limit = 40 if label in ("pedestrian", "motorcycle", "bicycle") else 50
        if (center[0] - 10.0) ** 2 + (center[1] + 20.0) ** 2 < limit**2:
            expected.append(track_id)
    assert 0 < len(expected) < 200
    assert list(kept.ids) == expected
    rows = [objects.ids.index(track_id) for track_id in expected]
    np.testing.assert_array_equal(kept.velocities, objects.velocities[rows])
