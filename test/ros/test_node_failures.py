"""A device that fails, an optional package in front, predictions between sets: the node in this process."""

import contextlib
import dataclasses
import os
import threading
import time
from contextlib import nullcontext

import pytest

pytest.importorskip("rclpy")

import live_node
import numpy as np
import rclpy
import small_drive
import torch
from hand_fed import MessageFilters
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from std_srvs.srv import Trigger

from syncl_core.errors import DeviceError, InputError
from syncl_core.io import messages
from syncl_ros import approximate, engine, worker
from syncl_ros.environment import prepare_environment
from syncl_ros.node import TrackerNode
from syncl_ros.still_tracker import NUM_TRACKS, StillTracker, load_still_tracker
from syncl_ros.synthetic_rig import SyntheticRig

DOMAIN = 181 + os.getpid() % 40


class FragileTracker(StillTracker):
    """Fails with `error` while that is set."""

    error: Exception | None = None

    def step(self, state, frame):
        if self.error is not None:
            raise self.error
        return super().step(state, frame)


@contextlib.contextmanager
def running(load, *parameters):
    """(node, watcher): the node in a thread of this process, with a rig that publishes to it."""
    prepare_environment()
    given = [text for parameter in ("diagnostics.period:=0.1", *parameters) for text in ("-p", parameter)]
    rclpy.init(args=["--ros-args", *given], domain_id=DOMAIN)
    try:
        with live_node.watching(DOMAIN) as watcher:
            node, publisher = TrackerNode(load=load), Node("rig")
            rig = live_node.make_rig(publisher)
            executor, stop = SingleThreadedExecutor(), threading.Event()
            executor.add_node(node)

            def spin():
                while not stop.is_set():
                    executor.spin_once(timeout_sec=0.05)

            thread = threading.Thread(target=spin, daemon=True)
            rig.start()
            try:
                node.start()
                thread.start()
                yield node, watcher
            finally:
                stop.set()
                if thread.is_alive():
                    thread.join()
                rig.stop()
                node.close()
                publisher.destroy_node()
    finally:
        rclpy.shutdown()


def fragile() -> tuple[FragileTracker, object]:
    tracker = FragileTracker(load_still_tracker("", "", 0, "cpu").config)
    return tracker, lambda *_: tracker


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (RuntimeError("CUDA error: an illegal memory access"), "device"),
        (ZeroDivisionError("a bug"), "ZeroDivisionError"),
    ],
)
def test_a_failure_makes_the_node_inactive_and_another_try_is_possible(error, kind):
    tracker, load = fragile()
    with running(load) as (node, watcher):
        (objects,) = watcher.wait_for_tracks(1)
        assert len(objects) == NUM_TRACKS
        tracker.error = error
        watcher.wait(lambda: watcher.ready is False)
        assert watcher.state() == "inactive"
        said = watcher.wait(
            lambda: watcher.statuses["lifecycle"] if watcher.statuses["lifecycle"].level > b"\0" else None
        )
        assert said.level == b"\x02" and f"inactive: {kind}" in said.message and str(error) in said.message
        assert isinstance(node.failure, DeviceError if kind == "device" else ZeroDivisionError)
        tracker.error = None
        assert watcher.transition("activate")
        session = {identity.split("-")[0] for identity in objects.ids}
        (objects,) = watcher.wait_for_tracks(1)
        assert {identity.split("-")[0] for identity in objects.ids} == session  # the memory was kept
        assert watcher.wait(lambda: watcher.statuses["lifecycle"].message == "active")


def test_a_replay_ends_with_the_error_instead():
    tracker, load = fragile()
    with running(load, "sync.queue:=all") as (node, watcher):
        watcher.wait_for_tracks(1)
        node.check()
        tracker.error = RuntimeError("CUDA error: gone")
        watcher.wait(lambda: watcher.ready is False and node.failure is not None)
        with pytest.raises(DeviceError, match="gone"):
            node.check()


