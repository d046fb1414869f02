"""`use_sim_time` under a simulator that is slower than real time: deadlines and predictions go by its clock."""

import itertools

import pytest

pytest.importorskip("rclpy")

import live_node
import small_drive
from builtin_interfaces.msg import Time
from rosgraph_msgs.msg import Clock

from syncl_ros import conversions
from syncl_ros.synthetic_rig import SyntheticRig

SLOWNESS = 3.0  # a set is due every 0.75 s; by a steady clock predictions would begin after 0.5 s


def test_a_slow_simulation_is_not_a_vehicle_whose_cameras_fail(tmp_path, domain):
    with (
        live_node.watching(domain) as watcher,
        live_node.node_process(tmp_path, domain, use_sim_time=True, publish_rate=20.0) as process,
    ):
        clock = watcher.create_publisher(Clock, "/clock", conversions.reliable(10))

        def tick(sweep: int, stamp_ns: int, due_s: float, now_s: float) -> None:
            clock.publish(Clock(clock=Time(sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)))
            newest.append(stamp_ns)

        newest: list[int] = []
        rig = SyntheticRig(watcher, small_drive.jpeg(5), small_drive.MODEL, slowness=SLOWNESS, on_sent=tick)
        rig.start()
        try:
            watcher.wait(lambda: watcher.ready, 60)
            watcher.wait(lambda: int(watcher.values("processing_time_status").get("processed_sets", 0)) >= 8, 60)
        finally:
            rig.stop()
        assert watcher.values("camera_status")["coasted_sets"] == "0", process.output()
        stamps = [objects.t_ns for objects in watcher.tracks]
        assert all(a < b for a, b in itertools.pairwise(stamps)), stamps
        assert stamps[-1] <= max(newest) + 50_000_000
        # Between two sets `publish_rate` fills in, by the simulation's time, too.
        assert len(stamps) > 16
