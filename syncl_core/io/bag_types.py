"""Messages without ROS: plain Python objects that serialise to the bytes rclpy would send, alignment gaps zeroed."""

from functools import cache
from pathlib import Path

import numpy as np
from rosbags.interfaces import Nodetype
from rosbags.serde import SerdeError
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from syncl_core.errors import InputError

_INTERFACES = Path(__file__).parent / "interfaces"
_STORES = {
    "humble": Stores.ROS2_HUMBLE,
    "iron": Stores.ROS2_IRON,
    "jazzy": Stores.ROS2_JAZZY,
    "kilted": Stores.ROS2_KILTED,
    "lyrical": Stores.ROS2_LYRICAL,
}
_BYTE_SIZED = {"byte": "uint8", "char": "uint8"}
_NON_ZERO_DEFAULTS = {("geometry_msgs/msg/Quaternion", "w"): 1.0}  # the typestore drops defaults of the definitions


class BagTypes:
    """The message types of one ROS distribution, vision_msgs included.

    `make` has the signature every builder of `syncl_core.io.messages` expects. Type names read "package/msg/Name".
    """

    def __init__(self, distro: str = "jazzy"):
        if distro not in _STORES:
            raise InputError(f"unknown ROS distribution {distro!r}; known: {', '.join(_STORES)}")
        self.store = get_typestore(_STORES[distro])
        self.store.register(_vision_types())
        self._defaults: dict[str, dict[str, object]] = {}

    def make(self, type_name: str, **fields):
        """A message. Fields left out are zero, empty or (a quaternion) the identity; lists become numpy arrays.

        Raises TypeError for an unknown field, as the constructors of rclpy's messages do.
        """
        values = {**self._default_fields(type_name), **fields}
        kinds = dict(self.store.fielddefs[type_name][1])
        for name in kinds.keys() & fields.keys():
            values[name] = _numeric(fields[name], kinds[name])
        return self.store.types[type_name](**values)

    def serialize(self, message) -> bytes:
        """Little-endian CDR with its 4-byte header, as it travels over DDS and lies in bags."""
        return bytes(self.store.serialize_cdr(message, message.__msgtype__, little_endian=True))

    def deserialize(self, data: bytes, type_name: str):
        """The inverse of `serialize`. Raises InputError for an unknown type or bytes that are not this type."""
        if type_name not in self.store.fielddefs:
            raise InputError(f"unknown message type {type_name}")
        try:
            return self.store.deserialize_cdr(data, type_name)
        except (SerdeError, IndexError) as error:
            raise InputError(f"not a valid {type_name} ({error})") from None

    def _default_fields(self, type_name: str) -> dict[str, object]:
        """Default field values, built once per type and shared: messages are never edited after they were made."""
        if type_name not in self._defaults:
            if type_name not in self.store.fielddefs:
                raise InputError(f"unknown message type {type_name}")
            fields = self.store.fielddefs[type_name][1]
            self._defaults[type_name] = {name: self._default(type_name, name, kind) for name, kind in fields}
        return self._defaults[type_name]

    def _default(self, type_name: str, name: str, kind: tuple):
        node, detail = kind
        if node == Nodetype.NAME:
            return self.make(detail)
        if node == Nodetype.BASE:
            zero = {"string": "", "bool": False, "float32": 0.0, "float64": 0.0}.get(detail[0], 0)
            return _NON_ZERO_DEFAULTS.get((type_name, name), zero)
        (item_node, item), count = detail
        length = count if node == Nodetype.ARRAY else 0
        if item_node == Nodetype.NAME:
            return [self.make(item) for _ in range(length)]
        return [""] * length if item[0] == "string" else np.zeros(length, _dtype(item[0]))


@cache
def bag_types(distro: str = "jazzy") -> BagTypes:
    """The shared BagTypes of a distribution: definitions are parsed once per process."""
    return BagTypes(distro)


@cache
def _vision_types() -> dict:
    definitions = {}
    for path in sorted((_INTERFACES / "vision_msgs" / "msg").glob("*.msg")):
        definitions.update(get_types_from_msg(path.read_text(encoding="utf-8"), f"vision_msgs/msg/{path.stem}"))
    return definitions


def _numeric(value, kind: tuple):
    """A list, bytes or array as the numpy array the serialiser wants; any other field value unchanged."""
    node, detail = kind
    if node not in (Nodetype.ARRAY, Nodetype.SEQUENCE):
        return value
    (item_node, item), _ = detail
    if item_node != Nodetype.BASE or item[0] == "string":
        return value
    if isinstance(value, (bytes, bytearray, memoryview)):
        return np.frombuffer(value, _dtype(item[0]))
    return np.asarray(value, _dtype(item[0]))


def _dtype(base: str) -> np.dtype:
    return np.dtype(_BYTE_SIZED.get(base, base))
