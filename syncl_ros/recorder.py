"""`python -m syncl_ros.recorder -o BAG`: topics into a rosbag, byte for byte, without rosbag2.

It ends by itself, with what it has, before the disk is full.
"""

import argparse
import math
import shutil
import struct
import threading
import time

from rclpy.clock import Clock, ClockType
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.validate_topic_name import validate_topic_name
from std_msgs.msg import Bool

from syncl_core.errors import InputError
from syncl_core.io.bag_writer import BagWriter
from syncl_ros import conversions, process

EXAMPLES = """examples:
  python -m syncl_ros.recorder -o out/tracks --topics /tracker/tracks /tracker/markers --until /tracker/finished
  python -m syncl_ros.recorder -o out/everything --all
"""
DISCOVERY_SECONDS = 0.1  # how often the graph is searched for topics to record
SPARE_BYTES = 64 * 2**20  # that stay free on the disk: a recording that ends before it is full loses nothing
DRAIN_SECONDS = 0.3  # without messages, after which nothing is on the way any more
_FULL = f"the disk is full, less than {SPARE_BYTES >> 20} MB are left"


class Recorder(Node):
    """Writes topics as they appear; `topics` empty = all of them.

    The subscriptions ask for what the publishers offer. `~/ready` (latched Bool) turns true when every one of `topics`
    is connected. Messages are logged at the time of their arrival, or with `header_time` at their own stamps.
    """

    def __init__(self, writer: BagWriter, topics: list[str], header_time: bool):
        super().__init__("recorder")
        self.counts: dict[str, int] = {}
        self._quiet_since_s: float | None = None  # steady time of the latest message; None = nothing came yet
        self._writer = writer
        for topic in topics:
            validate_topic_name(topic)
        self._wanted = frozenset(map(self.resolve_topic_name, topics))
        self._ignored = {"/rosout", "/parameter_events", f"{self.get_fully_qualified_name()}/ready"}
        self._header_time = header_time
        self._stamp_times = StampTimes()
        self._ready = self.create_publisher(Bool, "~/ready", conversions.latched())
        self._discovery = self.create_timer(
            DISCOVERY_SECONDS, self.discover, clock=Clock(clock_type=ClockType.STEADY_TIME)
        )

    def stir(self) -> None:
        """Something came: silence is counted from here."""
        self._quiet_since_s = time.monotonic()

    def quiet_s(self) -> float:
        """Seconds since the latest message; 0 before the first."""
        return 0.0 if self._quiet_since_s is None else time.monotonic() - self._quiet_since_s

    def discover(self) -> None:
        """Subscribe to wanted topics that have a publisher by now."""
        for topic, type_names in self.get_topic_names_and_types():
            wanted = topic in self._wanted if self._wanted else topic not in self._ignored
            if wanted and topic not in self.counts and self.count_publishers(topic):
                self._subscribe(topic, type_names[0])
        if self._wanted and self.counts.keys() >= self._wanted:
            self._ready.publish(Bool(data=True))
            self._discovery.cancel()

    def _subscribe(self, topic: str, type_name: str) -> None:
        try:
            kind = self._message_class(topic, type_name)
        except InputError as error:
            if self._wanted:
                raise
            self._ignored.add(topic)
            self.get_logger().warning(f"not recorded: {error}")
            return
        offset = _stamp_offset(kind)

        def callback(data: bytes) -> None:
            self.counts[topic] += 1
            self.stir()
            self._writer.write_serialized(topic, type_name, data, self._log_time_ns(topic, data, offset))

        self.counts[topic], qos = 0, self._offered_qos(topic)
        if qos.durability == DurabilityPolicy.TRANSIENT_LOCAL:
            self._writer.latched.add(topic)
        self.create_subscription(kind, topic, callback, qos, raw=True)

    def _message_class(self, topic: str, type_name: str) -> type:
        if type_name not in self._writer.types.store.fielddefs:
            raise InputError(f"{topic}: message type {type_name} is not known to the bag writer")
        return conversions.message_class(type_name)

    def _log_time_ns(self, topic: str, data: bytes, stamp_offset: int | None) -> int:
        now_ns = self.get_clock().now().nanoseconds  # 0 with use_sim_time until /clock runs
        if now_ns and not self._header_time:
            return now_ns
        return self._stamp_times.log_time_ns(topic, None if stamp_offset is None else _stamp_ns(data, stamp_offset))

    def _offered_qos(self, topic: str) -> QoSProfile:
        offers = [info.qos_profile for info in self.get_publishers_info_by_topic(topic)]
        profile = conversions.lossless()
        if any(offer.reliability == ReliabilityPolicy.BEST_EFFORT for offer in offers):
            profile.reliability = ReliabilityPolicy.BEST_EFFORT
        if offers and all(offer.durability == DurabilityPolicy.TRANSIENT_LOCAL for offer in offers):
            profile.durability = DurabilityPolicy.TRANSIENT_LOCAL
        return profile


