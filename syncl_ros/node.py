"""`ros2 run syncl_ros tracker`: six cameras in, tracks out. Topics meet the core here; nothing is computed here.

A lifecycle node: configure loads the network and warms it up, activate subscribes, deactivate unsubscribes and keeps
the network, cleanup frees it. With `autostart` (the default) it configures and activates itself. Silence on ~/tracks
means that nothing was processed; an empty array, that nothing is tracked.
"""

import argparse
import contextlib
import dataclasses
import gc
import traceback
from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from rclpy.executors import SingleThreadedExecutor
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn
from std_msgs.msg import Bool
from std_srvs.srv import SetBool, Trigger

from syncl_core.checkpoint import chosen_weights, load_tracker
from syncl_core.devices import default_device
from syncl_core.errors import DeviceError, InputError
from syncl_core.runtime import device_errors
from syncl_core.runtime.problems import Problem
from syncl_core.tracking.base import Tracker
from syncl_ros import conversions, health, process, reference
from syncl_ros.declare import Parameters
from syncl_ros.diagnostics import Diagnostics, file_name_and_hash
from syncl_ros.engine import Engine
from syncl_ros.health import Status
from syncl_ros.outputs import Outputs
from syncl_ros.pipeline import Pipeline

Result = TypeVar("Result")
LoadTracker = Callable[[str, str, int, str], Tracker]  # (config, checkpoint, seed, device)


