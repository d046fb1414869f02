"""Life of a ROS process: signals end it cleanly, unusable input is one line and exit code 2."""

import argparse
import signal
import sys
import threading
from collections.abc import Callable, Sequence

import rclpy
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import remove_ros_args

from syncl_core.errors import InputError
from syncl_ros.environment import prepare_environment


def parse(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """The program's own arguments, and all of them for rclpy, which reads what follows --ros-args."""
    argv = list(sys.argv[1:] if argv is None else argv)
    return parser.parse_args(remove_ros_args(argv)), argv


def run(name: str, body: Callable[[threading.Event], None], argv: Sequence[str]) -> int:
    """Call `body(stop)` between rclpy's init and shutdown; SIGINT and SIGTERM set `stop`.

    rclpy's own handlers would shut the context down under a publishing thread, so they stay off.
    Returns the exit code: 0 done or stopped, 2 unusable input.
    """
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    prepare_environment()
    try:
        _init(argv)
        body(stop)
    except InputError as error:
        print(f"{name}: error: {error}", file=sys.stderr)
        return 2
    finally:
        rclpy.try_shutdown()
    return 0


def _init(argv: Sequence[str]) -> None:
    try:
        rclpy.init(args=argv, signal_handler_options=SignalHandlerOptions.NO)
    except RuntimeError as error:  # of rcl's parser: a bad --ros-args, --params-file or -p
        raise InputError(f"ROS arguments: {str(error).split(', at /')[0]}") from None
