"""`python -m syncl_ros.player BAG`: a rosbag onto DDS, byte for byte, without rosbag2.

Messages go from the file straight to `publish`, at their recorded distances on the wall clock. It begins when the
listeners are there and says when everything has been delivered, so that a replay loses nothing at either end.
Nothing is lost in between: it pauses while a listener says so (`--hold`), and where a queue is full it tries again.
"""

import argparse
import threading
import time
from collections.abc import Sequence

from rclpy.duration import Duration
from rclpy.executors import SingleThreadedExecutor
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.node import Node
from rclpy.publisher import Publisher
from rosgraph_msgs.msg import Clock
from std_msgs.msg import Bool

from syncl_core.errors import InputError
from syncl_core.io import messages
from syncl_core.io.bag_reader import BagReader
from syncl_ros import conversions, process

EXAMPLES = """examples:
  python -m syncl_ros.player out/scene --clock 100 --wait-for /tracker/ready
  python -m syncl_ros.player out/scene --rate 0.5 --start-offset 3 --loop
"""
ACK_SECONDS = 5.0  # without an acknowledgement, after which that is said


class Player(Node):
    """Publishes a bag. `/player/finished` (latched Bool) turns true when every message has been acknowledged."""

    def __init__(self, reader: BagReader, topics: list[str], left_out: Sequence[str] = ()):
        """Without `topics`, all but those that begin with one of `left_out`."""
        super().__init__("player")
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self)
        self._reader = reader
        self._clock_publisher = self.create_publisher(Clock, "/clock", conversions.reliable(1))
        self._finished = self.create_publisher(Bool, "~/finished", conversions.latched())
        self._finished.publish(Bool(data=False))
        self._bag_publishers: dict[str, Publisher] = {}
        self._holding: set[str] = set()
        ours = [] if topics else [topic for topic in reader.topics if topic.startswith(tuple(left_out))]
        if ours:
            self.get_logger().warning(f"not played, as they are made anew: {', '.join(sorted(ours))}")
        for topic in topics or (topic for topic in reader.topics if topic not in ours):
            self._advertise(topic, required=bool(topics))

    def _advertise(self, topic: str, required: bool) -> None:
        try:
            kind = conversions.message_class(self._reader.require(topic))
        except InputError as error:
            if required:
                raise
            self.get_logger().warning(f"{topic} is not played: {error}")
            return
        profile = conversions.latched(conversions.DEEP) if topic in self._reader.latched else conversions.lossless()
        self._bag_publishers[topic] = self.create_publisher(kind, topic, profile)

    def hold_for(self, topics: list[str]) -> None:
        """From now on, pause while the std_msgs/Bool on one of the topics is true."""

        def heard(topic: str, message: Bool) -> None:
            self._holding.add(topic) if message.data else self._holding.discard(topic)

        for topic in topics:
            self.create_subscription(Bool, topic, lambda m, t=topic: heard(t, m), conversions.latched())

    def wait_until_true(self, topics: list[str], timeout_s: float, stop: threading.Event) -> None:
        """Wait for a true std_msgs/Bool on every topic. Raises InputError naming the silent one."""
        waiting = set(topics)

        def heard(topic: str, message: Bool) -> None:
            if message.data:
                waiting.discard(topic)

        for topic in topics:
            self.create_subscription(Bool, topic, lambda m, t=topic: heard(t, m), conversions.latched())
        give_up = time.monotonic() + timeout_s
        while waiting and not stop.is_set():
            self._executor.spin_once(timeout_sec=0.1)
            if time.monotonic() > give_up:
                raise InputError(f"nobody said true on {', '.join(sorted(waiting))} within {timeout_s:g} s")

    def wait_until_matched(self, stop: threading.Event, timeout_s: float = 5.0) -> None:
        """Wait until every subscription in the graph is matched with our publisher; a volatile one would lose."""
        give_up = time.monotonic() + timeout_s
        while unmatched := self._unmatched_topics():
            if stop.wait(0.02):
                return
            if time.monotonic() > give_up:
                self.get_logger().warning(f"subscriptions not matched (QoS?): {', '.join(unmatched)}")
                return

    def _unmatched_topics(self) -> list[str]:
        return [
            topic
            for topic, publisher in self._bag_publishers.items()
            if publisher.get_subscription_count() < self.count_subscribers(topic)
        ]

    def play(self, rate: float, clock_hz: float, stop: threading.Event, start_offset_s: float = 0.0) -> int:
        """Publish the bag once, at `rate` times its own pace. Returns the number of messages.

        Of what lies before `start_offset_s`, latched messages alone are published, at once.
        """
        count, start_ns, next_clock_ns, begin_s = 0, None, 0, 0.0

        def wait_until(t_ns: int) -> bool:
            return stop.wait(max(0.0, begin_s + (t_ns - start_ns) * 1e-9 / rate - time.monotonic()))

        for topic, _, t_ns, data in self._reader.messages(self._bag_publishers):
            if start_ns is None:
                start_ns = next_clock_ns = t_ns + round(1e9 * start_offset_s)
                begin_s = time.monotonic()
            if t_ns < start_ns and topic not in self._reader.latched:
                if stop.is_set():
                    break
                begin_s = time.monotonic()  # what is skipped takes no time of the recording
                continue
            begin_s += self._pause(stop)
            while clock_hz and next_clock_ns <= t_ns:
                wait_until(next_clock_ns)
                self._clock_publisher.publish(Clock(clock=messages.time_from_ns(conversions.make, next_clock_ns)))
                next_clock_ns += round(1e9 * rate / clock_hz)
            if wait_until(t_ns):
                break
            begin_s += self._publish(topic, bytes(data), stop)
            count += 1
        return count

    def _pause(self, stop: threading.Event) -> float:
        """Wait while a listener holds. Returns the seconds it took."""
        began_s = time.monotonic()
        self._executor.spin_once(timeout_sec=0)
        if not self._holding:
            return 0.0
        while self._holding and not stop.is_set():
            self._executor.spin_once(timeout_sec=0.1)
            self._holding = {topic for topic in self._holding if self.count_publishers(topic)}  # it may have ended
        return time.monotonic() - began_s

    def _publish(self, topic: str, data: bytes, stop: threading.Event) -> float:
        """Publish, again and again while the queues between here and a listener are full. Returns the seconds."""
        began_s, tries = time.monotonic(), 0
        while not stop.is_set():
            try:
                self._bag_publishers[topic].publish(data)
                break
            except rclpy_implementation.RCLError as error:
                tries += 1
                if not tries % 20:
                    self.get_logger().warning(f"{topic}: held up, a listener does not keep up ({error})")
                stop.wait(0.05)
        return time.monotonic() - began_s if tries else 0.0

    def finish(self, stop: threading.Event) -> None:
        """Wait until all listeners have everything, then say so."""
        for topic, publisher in self._bag_publishers.items():
            while not stop.is_set() and not publisher.wait_for_all_acked(Duration(seconds=ACK_SECONDS)):
                self.get_logger().warning(f"{topic}: waiting for a listener to take every message")
        if not stop.is_set():
            self._finished.publish(Bool(data=True))
            self._finished.wait_for_all_acked(Duration(seconds=1.0))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="player", description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bag", help="rosbag2 folder, .mcap or .db3 file")
    parser.add_argument("--rate", type=float, default=1.0, help="speed, 1 = as recorded (default)")
    parser.add_argument(
        "--start-offset", type=float, default=0.0, metavar="S", help="skip so long, but not what is latched"
    )
    parser.add_argument("--clock", type=float, default=0.0, metavar="HZ", help="publish /clock so often (default: not)")
    parser.add_argument("--topics", nargs="+", default=[], help="play only these")
    parser.add_argument("--wait-for", nargs="+", default=[], metavar="TOPIC", help="begin once these Bools are true")
    parser.add_argument("--wait-timeout", type=float, default=120.0, metavar="S", help="give up waiting (default: 120)")
    parser.add_argument(
        "--hold", nargs="*", default=["/tracker/hold"], metavar="TOPIC", help="pause while one of these Bools is true"
    )
    parser.add_argument("--loop", action="store_true", help="start again at the end, until interrupted")
    return process.run(parser, _play, argv)


