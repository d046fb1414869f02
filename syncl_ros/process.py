"""Life of a ROS process: signals end it cleanly, unusable input is one line and exit code 2."""

import argparse
import contextlib
import gc
import os
import signal
import sys
from collections.abc import Callable, Sequence

import rclpy
from rclpy.exceptions import InvalidParameterTypeException, InvalidTopicNameException
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import remove_ros_args

from syncl_core.errors import InputError, one_line
from syncl_core.signal_event import SignalEvent, ending_signals
from syncl_ros.environment import prepare_environment

LARGEST_DOMAIN = 232  # beyond it DDS has no ports and ends the process


class Stop(SignalEvent):
    """Set by SIGINT, SIGTERM and SIGHUP."""

    def __init__(self) -> None:
        super().__init__()
        self._at_once = False

    @contextlib.contextmanager
    def at_once(self):
        """What is done inside may take long and can be left anywhere: a signal raises KeyboardInterrupt there."""
        self._at_once = True
        try:
            if self.is_set():
                raise KeyboardInterrupt
            yield
        finally:
            self._at_once = False

    def handle(self, *_) -> None:
        """The signals' handler."""
        self.set()
        if self._at_once:
            self._at_once = False  # what cleans up is not interrupted again
            raise KeyboardInterrupt


def keep_what_is_here() -> None:
    """Tell the garbage collector that the objects of now live as long as the process, so it need not walk them.

    CPython begins a full collection only when a quarter as many objects are new as it counted in the last one. So it
    has to count once more without the frozen ones; otherwise garbage piles up, for hours.
    """
    gc.freeze()
    gc.collect()


def run(
    parser: argparse.ArgumentParser,
    body: Callable[[argparse.Namespace, Stop], None],
    argv: Sequence[str] | None,
) -> int:
    """Call `body(arguments, stop)` between rclpy's init and shutdown; SIGINT, SIGTERM and SIGHUP set `stop`.

    `parser` sees what rclpy leaves of `argv`: not what follows --ros-args. rclpy's own signal handlers would shut the
    context down under a publishing thread, so they stay off. Returns the exit code: 0 done or stopped, 2 unusable
    input, 130 if `body` raises KeyboardInterrupt because it was stopped too early to have a result.
    """
    stop = Stop()
    for number in ending_signals():
        signal.signal(number, stop.handle)
    prepare_environment()
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        with ros_arguments_checked():
            own = remove_ros_args(argv)
        args = parser.parse_args(own)
        domain = os.environ.get("ROS_DOMAIN_ID", "") or "0"
        if not domain.isdecimal() or int(domain) > LARGEST_DOMAIN:
            raise InputError(f"ROS_DOMAIN_ID {domain}: expected 0 to {LARGEST_DOMAIN}")
        with ros_arguments_checked():
            rclpy.init(args=argv, signal_handler_options=SignalHandlerOptions.NO)
        body(args, stop)
    except (InputError, InvalidParameterTypeException, InvalidTopicNameException) as error:
        print(f"{parser.prog}: error: {one_line(error)}", file=sys.stderr)
        return 2
    except OSError as error:  # a name that is too long, a disk that fails
        print(f"{parser.prog}: error: {error.filename or 'system'}: {error.strerror or error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{parser.prog}: interrupted", file=sys.stderr)
        return 130
    finally:
        rclpy.try_shutdown()
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # ros2 launch repeats it, and Python's own end takes a while
    return 0


@contextlib.contextmanager
def ros_arguments_checked():
    """Raises InputError, one line, for arguments that ROS does not understand."""
    try:
        yield
    except RuntimeError as error:  # of rcl's parser: a bad --params-file, -p or -r
        raise InputError(f"ROS arguments: {str(error).split(', at /')[0]}") from None
