"""Bags: written whole or not at all, read back exactly, unusable ones named in one line."""

import random
import resource
import sqlite3
from pathlib import Path

import pytest
import yaml

from syncl_core.errors import InputError
from syncl_core.io import messages
from syncl_core.io.bag_reader import BagReader
from syncl_core.io.bag_types import bag_types
from syncl_core.io.bag_writer import BagWriter

MAKE = bag_types().make


def text(value: str):
    return MAKE(messages.STRING, data=value)


def write_texts(path: Path, values=("a", "b"), **options) -> Path:
    with BagWriter(path, **options) as writer:
        for t_ns, value in enumerate(values):
            writer.write("/text", text(value), 10**18 + t_ns)
    return path


def texts(path: Path) -> list[str]:
    with BagReader(path) as reader:
        return [message.data for _, message, _ in reader.decoded(["/text"])]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> bytes:
    """The bytes of a sound MCAP file."""
    path = write_texts(tmp_path_factory.mktemp("bags") / "bag", [f"{n:0100}" for n in range(200)])
    return (path / "bag.mcap").read_bytes()


# --- writer ---


def test_written_bag_reads_back_in_order_with_types_and_times(tmp_path):
    with BagWriter(tmp_path / "bag") as writer:
        for i in (2, 0, 1):
            writer.write(f"/text{i % 2}", text(str(i)), 10**18 + i)
        writer.write_serialized("/raw", messages.STRING, bag_types().serialize(text("raw")), 10**18 + 3)
    for path in (tmp_path / "bag", tmp_path / "bag" / "bag.mcap"):
        with BagReader(path) as reader:
            assert reader.topics == dict.fromkeys(["/text0", "/text1", "/raw"], messages.STRING)
            assert reader.counts == {"/text0": 2, "/text1": 1, "/raw": 1}
            found = [(topic, message.data, t_ns - 10**18) for topic, message, t_ns in reader.decoded()]
            assert found == [("/text0", "0", 0), ("/text1", "1", 1), ("/text0", "2", 2), ("/raw", "raw", 3)]
            assert [item[0] for item in reader.messages(["/raw"])] == ["/raw"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_exception_leaves_nothing_behind(tmp_path, error):
    with pytest.raises(error), BagWriter(tmp_path / "folder" / "bag") as writer:
        writer.write("/text", text("a"), 1)
        raise error
    assert list((tmp_path / "folder").iterdir()) == []


def test_the_bag_appears_only_when_complete(tmp_path):
    with BagWriter(tmp_path / "bag") as writer:
        writer.write("/text", text("a"), 1)
        assert not (tmp_path / "bag").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["bag"]
    assert sorted(path.name for path in (tmp_path / "bag").iterdir()) == ["bag.mcap", "metadata.yaml"]


def test_only_a_bag_is_replaced_and_only_on_demand(tmp_path):
    path = write_texts(tmp_path / "bag", "old")
    with pytest.raises(InputError, match="exists already"):
        write_texts(path, "new")
    with pytest.raises(RuntimeError), BagWriter(path, overwrite=True):
        raise RuntimeError
    assert texts(path) == list("old")
    write_texts(path, "new", overwrite=True)
    assert texts(path) == list("new")
    (tmp_path / "precious").mkdir()
    with pytest.raises(InputError, match="is not a bag"):
        write_texts(tmp_path / "precious", overwrite=True)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot write the bag"):
        write_texts(tmp_path / "file" / "bag")


def test_a_full_disk_is_one_line_and_leaves_nothing_behind(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, limits[1]))
        with pytest.raises(InputError, match="bag: cannot write the bag: File too large"):
            write_texts(tmp_path / "bag", ["x" * 2**20] * 3)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


def test_types_are_checked(tmp_path):
    with BagWriter(tmp_path / "bag") as writer:
        writer.write("/text", text("a"), 1)
        with pytest.raises(InputError, match="/text: holds std_msgs/msg/String"):
            writer.write_serialized("/text", messages.TF, b"", 2)
        with pytest.raises(InputError, match="/other: message type nothing_msgs/msg/Nothing"):
            writer.write_serialized("/other", "nothing_msgs/msg/Nothing", b"", 2)
    assert texts(tmp_path / "bag") == ["a"]


