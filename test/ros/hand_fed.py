"""The node's input side without a node: messages go straight into the callbacks."""

import threading
from collections import deque

import small_drive

from syncl_core.classes import CAMERAS
from syncl_core.config import SynclConfig
from syncl_core.io import messages
from syncl_core.io.topics import Topics, frame_of
from syncl_core.runtime.intake import Intake
from syncl_ros.conversions import make
from syncl_ros.params import CameraParams, NodeParams
from syncl_ros.sources import Sources

T_NS = small_drive.START_NS + 40_000_000
TOPICS = Topics()


class Queue:
    """A subscription with the messages that wait in it."""

    def __init__(self, kind):
        self.msg_type, self.raw, self.handle = kind, False, self
        self.messages = deque()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def take_message(self, kind, raw):
        return (self.messages.popleft(), None) if self.messages else None


class Listener:
    """Stands for the node: keeps the callbacks by topic. `remaps` and `publishers` go by topics, too."""

    def __init__(self, remaps=None):
        self.remaps = remaps or {}
        self.publishers = {}
        self.callbacks = {}
        self.events = {}
        self.queues = {}
        self.said = []

    def create_subscription(self, kind, topic, callback, qos, event_callbacks):
        self.callbacks[topic] = callback
        self.events[topic] = event_callbacks
        self.queues[topic] = Queue(kind)
        return self.queues[topic]

    def resolve_topic_name(self, topic):
        return self.remaps.get(topic, topic)

    def get_publishers_info_by_topic(self, topic):
        return self.publishers.get(topic, [])

    def get_logger(self):
        return self

    def warning(self, text, throttle_duration_sec):
        self.said.append(text)

    error = warning


class SimpleFilter:
    """One camera's input of message_filters."""

    def __init__(self):
        self.calls = []

    def registerCallback(self, call, *args):  # noqa: N802 (the package's name)
        self.calls.append((call, args))

    def signalMessage(self, *message):  # noqa: N802
        for call, args in self.calls:
            call(*message, *args)


class Synchronizer(SimpleFilter):
    """Sets with an image of every camera within the slop; as in the package, a callback runs under its lock."""

    def __init__(self, filters, slop_s, every):
        super().__init__()
        self.count, self.slop_ns, self.every = len(filters), slop_s * 1e9, every
        self.latest, self.complete, self.forwarded, self.lock = {}, 0, [], threading.Lock()
        for number, source in enumerate(filters):
            source.registerCallback(self.add, number)

    def add(self, message, number):
        assert self.lock.acquire(blocking=False), "locked for ever"
        oldest_ns = messages.stamp_ns(message) - self.slop_ns
        self.latest = {i: one for i, one in self.latest.items() if messages.stamp_ns(one) > oldest_ns}
        self.latest[number] = message
        if len(self.latest) == self.count:
            chosen = [self.latest.pop(i) for i in range(self.count)]
            if self.complete % self.every == 0:
                self.forwarded.append(chosen)
                self.signalMessage(*chosen)
            self.complete += 1
        self.lock.release()


class MessageFilters:
    """Stands for the package message_filters. Of the complete sets one in `every` goes on, the first included."""

    SimpleFilter = SimpleFilter

    def __init__(self, every=1):
        self.every = every
        self.synchronizers = []

    def ApproximateTimeSynchronizer(self, filters, queue_size, slop):  # noqa: N802
        self.synchronizers.append(Synchronizer(filters, slop, self.every))
        return self.synchronizers[-1]


class Rig:
    """A node's input side, to be fed by hand."""

    def __init__(self, config=None, cameras=None, remaps=None, **params):
        config = config or SynclConfig()
        self.listener = Listener(remaps)
        self.intake = Intake(config, lambda: 0)
        self.received = 0
        own = {camera: (cameras or {}).get(camera, CameraParams()) for camera in CAMERAS}
        self.sources = Sources(self.listener, NodeParams(**params), config, own, self.intake, self.count)
        self.sources.subscribe()

    def count(self):
        self.received += 1

    def hear(self, topic, message):
        self.listener.callbacks[topic](message)

    def hear_mounts(self):
        mounts = [(frame_of(camera), small_drive.base_from_cam(i)) for i, camera in enumerate(CAMERAS)]
        static = [messages.transform_stamped(make, 0, "base_link", child, pose) for child, pose in mounts]
        self.hear(TOPICS.tf_static, messages.tf_message(make, static))
        for camera in CAMERAS:
            info = messages.camera_info(make, T_NS, frame_of(camera), small_drive.MODEL)
            self.hear(TOPICS.camera_info_of(camera), info)

    def hear_pose(self, t_ns, pose):
        stamped = messages.transform_stamped(make, t_ns, "odom", "base_link", pose)
        self.hear(TOPICS.tf, messages.tf_message(make, [stamped]))
