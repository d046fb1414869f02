"""The node on a vehicle: its outputs, live parameters, services and life cycle, with six live cameras over DDS.

One node lives through the whole file; each test leaves it healthy.
"""

import importlib.util
import time

import pytest

pytest.importorskip("rclpy")

import live_node
import numpy as np
from live_node import DOMAIN, PERIOD_SECONDS, healthy, sessions

from syncl_core.classes import CAMERAS
from syncl_core.io import messages
from syncl_core.io.topics import frame_of
from syncl_core.io.tracked_objects import LABEL_INFO, TRACKED_OBJECTS, object_uuid
from syncl_ros import reference
from syncl_ros.synthetic_rig import SPEED

ERROR, WARN = b"\x02", b"\x01"


def test_tracks_come_at_the_period_with_lasting_ids_and_measured_times(watcher):
    object_sets = watcher.wait_for_tracks(6)
    steps_s = np.diff([objects.t_ns for objects in object_sets]) * 1e-9
    assert (
        abs(np.median(steps_s) - PERIOD_SECONDS) < 0.09 and min(steps_s) > PERIOD_SECONDS - 0.09
    )  # one frame at 12 Hz
    assert len(sessions(object_sets)) == 1 and set(object_sets[0].ids) & set(object_sets[-1].ids)
    watcher.wait(lambda: healthy(watcher))
    total, latency = (watcher.latencies[name][-1] for name in ("processing_time/total_ms", "pipeline_latency_ms"))
    assert 0 < total < latency < 2000
    assert 8 < float(watcher.values("camera_status")["CAM_BACK.rate_hz"]) < 16


def test_further_outputs_tell_the_same_tracks(watcher):
    pytest.importorskip("autoware_perception_msgs.msg")
    prefix = "/tracker/"
    labels = watcher.listen(LABEL_INFO, prefix + "label_info", latched=True)
    detections = watcher.listen(messages.DETECTIONS, prefix + "detections")
    autoware = watcher.listen(TRACKED_OBJECTS, prefix + "tracked_objects")
    pictures = watcher.listen(messages.IMAGE, prefix + "debug/image/cam_front")
    watcher.wait(lambda: labels and len(detections) > 1 and len(autoware) > 1 and len(pictures) > 1)
    tracks = {objects.t_ns: objects for objects in watcher.tracks}
    assert [c.class_name for c in labels[-1].class_map][0] == "car"
    boxes = messages.object_set_from(detections[-1])
    assert set(boxes.ids) <= {""} and len(boxes) >= len(tracks[boxes.t_ns]) > 0
    same = autoware[-1]
    ours = tracks[messages.stamp_ns(same)]
    assert [bytes(o.object_id.uuid) for o in same.objects] == [object_uuid(identity).bytes for identity in ours.ids]
    image = pictures[-1]
    assert (image.width, image.height, image.encoding) == (800, 450, "rgb8")
    assert image.header.frame_id == "cam_front" and len(set(bytes(image.data[:30000]))) > 20
    watcher.stop_listening()


def test_the_documented_topics_are_those_of_the_graph(watcher):
    ours = dict(watcher.get_publisher_names_and_types_by_node("tracker", "/"))
    shown = {topic.replace("/tracker/", "~/"): kinds[0].replace("/msg", "") for topic, kinds in ours.items()}
    documented = {
        topic.replace("<camera>", frame_of(camera)): kind
        for topic, kind, _ in reference.OUTPUTS
        for camera in (CAMERAS if "<camera>" in topic else ("",))
    }
    if importlib.util.find_spec("autoware_perception_msgs") is None:
        del documented["~/tracked_objects"]
    of_rcl = {"/rosout", "/parameter_events", "~/transition_event"}
    assert documented.items() <= shown.items() and shown.keys() - documented.keys() == of_rcl
    services = {name for name, _ in watcher.get_service_names_and_types_by_node("tracker", "/")}
    assert {"/tracker/reset", "/tracker/set_enabled"} <= services


def test_reset_forgets_the_tracks_and_names_the_new_session(watcher):
    earlier = {identity for objects in watcher.tracks for identity in objects.ids}
    session = watcher.reset().split()[2]
    watcher.markers.clear()
    watcher.wait(lambda: watcher.values("tracker")["session"] == session)
    object_sets = watcher.wait_for_tracks(3)
    assert sessions(object_sets) == [session] and session not in {identity.split("-")[0] for identity in earlier}
    watcher.wait(lambda: any(m.action == 3 for array in watcher.markers for m in array.markers))  # DELETEALL


def test_thresholds_and_marker_options_change_live_and_bad_values_are_refused(watcher):
    assert watcher.set_parameter("score_threshold", 1.0) == (True, "")
    watcher.wait(lambda: not len(watcher.wait_for_tracks(1)[0]))
    label = next(objects.labels[0] for objects in reversed(watcher.tracks) if len(objects))
    assert watcher.set_parameter("score_threshold", 0.0)[0]
    assert watcher.set_parameter(f"score_thresholds.{label}", 1.0)[0]
    watcher.wait(lambda: label not in watcher.wait_for_tracks(1)[0].labels)
    assert watcher.set_parameter(f"score_thresholds.{label}", 0.0)[0]
    watcher.wait(lambda: label in watcher.wait_for_tracks(1)[0].labels)
    assert watcher.set_parameter("markers.box_style", "cubes")[0]
    watcher.markers.clear()
    watcher.wait(lambda: any(m.ns == "boxes" and m.type == 1 for array in watcher.markers for m in array.markers))
    assert watcher.set_parameter("markers.box_style", "lines")[0]
    for name, value, reason in [
        ("score_threshold", 1.5, "1.5"),
        ("markers.box_style", "balls", "not one of lines, cubes"),
        ("markers.color", [1.0, 2.0], "expected 3 numbers"),
        ("checkpoint", "other", "read-only"),
        ("sync.min_cameras", 7, "7 of 6 cameras"),
        ("sync.max_spread", 0.0, "sync.max_spread: must be positive"),
        ("sync.process_period", 1.0, "read-only"),
        ("classes", "car, tram", "no class 'tram' is tracked; known: car, truck"),
        ("publish_rate", 100.0, "100"),
    ]:
        done, said = watcher.set_parameter(name, value)
        assert not done and reason in said, (name, said)