def test_metadata_latches_static_transforms_in_words_that_every_release_reads(tmp_path):
    with BagWriter(tmp_path / "bag") as writer:
        writer.write("/tf_static", messages.tf_message(writer.types.make, []), 1)
        writer.write("/tf", messages.tf_message(writer.types.make, []), 2)
    info = yaml.safe_load((tmp_path / "bag" / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
    assert (info["version"], info["storage_identifier"], info["message_count"]) == (8, "mcap", 2)
    assert info["relative_file_paths"] == ["bag.mcap"]
    profiles = {t["topic_metadata"]["name"]: t["topic_metadata"]["offered_qos_profiles"] for t in topics_of(info)}
    [static] = yaml.safe_load(profiles["/tf_static"])  # Humble reads text with numbers
    assert (static["durability"], static["reliability"], static["history"], static["depth"]) == (1, 1, 1, 1)
    assert not profiles["/tf"]


def topics_of(info: dict) -> list[dict]:
    return info["topics_with_message_count"]


# --- reader ---


def fails(path: Path, topics=None) -> str:
    """The message of the InputError that reading everything raises: one line that names the bag."""
    with pytest.raises(InputError) as caught, BagReader(path) as reader:
        list(reader.decoded(topics))
    message = str(caught.value)
    assert str(path) in message and "\n" not in message
    return message


def test_missing_things_are_named(tmp_path):
    assert "no such bag" in fails(tmp_path / "nothing")
    (tmp_path / "folder").mkdir()
    assert "no metadata.yaml" in fails(tmp_path / "folder")
    (tmp_path / "notes.txt").write_text("hello")
    assert "expected a rosbag2 folder" in fails(tmp_path / "notes.txt")
    (tmp_path / "fake.mcap").write_text("hello, this is not an MCAP file at all, although it says so")
    assert "not a bag" in fails(tmp_path / "fake.mcap")
    assert "no messages" in fails(write_texts(tmp_path / "empty", ()))
    assert "no topic /images; the bag has /text" in fails(write_texts(tmp_path / "bag"), ["/images"])
    with BagReader(tmp_path / "bag") as reader, pytest.raises(InputError, match="/text holds std_msgs/msg/String, exp"):
        reader.require("/text", messages.IMAGE)


def test_truncated_files_say_so(tmp_path, whole):
    cut = tmp_path / "cut.mcap"
    for size in (0, 9, 30, 100, len(whole) // 2, len(whole) - 1):
        cut.write_bytes(whole[:size])
        assert "ends too early" in fails(cut), size


def test_recordings_of_other_systems_are_refused(tmp_path, whole):
    other = tmp_path / "other.mcap"
    other.write_bytes(whole.replace(b"\x04\0\0\0ros2", b"\x04\0\0\0ros1", 1))
    assert "not a ROS 2 bag" in fails(other)
    other.write_bytes(whole.replace(b"ros2msg", b"protobu"))
    assert "not a ROS 2 bag" in fails(other)


def test_corrupt_files_never_raise_anything_but_an_input_error(tmp_path, whole):
    randomness = random.Random(3)
    damaged, refused = tmp_path / "damaged.mcap", 0
    for _ in range(25):
        data = bytearray(whole)
        for _ in range(20):
            data[randomness.randrange(len(data) - 6000, len(data))] = randomness.randrange(256)
        damaged.write_bytes(data)
        try:
            with BagReader(damaged) as reader:
                list(reader.messages())
        except InputError as error:
            refused += 1
            assert str(damaged) in str(error) and "\n" not in str(error)
    assert refused > 0


def test_wrong_content_of_a_message_names_topic_and_file(tmp_path):
    with BagWriter(tmp_path / "bag") as writer:
        writer.write_serialized("/poses", messages.TF, b"\x00\x01\x00\x00\xff\xff\xff\x7f", 1)
    assert "/poses: " in fails(tmp_path / "bag")


def test_a_bag_brings_its_own_definitions(tmp_path):
    """A recording of another distribution, or with private messages, is read by the definitions inside it."""
    from rosbags.rosbag2 import StoragePlugin, Writer
    from rosbags.typesys import Stores, get_types_from_msg, get_typestore

    store = get_typestore(Stores.EMPTY)
    store.register(get_types_from_msg("string label\nint32 level", "house_msgs/msg/Lamp"))
    store.register(get_types_from_msg("house_msgs/Lamp[] lamps\nstring data", "std_msgs/msg/String"))
    lamp, string = store.types["house_msgs/msg/Lamp"], store.types["std_msgs/msg/String"]
    with Writer(tmp_path / "bag", version=9, storage_plugin=StoragePlugin.SQLITE3) as writer:
        connection = writer.add_connection("/text", "std_msgs/msg/String", typestore=store)
        message = string(lamps=[lamp(label="kitchen", level=3)], data="dark")
        writer.write(connection, 1, store.serialize_cdr(message, "std_msgs/msg/String"))
    with BagReader(tmp_path / "bag") as reader:
        [(_, found, _)] = reader.decoded()
    assert (found.lamps[0].label, found.lamps[0].level, found.data) == ("kitchen", 3, "dark")


def test_files_without_definitions_are_read_by_ours(tmp_path):
    """As those that Humble records."""
    from rosbags.rosbag2 import StoragePlugin, Writer

    types = bag_types("humble")
    with Writer(tmp_path / "bag", version=8, storage_plugin=StoragePlugin.SQLITE3) as writer:
        connection = writer.add_connection("/text", messages.STRING, typestore=types.store)
        writer.write(connection, 1, types.serialize(text("hello")))
    with sqlite3.connect(tmp_path / "bag" / "bag.db3") as database:
        database.execute("DELETE FROM message_definitions")
    assert texts(tmp_path / "bag") == texts(tmp_path / "bag" / "bag.db3") == ["hello"]