class StampTimes:
    """Log times of messages that are logged at their stamps.

    One without a stamp takes the newest of its own topic, so that it does not pass the next, and before there is one
    the newest of all.
    """

    def __init__(self):
        self._newest_ns: dict[str, int] = {}

    def log_time_ns(self, topic: str, stamp_ns: int | None) -> int:
        """When to log the next message of `topic`; `stamp_ns` None = it has no stamp."""
        newest = self._newest_ns
        if stamp_ns is None:
            return newest.get(topic, max(newest.values(), default=0))
        newest[topic] = max(newest.get(topic, 0), stamp_ns)
        return stamp_ns


def _stamp_offset(kind: type) -> int | None:
    """Where the first stamp lies in the CDR bytes of a message class; None = it has none at its beginning."""
    first = next(iter(kind.get_fields_and_field_types().values()), "")
    if first in ("std_msgs/Header", "builtin_interfaces/Time"):
        return 4  # after the encapsulation header
    if first.startswith("sequence<") and "/" in first:
        package, name = first[len("sequence<") : -1].split(",")[0].split("/")
        if _stamp_offset(conversions.message_class(f"{package}/msg/{name}")) == 4:
            return 8  # after the length
    return None


def _stamp_ns(data: bytes, offset: int) -> int | None:
    """The stamp at `offset` of CDR bytes; None = the sequence that would hold it is empty."""
    order = "<" if data[1] & 1 else ">"
    if offset == 8 and struct.unpack_from(f"{order}I", data, 4) == (0,):
        return None
    seconds, nanoseconds = struct.unpack_from(f"{order}iI", data, offset)
    return seconds * 10**9 + nanoseconds


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="recorder", description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-o", "--output", required=True, metavar="BAG", help="rosbag2 folder to write")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--topics", nargs="+", default=[], help="record these")
    what.add_argument("--all", action="store_true", help="record every topic")
    parser.add_argument("--until", metavar="TOPIC", help="stop when this std_msgs/Bool topic turns true")
    parser.add_argument("--until-idle", type=float, metavar="S", help="stop after so long without a message")
    parser.add_argument("--header-time", action="store_true", help="log messages at their own stamps")
    parser.add_argument("--whole", action="store_true", help="write no bag if interrupted before the end")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing bag")
    return process.run(parser, _record, argv)


def _record(args: argparse.Namespace, stop: threading.Event) -> None:
    full = False
    with BagWriter(args.output, overwrite=args.overwrite) as writer:
        node = Recorder(writer, args.topics, args.header_time)
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        over = _subscribe_until(node, args.until)
        patience_s = args.until_idle or math.inf
        while not stop.is_set() and node.quiet_s() < (DRAIN_SECONDS if over.is_set() else patience_s):
            executor.spin_once(timeout_sec=0.1)
            if full := shutil.disk_usage(writer.path.parent).free < SPARE_BYTES:
                break
        node.destroy_node()
        if full and (args.whole or not any(node.counts.values())):
            raise InputError(f"{args.output}: {_FULL}, nothing is recorded")
        if stop.is_set() and (args.whole or not any(node.counts.values())):
            raise KeyboardInterrupt  # the bag vanishes
        if not sum(node.counts.values()):
            raise InputError(f"{args.output}: nothing was received on {', '.join(args.topics) or 'any topic'}")
    total = ", ".join(f"{count} on {topic}" for topic, count in node.counts.items())
    print(f"{args.output}: recorded {total}")
    if full:
        raise InputError(f"{args.output}: {_FULL}; what came until then is recorded")


def _subscribe_until(node: Recorder, topic: str | None) -> threading.Event:
    """Set while the Bool `topic` is true; messages then on the way still count as not quiet."""
    over = threading.Event()

    def heard(message: Bool) -> None:
        node.stir()
        over.set() if message.data else over.clear()

    if topic:
        node.create_subscription(Bool, topic, heard, conversions.latched())
    return over


if __name__ == "__main__":
    raise SystemExit(main())
