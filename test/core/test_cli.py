"""`syncl` as a user meets it: results on good input; on bad input one line, exit code 2 and nothing half-written."""

import errno
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from nuscenes_fixture import REAL_GAPS_MS, SAMPLES_PER_SCENE, SCENES, edit_table, real_root, write_tiny_nuscenes

from syncl_core import geometry, offline
from syncl_core.cli import exit_code, main
from syncl_core.config import load_config
from syncl_core.data.nuscenes import NuScenesScenes
from syncl_core.io import messages
from syncl_core.io.bag_reader import BagReader
from syncl_core.io.bag_types import bag_types
from syncl_core.io.bag_writer import BagWriter
from syncl_core.io.submission import read_submission
from syncl_core.io.topics import Topics

CONFIG = """
image: {height: 32, width: 64}
model: {embed_dim: 32, num_queries: 20, num_layers: 1, num_heads: 2, ffn_dim: 32, reasoning_layers: 1, depth_bins: 4,
        class_prior: 0.5, neutral_start: true}
track: {slots: 8}
"""
TOPICS = Topics()
FRONT = TOPICS.compressed_of("CAM_FRONT")


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return write_tiny_nuscenes(tmp_path_factory.mktemp("nuscenes"))


@pytest.fixture(scope="module")
def bag(root, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("bags") / "drive"
    assert main(["bag", str(root), "--scene", SCENES[0], "-o", str(path)]) == 0
    return path


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("config") / "tiny.yaml"
    path.write_text(CONFIG)
    return path


def test_a_bag_is_tracked_evaluated_and_drawn(root, bag, config, tmp_path, capsys):
    tracks = tmp_path / "tracks"
    assert main(["track", str(bag), "-c", str(config), "-o", str(tracks)]) == 0
    assert "untrained" in capsys.readouterr().err
    samples = {sample.token for sample in offline.bag_samples(bag)[SCENES[0]]}
    results = read_submission(tracks / "tracks.json")
    assert results.keys() == samples and len(samples) == SAMPLES_PER_SCENE
    with BagReader(tracks / "drive") as reader:
        object_sets = reader.object_sets("/tracker/tracks")
        assert reader.counts["/tracker/markers"] == len(object_sets) == SAMPLES_PER_SCENE
    assert all(len(objects) for objects in object_sets), "the untrained tracker must have something to say"
    assert main(["eval", str(root), str(tracks / "tracks.json"), "-o", str(tmp_path / "metrics")]) == 0
    assert "AMOTA" in (tmp_path / "metrics" / "metrics.txt").read_text()
    picture = ["render", str(bag), "--tracks", str(tracks / "drive"), "-c", str(config), "--width", "480"]
    assert main([*picture, "--pictures", "last", "-o", str(tmp_path / "pictures")]) == 0
    assert (tmp_path / "pictures" / "picture.png").stat().st_size > 1000


def test_tables_and_bag_give_the_same_tracks(root, bag, config, tmp_path):
    """The bag's reference time is its newest image, the tables' is the lidar; boxes differ by that motion only."""
    assert main(["track", str(bag), "-c", str(config), "-o", str(tmp_path / "bag")]) == 0
    assert main(["track", str(root), "--scene", SCENES[0], "-c", str(config), "-o", str(tmp_path / "root")]) == 0
    from_bag, from_root = (read_submission(tmp_path / name / "tracks.json") for name in ("bag", "root"))
    assert from_bag.keys() == from_root.keys()
    for token, objects in from_bag.items():
        numbers = [[i.split("-")[1] for i in o.ids] for o in (objects, from_root[token])]
        assert numbers[0] == numbers[1]
        np.testing.assert_allclose(objects.centers, from_root[token].centers, atol=0.6)


def test_key_frames_beside_the_sets_of_a_bag_have_boxes(config, tmp_path, capsys):
    """Images at 12 Hz and key frames as the real ones: one set per half second leaves the key frames behind."""
    root = write_tiny_nuscenes(tmp_path / "root", sweeps_between=5, gaps_ms=REAL_GAPS_MS)
    bag, out = tmp_path / "bag", tmp_path / "out"
    assert main(["bag", str(root), "--scene", SCENES[0], "-o", str(bag)]) == 0
    assert main(["track", str(bag), "-c", str(config), "-o", str(out)]) == 0
    samples = NuScenesScenes(root).samples(SCENES[0])
    times = [frame_set.t_ns for frame_set in offline.bag_frame_sets(bag, load_config(config))]
    alone = [s.token for s in samples if min(abs(s.t_ns - t) for t in times) > 50_000_000]
    assert len(alone) > 2
    note = f"{len(alone)} of {len(samples)} key frames lie between processed sets; their boxes are interpolated"
    assert f"note: bag: {note}" in capsys.readouterr().err
    assert all(read_submission(out / "tracks.json")[sample.token].ids for sample in samples)
    pictures = ["--pictures", "all", "--width", "480", "-c", str(config), "-o", str(tmp_path / "pictures")]
    assert main(["render", str(bag), "--tracks", str(out / "tracks.json"), *pictures]) == 0
    assert len(list((tmp_path / "pictures").iterdir())) == len(times)


def test_a_key_frame_of_a_root_without_an_image_stays_empty(config, tmp_path, capsys):
    """Nothing is made up where the key frames are the sets: it would count as the tracker's own."""
    root = write_tiny_nuscenes(tmp_path / "root")
    samples = NuScenesScenes(root).samples(SCENES[0])
    frame_set = list(offline.scene_frame_sets(NuScenesScenes(root), SCENES[0], load_config(config)))[2]
    back = next(view.t_ns for view in frame_set.views if view.camera == "CAM_BACK")
    (image,) = root.glob(f"samples/CAM_BACK/*{back // 1000}*")
    image.unlink()
    assert main(["track", str(root), "--scene", SCENES[0], "-c", str(config), "-o", str(tmp_path / "out")]) == 0
    found = read_submission(tmp_path / "out" / "tracks.json")
    assert [bool(found[sample.token].ids) for sample in samples] == [i != 2 for i in range(len(samples))]
    assert f"note: {SCENES[0]}: 1 of {len(samples)} key frames have no set, so no boxes" in capsys.readouterr().err


def test_a_split_is_tracked(root, bag, config, tmp_path, capsys):
    out = tmp_path / "out"
    command = ["-c", str(config), "-o", str(out), "--split"]
    fails_in_one_line(capsys, ["track", str(bag), *command, "x"], "--split is for nuScenes roots", untouched=out)
    fails_in_one_line(capsys, ["track", str(root), *command, "x"], "split 'x' is unknown", untouched=out)
    with pytest.raises(SystemExit):
        main(["track", str(root), *command, "tiny_val", "--scene", SCENES[1]])
    assert main(["track", str(root), *command, "tiny_val"]) == 0
    tokens = {sample.token for sample in NuScenesScenes(root).samples(SCENES[1])}
    assert read_submission(out / "tracks.json").keys() == tokens and not (out / SCENES[0]).exists()


def test_a_repeated_run_is_equal_to_the_bit(bag, config, tmp_path):
    for name in ("first", "second"):
        assert main(["track", str(bag), "-c", str(config), "-o", str(tmp_path / name)]) == 0
    assert (tmp_path / "first/tracks.json").read_bytes() == (tmp_path / "second/tracks.json").read_bytes()


def test_every_due_set_of_a_bag_is_tracked(bag, config):
    frame_sets = list(offline.bag_frame_sets(bag, load_config(config)))
    steps = np.diff([frame_set.t_ns for frame_set in frame_sets]) / 1e9
    assert len(frame_sets) == SAMPLES_PER_SCENE and np.allclose(steps, 0.5, atol=0.05)
    assert all(None not in frame_set.views for frame_set in frame_sets)


def rewrite(bag: Path, target: Path, change) -> Path:
    """A copy of a bag in which `change(topic, message)` edited messages, or dropped them by returning None."""
    with BagReader(bag) as reader, BagWriter(target) as writer:
        for topic, type_name, t_ns, data in reader.messages():
            message = change(topic, writer.types.deserialize(data, type_name))
            if message is not None:
                writer.write(topic, message, t_ns)
    return target


def _small_image(topic, message):
    if topic == FRONT:
        message.data = np.frombuffer(simplejpeg.encode_jpeg(np.zeros((20, 30, 3), np.uint8)), np.uint8)
    return message


def _corrupt_image(topic, message):
    if topic == FRONT:
        message.data = message.data[: len(message.data) // 3]
    return message


def _unknown_encoding(topic, message):
    if topic == FRONT:
        message.format = "h264"
    return message


def _nan_pose(topic, message):
    if topic == TOPICS.tf:
        message.transforms[-1].transform.translation.x = float("nan")
    return message


def _without_front(topic, message):
    return None if topic == FRONT else message


def _without_calibration(topic, message):
    return None if topic == TOPICS.camera_info_of("CAM_BACK") else message


def _wrong_type(topic, message):
    return bag_types().make(messages.STRING, data="text") if topic == FRONT else message


BAD_BAGS = {
    "wrong size": (_small_image, ["CAM_FRONT", "30x20", "64x36"]),
    "corrupt JPEG": (_corrupt_image, ["CAM_FRONT", "corrupt JPEG"]),
    "unknown encoding": (_unknown_encoding, [FRONT, "h264"]),
    "NaN pose": (_nan_pose, ["/tf (", "odom -> base_link"]),
    "missing camera": (_without_front, ["CAM_FRONT", FRONT]),
    "missing calibration": (_without_calibration, ["/cam_back/camera_info"]),
    "wrong schema": (_wrong_type, [FRONT, "std_msgs/msg/String"]),
}


def fails_in_one_line(capsys, arguments: list[str], *culprits: str, untouched: Path) -> None:
    capsys.readouterr()
    assert main(arguments) == 2
    line = [text for text in capsys.readouterr().err.splitlines() if text.startswith("syncl: error: ")]
    assert len(line) == 1 and all(culprit in line[0] for culprit in culprits), line
    assert not untouched.exists() or not any(untouched.iterdir())


@pytest.mark.parametrize("name", BAD_BAGS)
def test_bad_bag(name, bag, config, tmp_path, capsys):
    change, culprits = BAD_BAGS[name]
    broken = rewrite(bag, tmp_path / "broken", change)
    output = tmp_path / "out"
    fails_in_one_line(capsys, ["track", str(broken), "-c", str(config), "-o", str(output)], *culprits, untouched=output)


def test_truncated_mcap(bag, config, tmp_path, capsys):
    whole = next(bag.glob("*.mcap")).read_bytes()
    (tmp_path / "cut.mcap").write_bytes(whole[: len(whole) // 2])
    arguments = ["track", str(tmp_path / "cut.mcap"), "-c", str(config), "-o", str(tmp_path / "out")]
    fails_in_one_line(capsys, arguments, "cut.mcap", "ends too early", untouched=tmp_path / "out")


def _image_file(data: NuScenesScenes, token: str, camera: str) -> Path:
    return data.root / data._nusc.get("sample_data", data._sample(token)["data"][camera])["filename"]


def test_missing_files(root, bag, tmp_path, capsys):
    out = tmp_path / "out"
    nowhere = str(tmp_path / "nowhere")
    for arguments in (
        ["track", nowhere, "-o", str(out)],
        ["track", str(bag), "-c", nowhere, "-o", str(out)],
        ["track", str(bag), "--checkpoint", nowhere, "-o", str(out)],
        ["bag", nowhere, "-o", str(out)],
        ["eval", str(root), nowhere, "-o", str(out)],
        ["render", nowhere, "-o", str(out)],
    ):
        fails_in_one_line(capsys, arguments, "nowhere", untouched=out)


def test_careless_arguments(root, bag, tmp_path, capsys):
    """Names nobody can have, numbers beyond every limit, options for something else."""
    out, endless = tmp_path / "out", "x" * 300
    for arguments, culprit in (
        (["track", endless, "-o", str(out)], "File name too long"),
        (["render", endless, "-o", str(out)], "File name too long"),
        (["track", str(bag), "-o", str(tmp_path / endless)], "File name too long"),
        (["track", str(bag), "-o", str(out), "--seed", "9" * 30], "seed 9"),
        (["track", str(bag), "-o", str(out), "--version", "v1.0-mini"], "--version is for nuScenes roots"),
        (["render", str(bag), "-o", str(out), "--version", "v1.0-mini"], "--version is for nuScenes roots"),
        (["bench", "--threads", "100000"], "--threads 100000: expected 0 to 1024"),
        (["robustness", str(root), "-o", str(out), "--seed", "-1"], "seed -1"),
        (["world", str(out), "--seed", "9" * 30], "world: seed must be"),
    ):
        fails_in_one_line(capsys, arguments, culprit, untouched=out)


def test_what_cannot_become_a_submission_is_known_before_the_work(bag, config, tmp_path, capsys):
    """Nothing is written: not the bag either."""
    trams = tmp_path / "trams.yaml"
    names = "car, truck, bus, trailer, motorcycle, bicycle, tram, pedestrian, barrier, traffic_cone"
    trams.write_text(f"{config.read_text()}\nclasses: [{names}]\n")
    out = tmp_path / "out"
    fails_in_one_line(capsys, ["track", str(bag), "-c", str(trams), "-o", str(out)], "classes: tram", untouched=out)
    many = tmp_path / "many.yaml"
    many.write_text(config.read_text().replace("slots: 8", "slots: 8, max_output: 700"))
    fails_in_one_line(capsys, ["track", str(bag), "-c", str(many), "-o", str(out)], "max_output: 700", untouched=out)
    (out / "tracks.json").mkdir(parents=True)
    assert main(["track", str(bag), "-c", str(config), "-o", str(out), "--overwrite"]) == 2
    assert "tracks.json: is a folder" in capsys.readouterr().err
    assert [path.name for path in out.iterdir()] == ["tracks.json"]


def test_unusable_tables(tmp_path, config, capsys):
    out = tmp_path / "out"
    empty = write_tiny_nuscenes(tmp_path / "empty")
    for image in (empty / "samples").rglob("*.jpg"):
        image.unlink()
    for command in (["bag", str(empty), "--scene", SCENES[1]], ["track", str(empty), "-c", str(config)]):
        fails_in_one_line(capsys, [*command, "-o", str(out)], "tiny-000", untouched=out)
    broken = write_tiny_nuscenes(tmp_path / "broken")
    edit_table(broken, "ego_pose", lambda records: records[0].update(translation=[float("nan"), 0.0, 0.0]))
    fails_in_one_line(capsys, ["bag", str(broken), "--scene", SCENES[0], "-o", str(out)], "ego_pose", untouched=out)


def test_a_root_is_tracked_as_far_as_it_is_filled(tmp_path, config, capsys):
    """Scenes without images are left out, told beforehand; one that was asked for is an error."""
    root, out = write_tiny_nuscenes(tmp_path / "part"), tmp_path / "out"
    data = NuScenesScenes(root)
    for sample in data.samples(SCENES[1]):
        for view in data.frame_set(sample.token).views:
            _image_file(data, sample.token, view.camera).unlink()
    command = ["track", str(root), "-c", str(config), "-o", str(out)]
    fails_in_one_line(
        capsys, [*command, "--scene", SCENES[1]], f"{SCENES[1]}: no key frame has 6 images", untouched=out
    )
    assert main(command) == 0
    assert f"left out, without images on disk: {SCENES[1]}" in capsys.readouterr().err
    assert len(read_submission(out / "tracks.json")) == SAMPLES_PER_SCENE
    measured = ["robustness", str(root), "-c", str(config), "--missing", "0", "-o", str(out)]
    assert main(measured) == 0 and f"left out, without images on disk: {SCENES[1]}" in capsys.readouterr().err


def test_finished_scenes_survive_an_interruption(root, config, tmp_path, monkeypatch):
    from syncl_core.commands import track

    begun, whole = [], track._track

    def interrupted(*arguments):
        begun.append(arguments)
        if len(begun) == 2:
            raise KeyboardInterrupt
        return whole(*arguments)

    monkeypatch.setattr(track, "_track", interrupted)
    assert main(["track", str(root), "-c", str(config), "-o", str(tmp_path / "out")]) == 130
    assert len(read_submission(tmp_path / "out" / "tracks.json")) == SAMPLES_PER_SCENE


def test_what_may_not_be_replaced_is_known_before_the_work(root, config, tmp_path, capsys):
    (tmp_path / SCENES[1]).mkdir()
    (tmp_path / SCENES[1] / "thesis.txt").write_text("years of work")
    assert main(["track", str(root), "-c", str(config), "-o", str(tmp_path), "--overwrite"]) == 2
    assert f"{SCENES[1]}: is not a bag and nothing else" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [SCENES[1]]


def test_results_are_not_overwritten_unless_asked(bag, config, tmp_path, capsys):
    arguments = ["track", str(bag), "-c", str(config), "-o", str(tmp_path)]
    assert main(arguments) == 0
    before = (tmp_path / "tracks.json").read_bytes()
    assert main(arguments) == 2 and "--overwrite" in capsys.readouterr().err
    assert main([*arguments, "--overwrite"]) == 0
    assert (tmp_path / "tracks.json").read_bytes() == before


def test_a_recording_is_not_replaced_by_its_results(bag, config, tmp_path, capsys):
    copy = tmp_path / "drive"
    shutil.copytree(bag, copy)
    before = sorted((f.name, f.read_bytes()) for f in copy.iterdir())
    for output in (tmp_path, copy):
        assert main(["track", str(copy), "-c", str(config), "-o", str(output), "--overwrite"]) == 2
        assert "is the recording itself" in capsys.readouterr().err
    assert sorted((f.name, f.read_bytes()) for f in copy.iterdir()) == before


def test_only_bags_are_overwritten(root, bag, tmp_path, capsys):
    precious = tmp_path / "drive"
    shutil.copytree(bag, precious)
    (precious / "thesis.txt").write_text("years of work")
    assert main(["bag", str(root), "--scene", SCENES[0], "-o", str(precious), "--overwrite"]) == 2
    assert "not overwritten" in capsys.readouterr().err and (precious / "thesis.txt").exists()


def test_help_shows_examples(capsys):
    for command in (
        (),
        ("bag",),
        ("track",),
        ("eval",),
        ("render",),
        ("world",),
        ("convert",),
        ("bench",),
        ("models",),
    ):
        with pytest.raises(SystemExit) as stop:
            main([*command, "--help"])
        assert stop.value.code == 0 and "examples:" in capsys.readouterr().out


def test_real_key_frames_make_the_whole_way(config, tmp_path):
    data = real_root("nuscenes_two_frames")
    assert main(["bag", str(data), "-o", str(tmp_path / "bag")]) == 0
    assert main(["track", str(tmp_path / "bag"), "-c", str(config), "-o", str(tmp_path / "tracks")]) == 0
    results = json.loads((tmp_path / "tracks" / "tracks.json").read_text())["results"]
    assert len(results) == 2 and all(results.values())
    poses = [f.global_from_base for f in offline.bag_frame_sets(tmp_path / "bag", load_config(config))]
    moved = np.linalg.norm((geometry.inverse(poses[0]) @ poses[1])[:3, 3])
    assert 0.5 < moved < 10, "the car of scene-0103 drives"


def test_a_reader_that_has_had_enough_is_no_error():
    """As `syncl ... | head` is."""
    command = [sys.executable, "-m", "syncl_core.cli", "train", "--list-ablations"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        assert process.wait(60) == 141 and process.stderr.read() == ""


def test_another_pipe_that_breaks_is_an_error(capsys):
    """Such as that of a process which reads images, and was killed."""

    def run(_):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    assert exit_code(run, None) == 2 and "Broken pipe" in capsys.readouterr().err


def test_a_bag_is_called_as_its_folder_is(tmp_path):
    (tmp_path / "scene.v2").mkdir()
    assert offline.bag_name(tmp_path / "scene.v2") == "scene.v2" and offline.bag_name("a/scene.v2.mcap") == "scene.v2"
