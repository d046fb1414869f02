"""Recordings with unusable images: offline does what the node does, and says it."""

import copy
import dataclasses

import numpy as np
import pytest
from test_cli import CONFIG, TOPICS, _corrupt_image, bag, rewrite, root  # noqa: F401  fixtures
from test_session import CONFIG as SESSION_CONFIG
from test_session import SECOND, T0, fake_step, frame_set, init_state
from test_session_failures import CORRUPT, with_view

from syncl_core import offline
from syncl_core.cli import main
from syncl_core.errors import DeviceError, InputError
from syncl_core.io.bag_reader import BagReader
from syncl_core.io.sensor_events import sensor_events
from syncl_core.runtime.session import TrackerSession


def drive(spoiled):
    sets = [frame_set(T0 + i * SECOND // 2) for i in range(5)]
    return [with_view(s, "CAM_BACK", image=CORRUPT) if i in spoiled else s for i, s in enumerate(sets)]


def test_a_rejected_set_is_left_out_and_counted():
    session = TrackerSession(fake_step, init_state, SESSION_CONFIG)
    objects = list(offline.track(session.process, drive({1, 3}), "drive"))
    assert [(o.t_ns - T0) * 2 // SECOND for o in objects] == [0, 2, 4]
    assert session.problems()["rejected_set"].count == 2 and len({i.split("-")[0] for o in objects for i in o.ids}) == 1


def test_a_recording_without_a_usable_set_is_an_error_that_names_it():
    session = TrackerSession(fake_step, init_state, SESSION_CONFIG)
    with pytest.raises(InputError, match="^drive: no set of images can be used; .*CAM_BACK at .*corrupt JPEG"):
        list(offline.track(session.process, drive(range(5)), "drive"))


def test_an_error_of_the_tracker_ends_the_run_and_names_the_recording():
    def broken(frame_set):
        raise DeviceError("device cuda:0 failed twice")

    with pytest.raises(InputError, match="^drive: device cuda:0 failed twice"):
        list(offline.track(broken, drive(()), "drive"))


def test_one_camera_with_corrupt_images_is_masked_where_the_rig_allows_it(bag, tmp_path, capsys):  # noqa: F811
    broken = rewrite(bag, tmp_path / "broken", _corrupt_image)
    config = tmp_path / "five.yaml"
    config.write_text(CONFIG + "sync: {min_cameras: 5}\n")
    assert main(["track", str(broken), "-c", str(config), "-o", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().err
    assert f"note: {broken}: rejected_image" in said and "CAM_FRONT at" in said and "corrupt JPEG" in said
    with BagReader(tmp_path / "out" / "broken") as reader:
        object_sets = reader.object_sets("/tracker/tracks")
    assert len(object_sets) > 2 and all(len(objects) for objects in object_sets)


def test_an_unusable_transform_is_left_out_as_in_the_node(bag, tmp_path):  # noqa: F811
    """A gripper that nobody has calibrated must not end the tracking of a whole drive."""

    def spoil(topic, message):
        if topic == TOPICS.tf:
            finger = copy.deepcopy(message.transforms[0])
            finger.header.frame_id, finger.child_frame_id = "gripper", "finger"
            finger.transform.rotation.w = finger.transform.rotation.x = 0.0
            finger.transform.rotation.y = finger.transform.rotation.z = 0.0
            message.transforms.insert(0, finger)
        return message

    def times(path):
        return [one.t_ns for one in offline.bag_frame_sets(path, SESSION_CONFIG)]

    broken, said = rewrite(bag, tmp_path / "broken", spoil), []
    assert times(broken) == times(bag)
    with BagReader(broken) as reader:
        for _ in sensor_events(reader, SESSION_CONFIG.rig.cameras, on_unusable=lambda *what: said.append(what)):
            pass
        poses = sum(topic == TOPICS.tf for topic, *_ in reader.messages())
    assert len(said) == poses and said[0][0] == TOPICS.tf and "gripper -> finger: not a rotation" in said[0][1]


@pytest.mark.parametrize("rectify, bent", [("auto", True), ("always", True), ("never", False)])
def test_distorted_cameras_of_a_bag_get_their_lens_as_configured(bag, tmp_path, rectify, bent):  # noqa: F811
    def distort(topic, message):
        if topic == TOPICS.camera_info_of("CAM_BACK"):
            message.distortion_model, message.d = "plumb_bob", np.array([-0.2, 0.05, 0.0, 0.0, 0.0])
        return message

    rewrite(bag, tmp_path / "bent", distort)
    config = dataclasses.replace(SESSION_CONFIG, rig=dataclasses.replace(SESSION_CONFIG.rig, rectify=rectify))
    for one in offline.bag_frame_sets(tmp_path / "bent", config):
        lenses = {view.camera: view.model.lens for view in one.views}
        assert (lenses.pop("CAM_BACK") is not None) == bent and set(lenses.values()) == {None}
