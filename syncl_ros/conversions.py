"""What ROS adds to the core's messages: their rclpy classes and their quality of service."""

import array
import importlib
from collections.abc import Iterator
from functools import cache

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription

from syncl_core.errors import InputError

DEEP = 1000  # messages a queue holds where nothing may be lost; only what waits takes memory


@cache
def message_class(type_name: str) -> type:
    """The rclpy class of a type such as "sensor_msgs/msg/Image". Raises InputError naming the missing package."""
    package, _, name = type_name.partition("/msg/")
    try:
        return getattr(importlib.import_module(f"{package}.msg"), name)
    except (ImportError, AttributeError):
        raise InputError(f"message type {type_name}: not installed in this ROS environment") from None


def make(type_name: str, **fields):
    """An rclpy message: the `make` that the builders of `syncl_core.io` expect. Fields left out keep their defaults."""
    return message_class(type_name)(**{name: _native(value) for name, value in fields.items()})


def _native(value):
    """rclpy checks every byte of `bytes`, milliseconds per image; an array it takes as it is."""
    return array.array("B", value) if isinstance(value, bytes) else value


def reliable(depth: int) -> QoSProfile:
    """Nothing is lost as long as no more than `depth` messages wait."""
    return QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=depth, reliability=ReliabilityPolicy.RELIABLE)


def lossless() -> QoSProfile:
    """Nothing is lost: where a queue is full, the publisher waits or is refused. The depth means nothing here."""
    return QoSProfile(history=HistoryPolicy.KEEP_ALL, depth=1, reliability=ReliabilityPolicy.RELIABLE)


def latched(depth: int = 1) -> QoSProfile:
    """As /tf_static: who subscribes later gets the last `depth` messages too."""
    profile = reliable(depth)
    profile.durability = DurabilityPolicy.TRANSIENT_LOCAL
    return profile


def sensor_data(depth: int = 5) -> QoSProfile:
    """Best effort: accepts every publisher, loses rather than waits."""
    return QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=depth, reliability=ReliabilityPolicy.BEST_EFFORT)


def waiting(subscription: Subscription) -> Iterator[object]:
    """The messages that wait in a subscription's queue, taken out of it; at most DEEP, so that others get a turn."""
    for _ in range(DEEP):
        with subscription.handle:
            taken = subscription.handle.take_message(subscription.msg_type, subscription.raw)
        if taken is None:
            return
        yield taken[0]