def test_a_network_that_cannot_be_loaded_leaves_the_node_unconfigured():
    def load(*_):
        raise InputError("weights.safetensors: no such file")

    with running(load, "autostart:=false") as (_, watcher):
        watcher.wait(lambda: watcher.statuses)
        assert not watcher.transition("configure") and watcher.state() == "unconfigured"
        said = watcher.wait(
            lambda: watcher.statuses["lifecycle"] if watcher.statuses["lifecycle"].level > b"\0" else None
        )
        assert "weights.safetensors: no such file" in said.message


def test_where_no_device_is_named_a_gpu_computes_if_there_is_one(monkeypatch, domain):
    monkeypatch.setattr("syncl_core.devices.torch.cuda.is_available", lambda: True)
    for named, device in (("", "cuda"), ("cpu", "cpu")):
        asked = []
        rclpy.init(args=["--ros-args", "-p", f"device:='{named}'", "-p", "autostart:=false"], domain_id=domain)
        try:
            node = TrackerNode(load=lambda config, checkpoint, seed, device, asked=asked: asked.append(device))
            node.trigger_configure()
            node.destroy_node()
        finally:
            rclpy.shutdown()
        assert asked == [device]


def test_message_filters_in_front_of_the_intake(monkeypatch):
    package = MessageFilters(every=2)
    monkeypatch.setattr(approximate, "_message_filters", lambda: package)
    with running(fragile()[1], "sync.policy:=approximate_time", "sync.process_period:=0.2") as (_, watcher):
        watcher.wait_for_tracks(4)
        times = {objects.t_ns for objects in watcher.tracks}
        (synchronizer,) = package.synchronizers
        forwarded = {messages.stamp_ns(image) for of_set in synchronizer.forwarded for image in of_set}
        assert times <= forwarded  # the intake forms sets again, of no other images


def test_a_network_that_does_not_return_is_told_and_the_node_ends_without_it(monkeypatch):
    tracker, load = fragile()
    entered, release = threading.Event(), threading.Event()
    step = tracker.step

    def hang(*given):
        entered.set()
        release.wait(60)
        return step(*given)

    monkeypatch.setattr(engine, "LONGEST_WAIT_SECONDS", 0.2)
    monkeypatch.setattr(worker, "STOP_SECONDS", 0.5)
    try:
        with running(load, "diagnostics.max_acceptable_consecutive_delay_ms:=300.0") as (node, watcher):
            watcher.wait_for_tracks(1)
            monkeypatch.setattr(node._engine._session, "_step", hang)
            assert entered.wait(10)
            watcher.wait(lambda: "at one set for" in watcher.statuses["processing_time_status"].message)
            assert watcher.statuses["processing_time_status"].level == b"\2"
            answer = watcher.call(Trigger, "reset", Trigger.Request())
            assert not answer.success and "the network does not return" in answer.message
            assert watcher.state() == "inactive"
            began_s = time.monotonic()
        assert time.monotonic() - began_s < 20  # the block has ended with node.close()
    finally:
        release.set()


@pytest.mark.parametrize("failures", [1, 2])
def test_a_full_device_is_tried_once_more_and_is_one_line(failures, domain):
    remaining = [torch.OutOfMemoryError("CUDA out of memory")] * failures
    tracker, _ = fragile()

    def load(*_):
        if remaining:
            raise remaining.pop()
        return tracker

    rclpy.init(args=["--ros-args", "-p", "autostart:=true"], domain_id=domain)
    try:
        node = TrackerNode(load=load)
        with pytest.raises(DeviceError, match="failed twice.*out of memory") if failures == 2 else nullcontext():
            node.start()
        assert (node.failure is None) == (failures == 1) and not remaining
        node.close()
    finally:
        rclpy.shutdown()


