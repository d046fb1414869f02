"""From recordings to files: what `syncl render` shows belongs together, and it leaves all or nothing."""

import argparse
from pathlib import Path

import numpy as np
import pytest
from nuscenes_fixture import SAMPLES_PER_SCENE, SCENES, real_root, write_tiny_nuscenes

from syncl_core import geometry
from syncl_core.classes import TRACKING_CLASSES
from syncl_core.commands import render
from syncl_core.config import SynclConfig
from syncl_core.data.nuscenes import NuScenesScenes
from syncl_core.errors import InputError
from syncl_core.io.scene_to_bag import write_scene_bag
from syncl_core.io.submission import tracking_submission, write_submission
from syncl_core.io.track_bag import write_track_bag
from syncl_core.view.camera_view import box_outlines
from syncl_core.view.picture import PageLayout
from syncl_core.view.recording import open_recording, read_tracks
from syncl_core.view.replay import render_sets

CONFIG = SynclConfig()


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return write_tiny_nuscenes(tmp_path_factory.mktemp("nuscenes"), sweeps_between=2)


@pytest.fixture(scope="module")
def bag(root, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("bags") / "scene"
    write_scene_bag(NuScenesScenes(root), SCENES[0], path)
    return path


@pytest.fixture(scope="module")
def truth(root):
    """Ground truth of the first scene by sample token, as if a tracker had found it."""
    return ground_truth(root, SCENES[0])


def ground_truth(root, scene):
    data = NuScenesScenes(root)
    return {sample.token: data.ground_truth(sample.token, TRACKING_CLASSES) for sample in data.samples(scene)}


def syncl_render(*arguments) -> int:
    parser = argparse.ArgumentParser()
    render.add_parser(parser.add_subparsers())
    args = parser.parse_args(["render", *map(str, arguments)])
    return args.run(args)


def camera_rows(page: np.ndarray) -> np.ndarray:
    """The part of a page that shows the cameras."""
    layout = PageLayout(width=page.shape[1], rows=2)
    return page[layout.header :, : layout.birdseye[0]]


def test_bag_shows_the_same_images_and_boxes_as_the_tables_it_came_from(root, bag):
    recordings = [open_recording(root, CONFIG, SCENES[0]), open_recording(bag, CONFIG)]
    assert [recording.name for recording in recordings] == [SCENES[0]] * 2
    pages = [list(render_sets(r.frame_sets, r.ground_truth, r.ground_truth, width=640)) for r in recordings]
    assert len(pages[0]) == len(pages[1]) == SAMPLES_PER_SCENE
    for from_tables, from_bag in zip(*pages, strict=True):
        assert np.abs(camera_rows(from_tables).astype(int) - camera_rows(from_bag)).mean() < 0.02


def test_tracks_of_a_json_and_of_a_bag_are_the_same(root, truth, tmp_path):
    write_submission(tmp_path / "tracks.json", tracking_submission(truth))
    write_track_bag(tmp_path / "tracks", truth.values())
    times = open_recording(root, CONFIG, SCENES[0]).sample_times
    from_json, from_bag = read_tracks(tmp_path / "tracks.json", times), read_tracks(tmp_path / "tracks", {})
    assert sorted(from_json) == sorted(from_bag) == [objects.t_ns for objects in truth.values()]
    for t_ns, objects in from_json.items():
        assert objects.ids == from_bag[t_ns].ids
        assert objects.centers == pytest.approx(from_bag[t_ns].centers)
    other = open_recording(root, CONFIG, SCENES[1]).sample_times
    with pytest.raises(InputError, match=r"tracks\.json: none of its 4 key frames"):
        read_tracks(tmp_path / "tracks.json", other)


def test_command_writes_pictures_and_video(root, bag, truth, tmp_path, capsys):
    write_track_bag(tmp_path / "tracks", list(truth.values())[:3])
    options = ["--tracks", tmp_path / "tracks", "--ground-truth", "--width", 480]
    assert syncl_render(bag, *options, "--video", "--pictures", "last", "-o", tmp_path / "a") == 0
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["picture.png", "video.mp4"]
    assert "3 pictures" in capsys.readouterr().out
    assert syncl_render(root, "--scene", SCENES[0], *options, "-o", tmp_path / "b") == 0
    assert len(list((tmp_path / "b").iterdir())) == 3 and not capsys.readouterr().err
    write_track_bag(tmp_path / "tracks", list(truth.values())[:2], overwrite=True)
    assert syncl_render(bag, *options, "-o", tmp_path / "b") == 0
    assert "b: picture_0003.png of an earlier drawing left as they were" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "culprit"),
    [
        (["nowhere"], "nowhere: no such file or folder"),
        (["{root}"], "choose a scene with --scene: tiny-0001, tiny-0002"),
        (["{bag}", "--scene", "x"], "--scene is for nuScenes roots"),
        (["{bag}", "--tracks", "{bag}"], "no topic /tracker/tracks"),
        (["{bag}", "--tracks", "{other}"], "nothing to draw"),
        (["{bag}", "--width", "10"], "--width"),
    ],
)
def test_command_refuses_in_one_line_and_leaves_nothing(root, bag, tmp_path, arguments, culprit):
    other = tmp_path / "other"
    write_track_bag(other, ground_truth(root, SCENES[1]).values())
    with pytest.raises(InputError) as caught:
        syncl_render(*(a.format(root=root, bag=bag, other=other) for a in arguments), "-o", tmp_path / "out", "--video")
    assert culprit in str(caught.value) and "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["other"]
    with pytest.raises(InputError, match="--pictures none: nothing would be written; give --video"):
        syncl_render(bag, "--pictures", "none", "-o", tmp_path / "out")


def test_incomplete_sets_are_shown_where_no_tracks_are_asked_for(tmp_path):
    root = write_tiny_nuscenes(tmp_path / "partial", sweeps_between=0)
    for path in (root / "samples" / "CAM_BACK").iterdir():
        path.unlink()
    assert syncl_render(root, "--scene", SCENES[0], "--width", 480, "-o", tmp_path / "out") == 0
    assert len(list((tmp_path / "out").iterdir())) == SAMPLES_PER_SCENE


def test_every_real_object_in_range_is_seen_by_a_camera():
    data = NuScenesScenes(real_root("nuscenes_two_frames"))
    for sample in data.samples(data.scene_names[0]):
        frame_set, objects = data.frame_set(sample.token), data.ground_truth(sample.token)
        seen = set()
        for view in frame_set.views:
            cam_from_global = geometry.inverse(view.global_from_base @ view.base_from_cam)
            seen |= {outline.index for outline in box_outlines(objects, view.model, cam_from_global)}
        assert seen == set(range(len(objects)))
