"""Laws of written synthetic scenes: nuscenes-devkit and the official metrics treat them like the real thing."""

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from world_helpers import actor_poses, speed

from syncl_core import cli, geometry, images
from syncl_core.classes import CAMERAS, TRACKING_CLASSES
from syncl_core.errors import InputError
from syncl_core.types import RawImage
from syncl_core.world import generate, rig, scene, splits, tables, truth, writer

pytest.importorskip("nuscenes", reason="nuscenes-devkit is not installed")
from syncl_core.data.nuscenes import NuScenesScenes  # noqa: E402

CONFIG = writer.WorldConfig(scenes=2, seconds=1.5, seed=7, image_width=160, sweeps=True, workers=1)
KEY_FRAMES = 3


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return writer.write_world(tmp_path_factory.mktemp("world") / "data", CONFIG)


@pytest.fixture(scope="module")
def nusc(root):
    from nuscenes import NuScenes

    return NuScenes(writer.VERSION, str(root), verbose=False)


def digest(root):
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(f.relative_to(root)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def test_devkit_loads_two_scenes_and_says_they_are_synthetic(nusc, root):
    assert [s["name"] for s in nusc.scene] == ["world-0007", "world-0008"]
    assert all("ynthetic" in s["description"] for s in nusc.scene)
    assert {log["location"] for log in nusc.log} == {"synthetic-city"}
    assert json.loads((root / writer.VERSION / "splits.json").read_text()) == {"world": ["world-0007", "world-0008"]}
    assert len(nusc.sample) == 2 * KEY_FRAMES
    assert len(nusc.sample_data) == 2 * 7 * (rig.SWEEPS_PER_KEY_FRAME * (KEY_FRAMES - 1) + 1)


def test_chains_and_time_stamps(nusc):
    for table in (nusc.sample, nusc.sample_data, nusc.sample_annotation):
        rows = {row["token"]: row for row in table}
        assert len(rows) == len(table)
        for row in table:
            if row["next"]:
                assert rows[row["next"]]["prev"] == row["token"]
    for first in nusc.sample_data:
        if first["next"]:
            second = nusc.get("sample_data", first["next"])
            assert (second["channel"], second["timestamp"] > first["timestamp"]) == (first["channel"], True)
        sample = nusc.get("sample", first["sample_token"])
        lead = sample["timestamp"] - first["timestamp"]
        if first["channel"] == "LIDAR_TOP" and first["is_key_frame"]:
            assert lead == 0
        elif first["is_key_frame"]:
            assert 0 < lead <= 45_000
        else:
            assert 0 < lead < 500_000  # a sweep belongs to the key frame that follows
    for instance in nusc.instance:
        chain = [nusc.get("sample_annotation", instance["first_annotation_token"])]
        while chain[-1]["next"]:
            chain.append(nusc.get("sample_annotation", chain[-1]["next"]))
        assert chain[-1]["token"] == instance["last_annotation_token"] and len(chain) == instance["nbr_annotations"]
        assert {row["instance_token"] for row in chain} == {instance["token"]}


def test_images_exist_and_have_the_stated_size(nusc, root):
    for row in nusc.sample_data:
        if row["sensor_modality"] == "camera":
            data = (root / row["filename"]).read_bytes()
            pixels = images.decode(RawImage(encoding="jpeg", data=data, width=row["width"], height=row["height"]))
            assert pixels.std() > 5


def test_every_image_has_the_pose_of_its_own_time(nusc):
    world = generate.make_scene(7, CONFIG.seconds)
    start = min(s["timestamp"] for s in nusc.sample)
    token = nusc.scene[0]["token"]
    for row in nusc.sample_data:
        if nusc.get("sample", row["sample_token"])["scene_token"] == token:
            pose = nusc.get("ego_pose", row["ego_pose_token"])
            assert pose["timestamp"] == row["timestamp"]
            t = np.array([(row["timestamp"] - start) / 1e6])
            expected = world.global_from_city @ scene.city_from_base(world, t)[0]
            np.testing.assert_allclose(geometry.transform(pose["translation"], pose["rotation"]), expected, atol=1e-9)


def test_annotations_are_the_actors(nusc):
    """Place, size and velocity of every annotated box, from the motion it was made with."""
    world = generate.make_scene(7, CONFIG.seconds)
    actors = {tables.token("instance", world.name, a.name): a for a in world.actors}
    start, moving = min(s["timestamp"] for s in nusc.sample), 0
    for row in nusc.sample_annotation:
        actor = actors.get(row["instance_token"])
        if actor is None:
            continue
        t = np.array([(nusc.get("sample", row["sample_token"])["timestamp"] - start) / 1e6])
        x, y, z, yaw = actor_poses(actor, t)[0]
        expected = world.global_from_city @ geometry.transform((x, y, z), geometry.quaternion_from_yaw(yaw))
        np.testing.assert_allclose(geometry.transform(row["translation"], row["rotation"]), expected, atol=1e-9)
        assert row["size"] == [actor.size[1], actor.size[0], actor.size[2]]
        assert row["category_name"] == actor.category
        metres_per_second = speed(actor.motion, t)[0]
        attribute = nusc.get("attribute", row["attribute_tokens"][0])["name"]
        assert attribute == (actor.moving if metres_per_second > 0.2 else actor.still)
        if row["prev"] and row["next"]:
            assert np.linalg.norm(nusc.box_velocity(row["token"])[:2]) == pytest.approx(metres_per_second, abs=1.0)
            moving += metres_per_second > 1
    assert moving > 3


def test_actors_in_range_are_annotated_and_points_tell_who_is_noticed(nusc):
    for row in nusc.sample_annotation:
        sample = nusc.get("sample", row["sample_token"])
        lidar = nusc.get("sample_data", sample["data"]["LIDAR_TOP"])
        ego = nusc.get("ego_pose", lidar["ego_pose_token"])
        distance = np.linalg.norm(np.subtract(row["translation"], ego["translation"])[:2])
        assert distance < truth.ANNOTATION_RANGE
        assert row["visibility_token"] in "1234"
    points = [row["num_lidar_pts"] for row in nusc.sample_annotation]
    assert min(points) == 0 and np.mean([p > 0 for p in points]) > 0.4


def test_perfect_tracks_score_one(root, tmp_path):
    from syncl_core.evaluation.tracking import evaluate_tracking
    from syncl_core.io.submission import tracking_submission, write_submission

    scenes = NuScenesScenes(root)
    tokens = [sample.token for name in scenes.scene_names for sample in scenes.samples(name)]
    truth = {token: scenes.ground_truth(token, TRACKING_CLASSES) for token in tokens}
    perfect = {token: objects.select(objects.num_points > 0) for token, objects in truth.items()}
    write_submission(tmp_path / "perfect.json", tracking_submission(perfect))
    metrics = evaluate_tracking(root, writer.VERSION, tables.SPLIT, tmp_path / "perfect.json")
    assert metrics.gt > 40 and metrics.amota == pytest.approx(1.0, abs=1e-3)
    assert metrics.ids == 0 and metrics.amotp == pytest.approx(0.0, abs=1e-6)


def test_same_seed_same_bytes_whatever_the_number_of_processes(tmp_path):
    common = {"seconds": 1.0, "seed": 7, "image_width": 160, "sweeps": False}
    one = writer.write_world(tmp_path / "one", writer.WorldConfig(workers=1, **common))
    two = writer.write_world(tmp_path / "two", writer.WorldConfig(workers=2, **common))
    assert digest(one) == digest(two) and len(digest(one)) == 2 * 6 + 15
    assert not list(one.glob("sweeps"))


def test_a_scene_does_not_depend_on_its_neighbours(root, tmp_path):
    alone = writer.write_world(
        tmp_path / "alone", writer.WorldConfig(seconds=1.5, seed=8, image_width=160, sweeps=False, workers=1)
    )
    files = [f for f in digest(alone) if f.startswith("samples/")]
    both = digest(root)
    assert len(files) == 6 * KEY_FRAMES and all(digest(alone)[f] == both[f] for f in files)


def test_nothing_is_left_of_an_interrupted_run(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(writer, "_write_map", interrupt)
    config = writer.WorldConfig(seconds=1.0, image_width=160, sweeps=False, workers=1)
    with pytest.raises(KeyboardInterrupt):
        writer.write_world(tmp_path / "data", config)
    assert list(tmp_path.iterdir()) == []


def _killed(_):
    os.kill(os.getpid(), signal.SIGKILL)  # as the kernel does when memory runs out


@pytest.mark.parametrize("pattern", ["*", "*.jpg"])
def test_a_signal_to_the_whole_group_is_one_line(tmp_path, pattern):
    """As timeout and batch systems send it: while the drawing processes still import, and later."""
    command = [sys.executable, "-m", "syncl_core.cli", "world", str(tmp_path / "out"), "--workers", "2"]
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, start_new_session=True, **pipes) as process:
        give_up = time.monotonic() + 60
        while not list(tmp_path.rglob(pattern)) and time.monotonic() < give_up:
            time.sleep(0.05)
        time.sleep(1.5)  # drawing processes that died about now made their parent tell it in many lines
        os.killpg(process.pid, signal.SIGTERM)
        said = process.communicate(timeout=60)[1]
    assert process.returncode == 130 and said.splitlines()[-1] == "syncl: interrupted"
    assert "Traceback" not in said and "Exception" not in said and not list(tmp_path.iterdir())


def test_what_was_given_out_before_an_interrupt_is_not_drawn_after_it(monkeypatch):
    ended = threading.Event()
    monkeypatch.setattr(writer, "_ended", ended, raising=False)
    monkeypatch.setattr(writer, "_render_sweep", lambda job: f"drawn {job}")
    assert writer._render_unless_ended("sweep") == "drawn sweep"
    ended.set()
    assert writer._render_unless_ended("sweep") is None


def test_a_killed_process_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "_render_unless_ended", _killed)
    config = writer.WorldConfig(seconds=1.0, image_width=160, sweeps=False, workers=2)
    with pytest.raises(InputError, match="data: a drawing process was killed; .* fewer --workers"):
        writer.write_world(tmp_path / "data", config)
    assert list(tmp_path.iterdir()) == []