def made_anew(args: argparse.Namespace) -> list[str]:
    """How topics begin that a bag recorded on the road may hold, and that this replay makes itself."""
    nodes = {topic.rsplit("/", 1)[0] for topic in (*args.hold, *args.wait_for)} - {""}  # of "/hold" nobody's
    return [*(f"{node}/" for node in sorted(nodes)), "/player/", *(["/clock"] if args.clock else [])]


def _play(args: argparse.Namespace, stop: threading.Event) -> None:
    if not (0.001 <= args.rate <= 1000 and (args.clock == 0 or 0.001 <= args.clock <= 10000)):
        raise InputError(
            f"--rate {args.rate:g}, --clock {args.clock:g}: expected a rate within 0.001 and 1000, "
            "a clock of 0 or within 0.001 and 10000"
        )
    with BagReader(args.bag) as reader:
        if args.start_offset and not 0 < args.start_offset < reader.duration_s:
            raise InputError(f"--start-offset {args.start_offset:g}: the bag is {reader.duration_s:.1f} s long")
        player = Player(reader, args.topics, left_out=made_anew(args))
        player.hold_for(args.hold)
        player.wait_until_true(args.wait_for, args.wait_timeout, stop)
        if stop.is_set():
            return
        player.wait_until_matched(stop)
        player.get_logger().info(f"playing {args.bag} at rate {args.rate:g}")
        while not stop.is_set():
            begin = time.monotonic()
            count = player.play(args.rate, args.clock, stop, args.start_offset)
            player.get_logger().info(f"played {count} messages in {time.monotonic() - begin:.1f} s")
            if not args.loop:
                break
        player.finish(stop)


if __name__ == "__main__":
    raise SystemExit(main())
