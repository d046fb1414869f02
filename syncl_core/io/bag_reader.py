"""Read any rosbag2 - a folder, or one .mcap or .db3 file - without ROS."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from rosbags.interfaces import Connection, MessageDefinitionFormat, QosDurability
from rosbags.rosbag2 import Reader
from rosbags.typesys import Stores, get_types_from_idl, get_types_from_msg, get_typestore

from syncl_core.errors import InputError, one_line
from syncl_core.io import messages
from syncl_core.io.bag_types import bag_types
from syncl_core.io.topics import is_static_transforms
from syncl_core.types import ObjectSet


class BagReader:
    """An open bag; used as a context manager. Every failure is an InputError that names the file.

    `topics` maps each topic to its type "package/msg/Name"; `counts` to its number of messages; `latched` are those
    that were offered as transient local, and every tf_static; `duration_s` is the time from the first to the last
    message.
    """

    def __init__(self, path: str | Path, distro: str = "jazzy"):
        self.path = Path(path)
        self.topics: dict[str, str] = {}
        self.counts: dict[str, int] = {}
        self.latched: set[str] = set()
        self.duration_s = 0.0
        self._fallback = bag_types(distro).store  # for files without definitions, such as Humble's .db3
        self._store = get_typestore(Stores.EMPTY)
        self._reader: Reader | None = None

    def __enter__(self) -> "BagReader":
        if not self.path.exists():
            raise InputError(f"{self.path}: no such bag")
        with self._failures_named():
            self._reader = Reader(self.path)
            self._reader.open()
            self.duration_s = self._reader.duration * 1e-9
            for connection in self._reader.connections:
                self.topics[connection.topic] = connection.msgtype
                self.counts[connection.topic] = self.counts.get(connection.topic, 0) + connection.msgcount
                durabilities = {profile.durability for profile in connection.ext.offered_qos_profiles}
                if QosDurability.TRANSIENT_LOCAL in durabilities or is_static_transforms(connection.topic):
                    self.latched.add(connection.topic)
        if not sum(self.counts.values()):
            self._reader.close()
            raise InputError(f"{self.path}: the bag holds no messages")
        return self

    def __exit__(self, exc_type, exc_value, traceback) -> None:
        self._reader.close()

    def require(self, topic: str, *type_names: str) -> str:
        """The type of `topic`. Raises InputError if the bag lacks it or it has none of `type_names`."""
        if topic not in self.topics:
            raise InputError(f"{self.path}: no topic {topic}; the bag has {', '.join(sorted(self.topics))}")
        found = self.topics[topic]
        if type_names and found not in type_names:
            raise InputError(f"{self.path}: {topic} holds {found}, expected {' or '.join(type_names)}")
        return found

    def messages(self, topics: Collection[str] | None = None) -> Iterator[tuple[str, str, int, bytes]]:
        """(topic, type, log time in ns, CDR bytes) in log order, of `topics` or of all. A named topic must exist."""
        for topic in topics or ():
            self.require(topic)
        wanted = [c for c in self._reader.connections if topics is None or c.topic in topics]
        if not wanted:
            return
        stream = self._reader.messages(wanted)
        while True:
            with self._failures_named():
                item = next(stream, None)
            if item is None:
                return
            connection, t_ns, data = item
            yield connection.topic, connection.msgtype, t_ns, data

    def decoded(self, topics: Collection[str] | None = None) -> Iterator[tuple[str, object, int]]:
        """(topic, message, log time in ns) in log order; fields are read with `syncl_core.io.messages`."""
        for topic, type_name, t_ns, data in self.messages(topics):
            yield topic, self.deserialize(topic, type_name, data), t_ns

    def deserialize(self, topic: str, type_name: str, data: bytes):
        """The message in `data`, by the bag's own definition of the type where it carries one."""
        with self._failures_named(f"{topic}: "):
            self._learn(type_name)
            return self._store.deserialize_cdr(data, type_name)

    def object_sets(self, topic: str) -> list[ObjectSet]:
        """All tracks, detections or ground truth of a Detection3DArray topic, in log order."""
        self.require(topic, messages.DETECTIONS)
        return [messages.object_set_from(message) for _, message, _ in self.decoded([topic])]

    def _learn(self, type_name: str) -> None:
        """Put a type and what it nests into the store, on first use: a vehicle's bag has hundreds of others."""
        if type_name in self._store.fielddefs:
            return
        definitions = next(
            (_parse(c) for c in self._reader.connections if c.msgtype == type_name and c.msgdef.data), None
        )
        if definitions is None:
            if type_name not in self._fallback.fielddefs:
                raise InputError(f"{self.path}: the bag does not define its type {type_name}")
            definitions = self._fallback.fielddefs
        known = self._store.fielddefs
        self._store.register({name: value for name, value in definitions.items() if name not in known})

    @contextmanager
    def _failures_named(self, where: str = ""):
        """Name the file in every failure of the library, which raises whatever a corrupt file makes its parser hit."""
        try:
            yield
        except InputError:
            raise
        except Exception as error:
            raise InputError(f"{self.path}: {where}{_reason(self.path, error)}") from None


def _parse(connection: Connection) -> dict:
    text = connection.msgdef.data
    if connection.msgdef.format == MessageDefinitionFormat.MSG:
        return get_types_from_msg(text, connection.msgtype)
    definitions = {}
    separator = "=" * 80 + "\n"
    for part in text.split(separator):
        idl = part.split("\n", 1)[1] if part.startswith("IDL: ") else part
        if idl.strip():
            definitions.update(get_types_from_idl(idl))
    return definitions


def _reason(path: Path, error: Exception) -> str:
    text = one_line(error) or type(error).__name__
    if isinstance(error, FileNotFoundError) and path.is_dir():
        return "no metadata.yaml in this folder; give a rosbag2 folder or the .mcap file itself"
    if any(sign in text for sign in ("end magic", "Truncated record", "ord() expected", "seems to be empty")):
        return "the file ends too early (interrupted recording or copy?); `mcap recover` may save what is there"
    if "Profile is not ros2" in text or isinstance(error, KeyError):  # of a schema encoding such as 'protobuf'
        return "not a ROS 2 bag: its messages are not CDR; `syncl bag` writes one from nuScenes data"
    if "Unrecognized storage" in text or "File magic" in text:
        return "not a bag; expected a rosbag2 folder, a .mcap or a .db3 file"
    return f"unreadable or corrupt bag ({text})"
