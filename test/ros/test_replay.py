"""The whole chain as real processes over DDS: bag -> player -> node -> recorder -> bag."""

import dataclasses

import numpy as np
import pytest

pytest.importorskip("rclpy")

import live_node
import simplejpeg
import small_drive
from processes import ROOT, RosProcess, environment

from syncl_core import offline
from syncl_core.config import SynclConfig, load_config
from syncl_core.io.bag_reader import BagReader
from syncl_core.runtime.session import TrackerSession
from syncl_core.tracking.build import build_tracker
from syncl_core.types import ObjectSet

OUTPUT = ("/tracker/tracks", "/tracker/markers", "/diagnostics")


def replay(bag, config_file, folder, domain, *node_arguments) -> str:
    """Play `bag` through the node and record `folder`/result. Returns what the node said."""
    env = environment(folder, domain)
    node_arguments = ("--params-file", ROOT / "config" / "replay.yaml", "-p", f"config:={config_file}", *node_arguments)
    recording = ("-o", folder / "result", "--header-time", "--until", "/tracker/finished", "--topics", *OUTPUT)
    playing = (bag, "--rate", 2, "--clock", 100, "--wait-for", "/tracker/ready", "/recorder/ready")
    with (
        RosProcess("recorder", *recording, env=env, folder=folder) as recorder,
        RosProcess("node", "--ros-args", *node_arguments, env=env, folder=folder) as node,
        RosProcess("player", *playing, env=env, folder=folder) as player,
    ):
        assert player.wait(120) == 0, player.output()
        assert recorder.wait(60) == 0, recorder.output()
        node.interrupt()
        assert node.wait(20) == 0, node.output()
        return node.output()


def track_offline(bag, config: SynclConfig) -> list[ObjectSet]:
    tracker = build_tracker(config)
    session = TrackerSession(tracker.step, tracker.init_state, config)
    return [session.process(frame_set).objects for frame_set in offline.bag_frame_sets(bag, config)]


def recorded_tracks(folder) -> list[ObjectSet]:
    with BagReader(folder / "result") as reader:
        return reader.object_sets("/tracker/tracks")


def assert_same(online: list[ObjectSet], expected: list[ObjectSet]) -> None:
    assert [objects.t_ns for objects in online] == [objects.t_ns for objects in expected]
    for ours, theirs in zip(online, expected, strict=True):
        assert (ours.ids, ours.labels) == (theirs.ids, theirs.labels)
        for name in ("centers", "sizes", "rotations", "scores"):
            np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=0, atol=1e-4)


def test_the_node_tracks_as_offline_does(drive, config_file, tmp_path, domain):
    expected = track_offline(drive, load_config(config_file))
    assert len(expected) == 7 and len({i for objects in expected for i in objects.ids}) > 10  # else it shows nothing
    assert any(len(objects) == 0 for objects in expected)  # an empty array is published too
    replay(drive, config_file, tmp_path, domain)
    assert_same(recorded_tracks(tmp_path), expected)
    with BagReader(tmp_path / "result") as reader:
        assert reader.counts["/tracker/markers"] == len(expected)
        marked = [message.markers for topic, message, _ in reader.decoded(["/tracker/markers"])]
    for markers, objects in zip(marked, expected, strict=True):
        assert sum(marker.ns == "boxes" and marker.action == 0 for marker in markers) == len(objects)


def test_after_a_recording_nothing_is_missed_until_the_next_one(drive, config_file, tmp_path, domain):
    env = environment(tmp_path, domain)
    arguments = ("--params-file", ROOT / "config" / "replay.yaml", "-p", f"config:={config_file}")
    arguments = (*arguments, "-p", "diagnostics.period:=0.1")
    playing = (drive, "--clock", 100, "--wait-for", "/tracker/ready")
    with (
        live_node.watching(domain) as watcher,
        RosProcess("node", "--ros-args", *arguments, env=env, folder=tmp_path) as node,
    ):
        watcher.wait(lambda: watcher.ready and watcher.statuses, 60)
        assert "nobody publishes" in watcher.statuses["camera_status"].message
        for _ in range(2):
            with RosProcess("player", *playing, env=env, folder=tmp_path) as player:
                watcher.wait(lambda: watcher.statuses["camera_status"].message == "ok", 30)
                assert player.wait(60) == 0, player.output()
            for name in ("camera_status", "ego_motion", "processing_time_status"):
                watcher.wait(lambda n=name: watcher.statuses[n].message == "the recording is over", 30)
        node.interrupt()
        assert node.wait(20) == 0, node.output()