def test_a_map_that_does_not_fit_the_disk_is_not_published(tmp_path, monkeypatch):
    def full(path, data):
        if path.suffix == ".png":
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, data)

    write = Path.write_bytes
    monkeypatch.setattr(Path, "write_bytes", full)
    monkeypatch.setattr(writer.cv2, "imwrite", lambda *_: False)  # all that OpenCV says
    config = writer.WorldConfig(seconds=1.0, image_width=160, sweeps=False, workers=1)
    with pytest.raises(InputError, match="data: cannot write it: No space left on device"):
        writer.write_world(tmp_path / "data", config)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "change, culprit",
    [
        ({"scenes": -1}, "scenes"),
        ({"scenes": 0}, "scenes"),
        ({"split": "mini"}, "mini"),
        ({"split": "val", "scenes": 21}, "scenes"),
        ({"split": "val", "seed": 3}, "seed"),
        ({"seed": splits.VAL - 1, "scenes": 2}, "seed"),
        ({"seconds": 0.2}, "seconds"),
        ({"split": "val", "seconds": 20.5}, "seconds: scenes of a split last 20 s"),
        ({"image_width": 150}, "image width"),
        ({"seed": -1}, "seed"),
    ],
)
def test_impossible_requests_name_the_culprit(tmp_path, change, culprit):
    with pytest.raises(InputError, match=culprit):
        writer.write_world(tmp_path / "data", writer.WorldConfig(**change))


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file"):
        writer.write_world(tmp_path / "file" / "data", writer.WorldConfig(seconds=1.0, image_width=160, workers=1))


