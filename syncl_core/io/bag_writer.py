"""Write a rosbag2 folder (MCAP, CDR) that `ros2 bag play`, Foxglove and BagReader open. No ROS needed."""

import os
import shutil
import tempfile
from collections.abc import Collection
from contextlib import contextmanager, suppress
from pathlib import Path

from rosbags.interfaces import Connection, Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag2 import StoragePlugin, Writer

from syncl_core.errors import InputError
from syncl_core.io.bag_types import bag_types
from syncl_core.io.topics import is_static_transforms

METADATA = 8  # QoS profiles as text: Humble reads nothing newer, and later releases still read it
_UNSET = QosTime(0, 0)


class BagWriter:
    """A bag that exists complete or not at all.

    Used as a context manager. Messages go to a temporary folder beside `path`, which is renamed when the block ends
    without an exception and removed otherwise. Topics in `latched`, to which a topic may be added before its first
    message, and every `tf_static` are recorded as transient local with depth 1, so that a player gives late joiners
    their last message. An existing bag is only replaced with
    `overwrite`.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        latched: Collection[str] = (),
        overwrite: bool = False,
    ):
        self.path = Path(path).absolute()
        self.types = bag_types()
        self.latched = set(latched)
        self.overwrite = overwrite
        self._temporary: Path | None = None
        self._writer: Writer | None = None
        self._connections: dict[str, Connection] = {}

    def __enter__(self) -> "BagWriter":
        check_target(self.path, self.overwrite)
        with self._disk_errors_named():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # The bag's own name is recorded inside it, so the temporary name is its parent's.
            self._temporary = Path(tempfile.mkdtemp(prefix=f".{self.path.name}.", dir=self.path.parent))
            self._writer = Writer(self._unfinished, version=METADATA, storage_plugin=StoragePlugin.MCAP)
            self._writer.open()
        return self

    def __exit__(self, exc_type, exc_value, traceback) -> None:
        try:
            if exc_type is None:
                with self._disk_errors_named():
                    self._writer.close()
                    self._publish()
        finally:
            with suppress(OSError):  # a full disk must not hide the first error
                self._writer.abort()
            shutil.rmtree(self._temporary, ignore_errors=True)

    def write(self, topic: str, message, t_ns: int) -> None:
        """Append a message made by `BagTypes.make` at log time `t_ns`."""
        self.write_serialized(topic, message.__msgtype__, self.types.serialize(message), t_ns)

    def write_serialized(self, topic: str, type_name: str, data: bytes, t_ns: int) -> None:
        """Append CDR bytes of a message of type "package/msg/Name" at log time `t_ns`."""
        connection = self._connections.get(topic)
        if connection is None:
            connection = self._connections[topic] = self._connect(topic, type_name)
        elif connection.msgtype != type_name:
            raise InputError(f"{topic}: holds {connection.msgtype}, cannot add a {type_name}")
        with self._disk_errors_named():
            self._writer.write(connection, int(t_ns), data)

    @property
    def _unfinished(self) -> Path:
        return self._temporary / self.path.name

    def _publish(self) -> None:
        replaced = self._temporary / "replaced"
        if self.path.exists() and self.overwrite:
            os.replace(self.path, replaced)
        try:
            os.replace(self._unfinished, self.path)
        except OSError:
            if replaced.exists():
                os.replace(replaced, self.path)
            raise

    @contextmanager
    def _disk_errors_named(self):
        try:
            yield
        except OSError as error:
            raise InputError(f"{self.path}: cannot write the bag: {error.strerror}") from None

    def _connect(self, topic: str, type_name: str) -> Connection:
        if type_name not in self.types.store.fielddefs:
            raise InputError(f"{topic}: message type {type_name} is not known, cannot record it")
        profiles = [_latched_qos()] if topic in self.latched or is_static_transforms(topic) else []
        return self._writer.add_connection(topic, type_name, typestore=self.types.store, offered_qos_profiles=profiles)


def check_target(path: Path, overwrite: bool) -> None:
    """Raises InputError if a bag cannot be written there: before the work, if it is asked before."""
    if not path.exists():
        return
    if not overwrite:
        raise InputError(f"{path}: exists already; choose another name or give --overwrite")
    if not _is_only_a_bag(path):
        raise InputError(f"{path}: is not a bag and nothing else, so it is not overwritten; choose another name")


def _is_only_a_bag(path: Path) -> bool:
    """Whether a folder holds a rosbag2 and no file besides, so that replacing it loses nothing else."""
    metadata = path / "metadata.yaml"
    if path.is_symlink() or not metadata.is_file() or "rosbag2_bagfile_information" not in metadata.read_text():
        return False
    return all(file == metadata or file.suffix in (".mcap", ".db3") for file in path.iterdir())


def _latched_qos() -> Qos:
    return Qos(
        history=QosHistory.KEEP_LAST,
        depth=1,
        reliability=QosReliability.RELIABLE,
        durability=QosDurability.TRANSIENT_LOCAL,
        deadline=_UNSET,
        lifespan=_UNSET,
        liveliness=QosLiveliness.AUTOMATIC,
        liveliness_lease_duration=_UNSET,
        avoid_ros_namespace_conventions=False,
    )
