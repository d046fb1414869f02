"""Player and recorder as real processes, without the node."""

import shutil
import signal
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("rclpy")

import rclpy
from processes import RosProcess, environment
from rclpy.node import Node
from std_msgs.msg import Bool

from syncl_core.errors import InputError
from syncl_core.io import messages
from syncl_core.io.bag_reader import BagReader
from syncl_core.io.bag_types import bag_types
from syncl_core.io.bag_writer import BagWriter
from syncl_core.io.markers import MarkerBuilder
from syncl_core.types import ObjectSet
from syncl_ros import conversions, recorder
from syncl_ros.player import Player


def content(path) -> list[tuple[int, str, str, bytes]]:
    with BagReader(path) as reader:
        return sorted((t_ns, topic, kind, bytes(data)) for topic, kind, t_ns, data in reader.messages())


def test_what_is_played_is_recorded_byte_for_byte(drive, tmp_path, domain):
    env = environment(tmp_path, domain)
    with BagReader(drive) as reader:
        topics = [*reader.topics, "/clock"]
    times_ns = [row[0] for row in content(drive)]
    duration_s = (times_ns[-1] - times_ns[0]) * 1e-9
    copy = tmp_path / "copy"
    playing = (drive, "--rate", 2, "--clock", 50, "--wait-for", "/recorder/ready")
    with (
        RosProcess("recorder", "-o", copy, "--header-time", "--topics", *topics, env=env, folder=tmp_path) as recording,
        RosProcess("player", *playing, env=env, folder=tmp_path) as player,
    ):
        assert player.wait(120) == 0, player.output()
        assert not copy.exists()  # nothing half-written can be seen
        recording.interrupt(signal.SIGTERM)
        assert recording.wait(30) == 0, recording.output()
    played_s = float(player.output().rsplit(" in ", 1)[1].split()[0])
    assert duration_s / 2 - 0.1 < played_s < duration_s  # slower only on a busy machine
    recorded = content(copy)
    for sent, received in zip(content(drive), (row for row in recorded if row[1] != "/clock"), strict=True):
        assert received[:3] == sent[:3]
        padding = -len(sent[3]) % 4  # the middleware fills payloads up to whole words
        assert received[3] in (sent[3], sent[3] + bytes(padding))
    ticks = [row[0] for row in recorded if row[1] == "/clock"]
    assert abs(len(ticks) - 50 * duration_s / 2) <= 2 and ticks == sorted(ticks)


def test_a_start_in_the_middle_keeps_what_is_latched(drive, tmp_path, domain):
    env, copy = environment(tmp_path, domain), tmp_path / "copy"
    with BagReader(drive) as reader:
        topics, middle_s = list(reader.topics), reader.duration_s / 2
    playing = (drive, "--rate", 5, "--start-offset", middle_s, "--wait-for", "/recorder/ready")
    with (
        RosProcess("recorder", "-o", copy, "--header-time", "--topics", *topics, env=env, folder=tmp_path) as recording,
        RosProcess("player", *playing, env=env, folder=tmp_path) as player,
    ):
        assert player.wait(120) == 0, player.output()
        recording.interrupt(signal.SIGTERM)
        assert recording.wait(30) == 0, recording.output()
    rows = content(drive)
    start_ns = rows[0][0] + round(middle_s * 1e9)
    kept = [row[:2] for row in rows if row[0] >= start_ns or row[1] == "/tf_static"]
    assert [row[:2] for row in content(copy)] == kept and len(kept) < len(rows)
    with RosProcess("player", drive, "--start-offset", 1000, env=env, folder=tmp_path) as player:
        assert player.wait(60) == 2 and "s long" in player.output()
    with BagWriter(tmp_path / "single") as bag:  # one message takes no time
        bag.write("/tf", messages.tf_message(bag.types.make, []), start_ns)
    with RosProcess("player", tmp_path / "single", env=env, folder=tmp_path) as player:
        assert player.wait(60) == 0 and "played 1 messages" in player.output()


def test_a_vehicles_own_bag_is_played_as_it_was_offered_without_what_was_made_of_it(tmp_path, domain):
    """Remapped transforms stay latched; the tracks of then and two clocks would mix with those of now."""
    env, copy, topics = environment(tmp_path, domain), tmp_path / "copy", ["/car/tf_static", "/info", "/tf"]
    with BagWriter(tmp_path / "road", latched=("/info",)) as bag:
        transforms = messages.tf_message(bag.types.make, [])
        for number, topic in enumerate((*topics, "/tracker/tracks", "/player/finished", "/clock")):
            bag.write(topic, transforms, 10**9 + number)
        bag.write("/tf", transforms, 2 * 10**9)
    with BagReader(tmp_path / "road") as reader:
        assert reader.latched == {"/car/tf_static", "/info"}
    playing = ("--clock", 50, "--start-offset", 0.5, "--wait-for", "/recorder/ready")
    recording = ("-o", copy, "--topics", *topics)
    with (
        RosProcess("recorder", *recording, env=env, folder=tmp_path) as recorder_process,
        RosProcess("player", tmp_path / "road", *playing, env=env, folder=tmp_path) as player,
    ):
        assert player.wait(60) == 0, player.output()
        recorder_process.interrupt(signal.SIGTERM)
        assert recorder_process.wait(30) == 0, recorder_process.output()
    assert [row[1] for row in content(copy)] == topics  # what is latched from before the start, and the later /tf
    assert "not played, as they are made anew: /clock, /player/finished, /tracker/tracks" in player.output()
    with BagReader(copy) as reader:
        assert reader.latched == {"/car/tf_static", "/info"}