class TrackerNode(LifecycleNode):
    """Unusable parameters raise InputError at once, anything else unusable makes a transition fail and is kept in
    `failure`. Once active, bad input is rejected, counted and named; a broken device deactivates the node.
    """

    def __init__(self, load: LoadTracker = load_tracker):
        super().__init__("tracker")
        self.failure: Exception | None = None  # why the last transition failed, or why inference stopped
        self._load = load
        self._settings = Parameters(self)
        given = self._settings.node
        self._params = dataclasses.replace(given, device=given.device or default_device())
        self._check_remaps()
        self._interruptible: Callable[[], contextlib.AbstractContextManager] = contextlib.nullcontext
        self._engine: Engine | None = None  # while configured
        self._pipeline: Pipeline | None = None  # while active
        self._sessions: dict | None = None  # of earlier engines: their numbers must not come again
        self._checkpoint = ""
        self._enabled, self._finalized = True, False
        self._outputs = Outputs(self, self._params)
        self._ready = self.create_publisher(Bool, "~/ready", conversions.latched())
        self._finished = self.create_publisher(Bool, "~/finished", conversions.latched())
        self._hold = self.create_publisher(Bool, "~/hold", conversions.latched())
        self.create_service(Trigger, "~/reset", self._reset)
        self.create_service(SetBool, "~/set_enabled", self._set_enabled)
        self._diagnostics = Diagnostics(self, self._params.diagnostics_period, self._problems, self._statuses)

    def start(self, stop: process.Stop | None = None) -> None:
        """Configure and activate, as far as `autostart` says. Raises what went wrong.

        From now on `stop` ends the loading of the network, which takes seconds, with KeyboardInterrupt.
        """
        if stop:
            self._interruptible = stop.at_once
        if self._params.autostart:
            self._succeed(self.trigger_configure)
            self._succeed(self.trigger_activate)

    def _succeed(self, transition: Callable[[], TransitionCallbackReturn]) -> None:
        if transition() != TransitionCallbackReturn.SUCCESS:
            raise self.failure

    def _check_remaps(self) -> None:
        """A process cannot remap itself: what its vehicle file asks for is the launch file's work."""
        for name, wanted in self._settings.remaps.items():
            if (heard := self.resolve_topic_name(name)) != self.resolve_topic_name(wanted, only_expand=True):
                self.get_logger().warning(
                    f"the vehicle file remaps {name} to {wanted}, but this node has {heard}: name the vehicle in the "
                    f"launch file's argument vehicle:=, not in params_file, or start the node with -r {name}:={wanted}"
                )

    def check(self) -> None:
        """Raises an error that must end the process: a replay must not go on without its sets."""
        if self._params.queue == "all" and self.failure is not None and self._pipeline is None:
            raise self.failure

    def close(self) -> None:
        self._deactivate()
        self._cleanup()
        self.destroy_node()
        self._state_machine.destroy_when_not_in_use()  # else its services stay until it is collected

    def on_configure(self, state) -> TransitionCallbackReturn:
        with self._interruptible():
            return self._attempt(self._configure)

    def on_activate(self, state) -> TransitionCallbackReturn:
        return self._attempt(self._activate)

    def on_deactivate(self, state) -> TransitionCallbackReturn:
        return self._attempt(self._deactivate)

    def on_cleanup(self, state) -> TransitionCallbackReturn:
        return self._attempt(self._cleanup)

    def on_shutdown(self, state) -> TransitionCallbackReturn:
        self._finalized = True
        return self._attempt(lambda: (self._deactivate(), self._cleanup()))

    def _LifecycleNodeMixin__on_change_state(self, request, response):
        """rclpy lets a transition that is impossible now end the process; here it is only refused."""
        try:
            return super()._LifecycleNodeMixin__on_change_state(request, response)
        except rclpy_implementation.RCLError as error:
            self.get_logger().warning(f"transition refused: {error}")
            response.success = False
            return response

    def _attempt(self, transition: Callable[[], object]) -> TransitionCallbackReturn:
        try:
            transition()
        except Exception as error:
            self._fail(error)
            return TransitionCallbackReturn.FAILURE
        self.failure = None
        return TransitionCallbackReturn.SUCCESS

    def _fail(self, error: Exception) -> None:
        self.failure = error
        if not isinstance(error, InputError):
            self.get_logger().error("".join(traceback.format_exception(error)))
        elif not (self._params.autostart and self._engine is None):  # the process says it itself
            self.get_logger().error(str(error))

    def _configure(self) -> None:
        given = self._params
        if given.threads:
            torch.set_num_threads(given.threads)
        tracker = self._tried(lambda: self._load(given.config, given.checkpoint, given.seed, given.device))
        config, self._camera_params = self._settings.configure(tracker.config)
        weights = chosen_weights(given.config, given.checkpoint)
        if weights is None:
            self.get_logger().warning("no checkpoint: the weights are untrained, the boxes mean nothing")
        elif not given.checkpoint:
            self.get_logger().warning("no checkpoint: the project's own weights know the synthetic world alone")
        engine = self._tried(lambda: Engine(self, tracker, config, given, self._outputs))
        if self._sessions is not None:
            engine.continue_sessions(self._sessions)
        self._outputs.configure(config)
        self._checkpoint = file_name_and_hash(weights)
        self._engine = engine

    def _tried(self, work: Callable[[], Result]) -> Result:
        """The device may be full of what others do: its memory is released, and the work tried once more."""
        return device_errors.twice(work, self._params.device, self.get_logger().warning)

    def _activate(self) -> None:
        gc.collect()  # what an earlier pipeline left behind must not be frozen below
        self._pipeline = Pipeline(
            self,
            self._params,
            self._camera_params,
            self._engine,
            self._settings.live,
            self._settings.live_sync,
            on_error=self._stop_inference,
            on_played=self._announce_played,
            on_crowded=lambda crowded: self._hold.publish(Bool(data=crowded)),
        )
        self._pipeline.enabled = self._enabled
        process.keep_what_is_here()  # the model lives as long as the node
        self._ready.publish(Bool(data=True))
        self.get_logger().info("ready")

    def _deactivate(self) -> None:
        if self._pipeline is None:
            return
        self._ready.publish(Bool(data=False))
        self._hold.publish(Bool(data=False))
        self._pipeline.close()
        self._pipeline = None

    def _cleanup(self) -> None:
        if self._engine is None:
            return
        engine, self._engine = self._engine, None
        self._sessions = engine.memory_of_sessions()
        gc.unfreeze()
        try:
            engine.close()
        except DeviceError as error:
            self.get_logger().error(f"{error}; going on without it")
        else:
            device_errors.release()

    def _stop_inference(self, error: Exception) -> None:
        """Become inactive and stay alive: the vehicle's supervisor sees why, and may activate again."""
        if self._pipeline is not None:
            self.trigger_deactivate()
        self._fail(error)

    def _announce_played(self, over: bool) -> None:
        if over:  # in the inference thread, after the last set: the final figures first
            self._diagnostics.publish()
            self._outputs.wait_for_listeners(5.0)
        self._finished.publish(Bool(data=over))

    def _reset(self, _, response: Trigger.Response) -> Trigger.Response:
        if self._engine is None:
            response.success, response.message = False, "not configured: there are no tracks"
        else:
            try:
                session, response.success = self._engine.reset("service"), True
                response.message = f"reset: session {session} begins (service)" if session else "nothing to reset yet"
            except DeviceError as error:
                self._stop_inference(error)
                response.success, response.message = False, str(error)
        return response

    def _set_enabled(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        self._enabled = request.data
        if self._pipeline is not None:
            self._pipeline.enabled = request.data
        response.success, response.message = True, "sets are processed" if request.data else "sets are ignored"
        return response

    def _problems(self) -> Mapping[str, Problem]:
        parts = (part for part in (self._pipeline, self._engine) if part is not None)
        return {reason: problem for part in parts for reason, problem in part.problems().items()}

    def _statuses(self, problems: Mapping[str, Problem], fresh: frozenset[str]) -> list[Status]:
        engine, pipeline = self._engine, self._pipeline
        without = "finalized" if self._finalized else "unconfigured"
        name = "active" if pipeline else "inactive" if engine else without
        state = [health.lifecycle_status(name, self._enabled, self.failure)]
        if engine is None:
            return state
        config, limits = engine.config, self._settings.live().params
        if pipeline is not None:
            state += pipeline.statuses(problems, fresh, limits)
        model = (config.name, self._checkpoint, self._params.device, engine.warm_up_s, config.track.step_seconds)
        return [
            *state,
            health.input_status(problems, fresh),
            health.tracker_status(engine.session, engine.record),
            health.model_status(*model, engine.record),
        ]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="tracker",
        description=__doc__,
        epilog=reference.help_text(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    return process.run(parser, lambda _, stop: spin(stop, TrackerNode), argv)


def spin(stop: process.Stop, make_node: Callable[[], TrackerNode]) -> None:
    """Run a node until `stop` is set. Raises what makes going on pointless."""
    node = make_node()
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        node.start(stop)
        while not stop.is_set():
            executor.spin_once(timeout_sec=0.1)
            node.check()
    except KeyboardInterrupt:  # while its network loaded
        pass
    finally:
        node.close()


if __name__ == "__main__":
    raise SystemExit(main())
