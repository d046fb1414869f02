"""A recording that comes much faster than the network: no set is lost, and what waits stays bounded."""

import time

import pytest

pytest.importorskip("rclpy")

import live_node
import simplejpeg
import small_drive
from processes import ROOT, RosProcess, environment
from std_msgs.msg import Bool

from syncl_core import offline
from syncl_core.config import load_config
from syncl_core.io import messages
from syncl_core.io.bag_writer import BagWriter
from syncl_core.io.topics import frame_of
from syncl_core.types import CameraModel, RawImage
from syncl_ros import conversions

CAMERA = "CAM_FRONT"
IMAGES = 1600  # while the network is busy more of them wait than any queue of fixed depth on the way holds
PERIOD_NS = 50_000_000  # so poses of 80 s are on the way, and read long before their images
CONFIG = f"""
image: {{height: 32, width: 80}}
rig: {{cameras: [{CAMERA}]}}
sync: {{process_period: 1.0, min_cameras: 1}}
"""


def write_flood(path):
    """One camera at 20 Hz with tiny images."""
    pixels = small_drive.picture(3)[:18, :32]
    image = RawImage(encoding="jpeg", data=simplejpeg.encode_jpeg(pixels.copy(), quality=50))
    model = CameraModel(width=32, height=18, intrinsics=small_drive.MODEL.intrinsics)
    start, topics, frame = small_drive.START_NS, small_drive.TOPICS, frame_of(CAMERA)
    with BagWriter(path) as bag:
        make = bag.types.make
        mount = messages.transform_stamped(make, start, "base_link", frame, small_drive.base_from_cam(0))
        bag.write(topics.tf_static, messages.tf_message(make, [mount]), start)
        bag.write(topics.camera_info_of(CAMERA), messages.camera_info(make, start, frame, model), start)
        for number in range(IMAGES):
            t_ns = start + (number + 1) * PERIOD_NS
            pose = messages.transform_stamped(make, t_ns, "odom", "base_link", small_drive.global_from_base(t_ns))
            bag.write(topics.tf, messages.tf_message(make, [pose]), t_ns)
            bag.write(topics.compressed_of(CAMERA), messages.compressed_image(make, t_ns, frame, image), t_ns)
    return path


def test_full_queues_hold_a_replay_up_and_lose_nothing(tmp_path, domain):
    """The player does not listen to ~/hold: the node takes no message while a set waits, so the DDS queues fill."""
    bag, config = write_flood(tmp_path / "bag"), tmp_path / "tracker.yaml"
    config.write_text(CONFIG)
    expected = [frame_set.t_ns for frame_set in offline.bag_frame_sets(bag, load_config(config))]
    env = environment(tmp_path, domain)
    given = ("--params-file", ROOT / "config" / "replay.yaml", "-p", f"config:={config}")
    playing = (bag, "--rate", 1000, "--wait-for", "/tracker/ready", "--hold")
    with (
        live_node.watching(domain) as watcher,
        RosProcess(".slow_node", 0.15, 1, "--ros-args", *given, env=env, folder=tmp_path) as node,
    ):
        holds = watcher.listen("std_msgs/msg/Bool", "/tracker/hold", latched=True)
        watcher.wait(lambda: watcher.ready and watcher.statuses, 60)
        with RosProcess("player", *playing, env=env, folder=tmp_path) as player:
            assert player.wait(120) == 0, player.output()
        watcher.wait(lambda: len(watcher.tracks) >= len(expected), 60)
        watcher.wait(lambda: holds and not holds[-1].data)
        node.interrupt()
        assert node.wait(20) == 0, node.output()
    assert len(expected) == 80 and [objects.t_ns for objects in watcher.tracks] == expected
    assert "held up" in node.output() and any(hold.data for hold in holds)


def test_a_player_pauses_while_a_listener_holds(drive, tmp_path, domain):
    """Until it says so, or is gone."""
    playing = (drive, "--rate", 1000, "--wait-for", "/go", "--hold", "/slow", "/gone")
    with live_node.watching(domain) as watcher:
        slow, gone, go = (
            watcher.create_publisher(Bool, name, conversions.latched()) for name in ("/slow", "/gone", "/go")
        )
        slow.publish(Bool(data=True))
        gone.publish(Bool(data=True))
        with RosProcess("player", *playing, env=environment(tmp_path, domain), folder=tmp_path) as player:
            watcher.wait(lambda: slow.get_subscription_count() and gone.get_subscription_count(), 60)
            time.sleep(0.3)  # what is latched arrives
            go.publish(Bool(data=True))
            player.wait_for_output("playing")
            time.sleep(1.0)
            slow.publish(Bool(data=False))
            time.sleep(1.0)
            assert "played" not in player.output()
            watcher.destroy_publisher(gone)
            assert player.wait(30) == 0, player.output()
    assert float(player.output().rsplit(" in ", 1)[1].split()[0]) > 1.8