def test_a_player_gives_up_waiting_and_stops_when_told(drive, tmp_path, domain):
    env = environment(tmp_path, domain)
    lonely, looping = tmp_path / "lonely", tmp_path / "looping"
    lonely.mkdir()
    looping.mkdir()
    waiting = (drive, "--wait-for", "/tracker/ready", "--wait-timeout", 1)
    with (
        RosProcess("player", *waiting, env=env, folder=lonely) as first,
        RosProcess("player", drive, "--loop", "--rate", 0.1, env=env, folder=looping) as second,
    ):
        second.wait_for_output("playing")
        second.interrupt(signal.SIGTERM)
        assert second.wait(10) == 0, second.output()
        assert first.wait(60) == 2
        assert first.output() == "player: error: nobody said true on /tracker/ready within 1 s\n"


def test_the_stamp_is_found_in_the_bytes_of_every_kind_of_message():
    types = bag_types()
    t_ns = 1_600_000_000_123_456_789
    make = types.make
    stamped = messages.transform_stamped(make, t_ns, "a", "b", np.eye(4))
    objects = object_set(t_ns)
    cases = {
        t_ns: [
            messages.tf_message(make, [stamped]),
            messages.detection3d_array(make, objects, "odom"),
            MarkerBuilder().build(objects, "odom", make),
            make("rosgraph_msgs/msg/Clock", clock=messages.time_from_ns(make, t_ns)),
        ],
        None: [messages.tf_message(make, []), messages.sample_record(make, "scene", "token", t_ns)],
    }
    for expected, stamped_messages in cases.items():
        for message in stamped_messages:
            offset = recorder._stamp_offset(conversions.message_class(message.__msgtype__))
            found = None if offset is None else recorder._stamp_ns(types.serialize(message), offset)
            assert found == expected, message.__msgtype__


def test_a_message_without_a_stamp_stays_between_its_neighbours_though_another_topic_is_ahead():
    times = recorder.StampTimes()
    heard = [("clearing", None), ("tracks", 1), ("markers", 1), ("tracks", 2), ("tracks", 3), ("markers", None)]
    heard += [("markers", 3), ("finished", None), ("tracks", 2), ("tracks", None)]
    assert [times.log_time_ns(topic, stamp) for topic, stamp in heard] == [0, 1, 1, 2, 3, 1, 3, 3, 2, 3]


def object_set(t_ns: int) -> ObjectSet:
    return ObjectSet(
        t_ns=t_ns,
        ids=("ab-1",),
        labels=("car",),
        scores=np.ones(1),
        centers=np.zeros((1, 3)),
        sizes=np.ones((1, 3)),
        rotations=np.array([[1.0, 0.0, 0.0, 0.0]]),
        velocities=np.zeros((1, 2)),
    )


class Slow:
    """A bag of which a long part has to be skipped."""

    topics, latched = {"/a": "std_msgs/msg/Bool"}, frozenset()

    def __init__(self, skip, then):
        self.skip, self.then = skip, then

    def require(self, topic):
        return self.topics[topic]

    def messages(self, topics):
        for number in range(self.skip):
            time.sleep(0.01)
            yield "/a", "std_msgs/msg/Bool", number * 10**7, b""
        for t_s in self.then:
            yield "/a", "std_msgs/msg/Bool", int(t_s * 1e9), b""


def test_what_is_skipped_takes_no_time_of_the_recording_and_is_left_when_told(domain, monkeypatch):
    rclpy.init(domain_id=domain)
    try:
        played, stop = Player(Slow(100, [10.0, 10.4, 10.8]), []), threading.Event()
        times_s = []
        monkeypatch.setattr(played, "_publish", lambda *_: times_s.append(time.monotonic()) or 0.0)
        assert played.play(1.0, 0.0, stop, start_offset_s=10.0) == 3
        assert np.diff(times_s) == pytest.approx(0.4, abs=0.15)
        stop.set()
        began_s = time.monotonic()
        assert Player(Slow(1000, [20.0]), []).play(1.0, 0.0, stop, start_offset_s=20.0) == 0
        assert time.monotonic() - began_s < 5
    finally:
        rclpy.shutdown()


def test_a_recording_ends_before_the_disk_is_full_and_keeps_what_came(domain, tmp_path, monkeypatch):
    usage, talk = shutil.disk_usage(tmp_path), threading.Event()
    path = tmp_path / "bag"
    arguments = SimpleNamespace(
        output=str(path), overwrite=False, topics=["/a"], header_time=False, until=None, until_idle=None, whole=False
    )
    rclpy.init(domain_id=domain)
    try:
        talker = Node("talker")
        publisher = talker.create_publisher(Bool, "/a", conversions.latched())

        def free(_):
            """Room for what is said before, none afterwards."""
            if not talk.is_set() and publisher.get_subscription_count():
                publisher.publish(Bool(data=True))
                talk.set()
            return usage._replace(free=0 if counts() else 10**10)

        def counts():
            return sum(nodes[0].counts.values()) if nodes else 0

        nodes = []
        made = recorder.Recorder.__init__
        monkeypatch.setattr(recorder.Recorder, "__init__", lambda self, *a: (nodes.append(self), made(self, *a))[1])
        monkeypatch.setattr(recorder.shutil, "disk_usage", free)
        with pytest.raises(InputError, match="bag: the disk is full, .* 64 MB .*; what came until then is recorded"):
            recorder._record(arguments, threading.Event())
        assert [row[1] for row in content(path)] == ["/a"]
        arguments.output, arguments.whole = str(tmp_path / "whole"), True
        with pytest.raises(InputError, match="whole: the disk is full, .* nothing is recorded"):
            recorder._record(arguments, threading.Event())
        assert {file.name for file in tmp_path.iterdir()} == {"bag"}
        talker.destroy_node()
    finally:
        rclpy.shutdown()