def test_cameras_that_are_slower_than_sets_are_asked_for_miss_none(monkeypatch):
    def slow_rig(node):
        return SyntheticRig(node, small_drive.jpeg(5), small_drive.MODEL, rate_hz=2.0)

    monkeypatch.setattr(live_node, "make_rig", slow_rig)
    with running(fragile()[1], "sync.process_period:=0.0") as (_, watcher):

        def coasted_after(processed: int) -> int:
            status = "processing_time_status"
            watcher.wait(lambda: status in watcher.statuses, 30)
            watcher.wait(lambda: int(watcher.values(status)["processed_sets"]) >= processed, 30)
            return int(watcher.values("camera_status")["coasted_sets"])

        before = coasted_after(3)  # by then the node knows their rhythm
        assert coasted_after(8) - before <= 1


class MovingTracker(StillTracker):
    """All objects drive on."""

    def step(self, state, frame):
        state, tracks = super().step(state, frame)
        return state, dataclasses.replace(tracks, velocity=torch.ones_like(tracks.velocity))


def test_between_sets_predictions_fill_in_the_rate_that_was_asked_for():
    tracker = MovingTracker(load_still_tracker("", "", 0, "cpu").config)
    with running(lambda *_: tracker, "sync.process_period:=0.5") as (_, watcher):
        object_sets = watcher.wait_for_tracks(4)
        steps_s, scores = np.diff([objects.t_ns for objects in object_sets]) * 1e-9, object_sets[0].scores
        assert min(steps_s) > 0.4  # none was asked for
        assert watcher.set_parameter("publish_rate", 20.0)[0]
        object_sets = watcher.wait_for_tracks(30)
        state = watcher.values("tracker")["state"]
    steps_s = np.diff([objects.t_ns for objects in object_sets]) * 1e-9
    assert min(steps_s) > -0.05 and np.median(steps_s) < 0.3
    assert state == "confirmed"  # nothing was missed
    # Predictions between sets keep the scores; lower ones stand for a set that a busy machine has lost.
    sure = [objects for objects in object_sets if (objects.scores == scores).all()]
    assert len(sure) > 25
    moved = 0
    for before, after in zip(sure, sure[1:], strict=False):
        if before.ids == after.ids and after.t_ns > before.t_ns:
            moved += not np.array_equal(before.centers, after.centers)
    assert moved > 5


def test_a_reset_on_a_broken_device_is_refused_and_makes_the_node_inactive(monkeypatch):
    tracker, load = fragile()
    with running(load) as (node, watcher):
        watcher.wait_for_tracks(1)

        def broken(*_):
            raise RuntimeError("CUDA error: gone")

        monkeypatch.setattr(node._engine._session, "_init_state", broken)
        answer = watcher.call(Trigger, "reset", Trigger.Request())
        assert not answer.success and "gone" in answer.message
        assert watcher.state() == "inactive"
        watcher.wait(lambda: "inactive: device" in watcher.statuses["lifecycle"].message)


def test_a_node_that_was_shut_down_says_so_under_its_full_name(tmp_path, domain):
    rclpy.init(args=["--ros-args", "-r", "__ns:=/left"], domain_id=domain)
    try:
        node = TrackerNode(load=lambda *_: pytest.fail("nothing to load"))
        (before,) = node._statuses({}, frozenset())
        node.trigger_shutdown()
        (after,) = node._statuses({}, frozenset())
        assert (before.message, after.message) == ("unconfigured", "finalized")
        assert node._diagnostics._message(after).name == "left/tracker: lifecycle"
        node.close()
    finally:
        rclpy.shutdown()


def test_a_closed_node_leaves_no_service_behind(domain):
    rclpy.init(domain_id=domain)
    try:
        observer, node = Node("observer"), TrackerNode(load=lambda *_: pytest.fail("nothing to load"))

        def services() -> set[str]:
            return {name for name, _ in observer.get_service_names_and_types() if name.startswith("/tracker/")}

        assert {"/tracker/get_state", "/tracker/reset"} <= services()
        node.close()
        assert services() <= {"/tracker/get_type_description"}  # that one rclpy keeps of every node
        observer.destroy_node()
    finally:
        rclpy.shutdown()