def test_command_refuses_a_folder_in_use(tmp_path, capsys):
    (tmp_path / "precious.txt").write_text("keep")
    assert cli.main(["world", str(tmp_path)]) == 2
    assert str(tmp_path) in capsys.readouterr().err
    assert (tmp_path / "precious.txt").read_text() == "keep"


def test_the_place_is_looked_at_before_the_work(tmp_path, monkeypatch):
    """A link to an empty folder is written through; the current folder cannot be replaced."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    config = writer.WorldConfig(seconds=1.0, image_width=160, workers=1, sweeps=False)
    writer.write_world(tmp_path / "link", config)
    assert (tmp_path / "link").is_symlink() and (tmp_path / "empty" / "samples").is_dir()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(writer, "_write_all", lambda *_: pytest.fail("work began"))
    with pytest.raises(InputError, match="is the current folder"):
        writer.write_world(Path("."), config)


def test_command_writes_a_scene(tmp_path, capsys):
    out = tmp_path / "world"
    assert cli.main(["world", str(out), "--seconds", "1", "--image-width", "160", "--no-sweeps", "--workers", "1"]) == 0
    assert "synthetic" in capsys.readouterr().out
    assert len(list(out.glob("samples/*/*.jpg"))) == 2 * len(CAMERAS)


def test_a_split_is_written_under_its_names(tmp_path):
    out = tmp_path / "val"
    arguments = ["--split", "val", "--scenes", "2", "--seconds", "1", "--image-width", "160", "--no-sweeps"]
    assert cli.main(["world", str(out), *arguments, "--workers", "1"]) == 0
    names = list(splits.scene_names("val", 2))
    assert json.loads((out / writer.VERSION / "splits.json").read_text()) == {"world": names, "world_val": names}
    scenes = NuScenesScenes(out)
    assert scenes.scene_names == tuple(names) == scenes.split("world_val")
    assert len(scenes.samples(names[0])) == 2


def test_all_scenes_have_times_that_messages_can_hold():
    """Seconds of a ROS time stamp are an int32."""
    last = splits.TRAIN + splits.SIZES["train"] - 1
    assert tables.start_us(last) + 60_000_000 < 2**31 * 1_000_000
    assert tables.start_us(8) - tables.start_us(7) > 60_000_000