def test_a_bag_in_a_loop_resets_once_per_round_with_the_same_boxes_and_new_ids(drive, config_file, tmp_path, domain):
    env = environment(tmp_path, domain)
    arguments = ("--params-file", ROOT / "config" / "replay.yaml", "-p", f"config:={config_file}")
    playing = (drive, "--loop", "--clock", 100, "--wait-for", "/tracker/ready")
    with (
        live_node.watching(domain) as watcher,
        RosProcess("node", "--ros-args", *arguments, env=env, folder=tmp_path) as node,
    ):
        # Not before this process hears the node: ~/tracks repeats nothing.
        watcher.wait(lambda: watcher.ready and watcher.statuses, 60)
        with RosProcess("player", *playing, env=env, folder=tmp_path) as player:
            watcher.wait(lambda: len(watcher.tracks) >= 20, 60)
            player.interrupt()
            assert player.wait(20) == 0, player.output()
        node.interrupt()
        assert node.wait(20) == 0, node.output()
        tracks = list(watcher.tracks)
    starts = [0, *(int(i) + 1 for i in np.flatnonzero(np.diff([objects.t_ns for objects in tracks]) < 0)), len(tracks)]
    rounds = [tracks[begin:end] for begin, end in zip(starts, starts[1:], strict=False)]
    assert len(rounds) >= 3 and node.output().count("(time_jump)") == len(rounds) - 1
    # Where the recording ends, the last set may stay open: nothing says that it is over.
    for again in rounds[1:3]:
        for objects, other in zip(rounds[0][:5], again[:5], strict=True):
            assert other.t_ns == objects.t_ns
            np.testing.assert_allclose(other.centers, objects.centers, rtol=0, atol=1e-4)
            assert [identity.split("-")[1] for identity in other.ids] == [i.split("-")[1] for i in objects.ids]
    sessions = [{identity.split("-")[0] for objects in one[:5] for identity in objects.ids} for one in rounds[:3]]
    assert [len(session) for session in sessions] == [1, 1, 1] and len(set.union(*sessions)) == 3


def corrupt(make, message):
    return dataclasses.replace(message, data=message.data[: len(message.data) // 2])


def wrong_size(make, message):
    pixels = np.zeros((48, 64, 3), np.uint8)
    return dataclasses.replace(message, data=np.frombuffer(simplejpeg.encode_jpeg(pixels), np.uint8))


def unknown_format(make, message):
    return dataclasses.replace(message, format="webp")


def test_bad_images_are_named_and_the_node_goes_on(config_file, tmp_path, domain):
    # Sets are made of frames 0, 6, 12, ... Two sets are rejected; of the third, the next frame takes the place.
    broken = {
        "CAM_FRONT": {6: corrupt},
        "CAM_BACK": {18: wrong_size},
        "CAM_BACK_LEFT": {24: unknown_format},
    }
    bag = small_drive.write_drive(tmp_path / "broken", broken=broken)
    said = replay(bag, config_file, tmp_path, domain)
    with BagReader(tmp_path / "result") as reader:
        values = {}
        for _, message, _ in reader.decoded(["/diagnostics"]):
            values |= {pair.key: pair.value for status in message.status for pair in status.values}
    assert values["processed_sets"] == "5"
    assert values["rejected_set.count"] == "2"
    assert "CAM_FRONT at" in said and "corrupt JPEG" in said
    assert "CAM_BACK at" in values["rejected_set.last"] and "64x48" in values["rejected_set.last"]
    assert values["/cam_back_left/image/compressed.count"] == "1"
    assert "webp" in values["/cam_back_left/image/compressed.last"]
    assert "CAM_BACK_LEFT" in values["too_few_cameras.last"]
    since_ns = [objects.t_ns - small_drive.START_NS - small_drive.FIRST_NS for objects in recorded_tracks(tmp_path)]
    assert [t_ns // small_drive.PERIOD_NS for t_ns in since_ns] == [0, 12, 25, 31, 37]
