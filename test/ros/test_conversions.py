"""That rclpy's messages equal the bag's is shown in test/core/test_messages.py, for every type."""

import array

import pytest

pytest.importorskip("rclpy")

from syncl_core.errors import InputError
from syncl_ros import conversions


def test_bytes_arrive_as_the_array_rclpy_takes_without_a_look():
    message = conversions.make("sensor_msgs/msg/CompressedImage", format="jpeg", data=b"\x00\xff\x10")
    assert message.data == array.array("B", [0, 255, 16])


def test_fields_left_out_keep_their_defaults():
    assert conversions.make("geometry_msgs/msg/Quaternion", x=0.5).w == 1.0


@pytest.mark.parametrize("type_name", ["nobody_msgs/msg/Nothing", "std_msgs/msg/Nothing"])
def test_a_missing_message_type_is_named(type_name):
    with pytest.raises(InputError, match=type_name):
        conversions.message_class(type_name)