def test_what_makes_a_set_changes_live_and_the_memory_is_kept(watcher, rig):
    before = sessions(watcher.tracks[-2:])
    rig.silent.update(CAMERAS[:3])
    watcher.wait(lambda: watcher.values("tracker").get("state") == "coasting")  # 3 are fewer than 4
    assert watcher.set_parameter("sync.min_cameras", 3)[0]
    watcher.wait(lambda: watcher.values("tracker")["state"] == "confirmed")
    assert sessions(watcher.wait_for_tracks(2)) == before
    assert watcher.set_parameter("sync.min_cameras", 4)[0]
    watcher.wait(lambda: watcher.values("tracker")["state"] == "coasting")
    rig.silent.clear()
    watcher.wait(lambda: healthy(watcher))
    assert watcher.set_parameter("sync.max_spread", 0.001)[0]  # cameras fire 7 ms apart, and jitter says nothing here
    rig.stamp_error_s["CAM_BACK"] = 0.004
    count = "spread_exceeded.count"
    known = int(watcher.values("input").get(count, 0))
    watcher.wait(lambda: int(watcher.values("input").get(count, 0)) > known)
    assert watcher.set_parameter("sync.max_spread", 0.06)[0]
    rig.stamp_error_s.clear()
    watcher.wait(lambda: healthy(watcher))
    assert sessions(watcher.wait_for_tracks(1)) == before


def test_classes_choose_what_is_published(watcher):
    label = next(objects.labels[0] for objects in reversed(watcher.tracks) if len(objects))
    assert watcher.set_parameter("classes", "bus" if label != "bus" else "car")[0]
    watcher.wait(lambda: label not in watcher.wait_for_tracks(1)[0].labels)
    assert watcher.set_parameter("classes", f" {label} ,")[0]
    watcher.wait(lambda: set(watcher.wait_for_tracks(1)[0].labels) == {label})
    assert watcher.set_parameter("classes", "")[0]
    assert watcher.wait(lambda: len(watcher.wait_for_tracks(1)[0]))


def test_disabling_stops_the_tracks_and_says_so(watcher):
    watcher.set_enabled(False)
    watcher.wait(lambda: watcher.statuses["lifecycle"].level == WARN)
    time.sleep(0.3)
    count = len(watcher.tracks)
    time.sleep(3 * PERIOD_SECONDS)
    assert len(watcher.tracks) == count
    watcher.set_enabled(True)
    watcher.wait_for_tracks(1)


def test_the_lifecycle_twice_keeps_ids_apart(watcher):
    earlier = set(sessions(watcher.tracks))
    for _ in range(2):
        assert watcher.transition("deactivate") and watcher.state() == "inactive"
        assert watcher.ready is False
        count = len(watcher.tracks)
        assert watcher.transition("cleanup") and watcher.state() == "unconfigured"
        assert len(watcher.tracks) <= count + 1  # one may have been on the way
        assert not watcher.transition("activate")
        assert watcher.transition("configure") and watcher.transition("activate") and watcher.state() == "active"
        session = watcher.wait(lambda: sessions(watcher.wait_for_tracks(1)))[0]
        assert session not in earlier
        earlier.add(session)
        watcher.wait(lambda: healthy(watcher))


def test_a_restarted_node_repeats_no_id_and_names_an_incompatible_qos(stage, tmp_path):
    process, watcher, rig = stage
    earlier = set(sessions(watcher.tracks))
    watcher.wait(lambda: rig.sweeps / 12 * SPEED > 220, 60)  # metres from where the car began
    process.interrupt()
    assert process.wait(20) == 0, process.output()
    parameters = {"autostart": False, "qos.images": "reliable"}
    with live_node.node_process(tmp_path, DOMAIN, **parameters) as again:
        watcher.statuses = {}
        watcher.wait(lambda: watcher.statuses, 60)
        assert watcher.statuses["lifecycle"].message == "unconfigured"
        assert watcher.transition("configure") and watcher.transition("activate")
        said = watcher.wait(lambda: s if (s := watcher.statuses.get("camera_status")) and "QoS" in s.message else None)
        topic = f"/{frame_of('CAM_FRONT')}/image/compressed"
        assert said.level == ERROR and "reliability: asked for reliable, offered is best effort" in said.message
        assert topic in said.message and "qos.images" in said.message
        assert topic in again.output() and "RELIABILITY" in again.output()
        again.interrupt()
        assert again.wait(20) == 0, again.output()
    far_m = min(np.linalg.norm(objects.centers, axis=1).min() for objects in watcher.tracks[-3:] if len(objects))
    with live_node.node_process(tmp_path, DOMAIN, output_frame="base_link") as third:
        session = watcher.wait(lambda: set(sessions(watcher.wait_for_tracks(1))) - earlier)
        assert len(session) == 1, third.output()
        # The car drove away from the origin of odom, and its tracks with it; now they lie around the car.
        near_m = [np.linalg.norm(o.centers, axis=1).max() for o in watcher.tracks if set(sessions([o])) == session]
        assert near_m and max(near_m) < 100 < far_m
