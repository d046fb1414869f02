"""Messages: one definition for bags and for rclpy, and parsers that undo the builders."""

import os
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from syncl_core import geometry, images
from syncl_core.errors import InputError
from syncl_core.io import messages
from syncl_core.io.bag_types import BagTypes, bag_types
from syncl_core.io.markers import MarkerBuilder, MarkerOptions
from syncl_core.types import CameraModel, ObjectSet, RawImage

TYPES = bag_types()
T_NS = 1_533_151_603_547_590_123
MODEL = CameraModel(width=1600, height=900, intrinsics=np.array([[1266.4, 0, 816.3], [0, 1266.4, 491.5], [0, 0, 1.0]]))


def random_transform(rng) -> np.ndarray:
    return geometry.transform(rng.uniform(-1e3, 1e3, 3), rng.normal(size=4))


def random_objects(rng, count: int = 5) -> ObjectSet:
    quaternions = rng.normal(size=(count, 4))
    return ObjectSet(
        t_ns=T_NS,
        ids=tuple(f"0badcafe-{n}" for n in range(count)),
        labels=tuple(rng.choice(["car", "pedestrian"], count).tolist()),
        scores=rng.uniform(size=count),
        centers=rng.uniform(-1e3, 1e3, (count, 3)),
        sizes=rng.uniform(0.3, 12, (count, 3)),
        rotations=quaternions / np.linalg.norm(quaternions, axis=1, keepdims=True),
        velocities=rng.uniform(-10, 10, (count, 2)),
    )


def every_message(make) -> dict[str, object]:
    """One message of every builder, with the same content for every `make`."""
    rng = np.random.default_rng(7)
    pose, objects = random_transform(rng), random_objects(rng)
    builders = {style: MarkerBuilder(MarkerOptions(box_style=style)) for style in ("lines", "cubes")}
    for builder in builders.values():
        builder.build(objects, "odom", make)
    nobody = ObjectSet(
        **{name: getattr(random_objects(rng, 0), name) for name in ObjectSet.__dataclass_fields__ if name != "t_ns"},
        t_ns=T_NS + 10**9,
    )
    image = RawImage(encoding="jpeg", data=bytes(range(251)))
    static = messages.transform_stamped(make, T_NS, "base_link", "cam_front", pose)
    return {
        messages.COMPRESSED_IMAGE: messages.compressed_image(make, T_NS, "cam_front", image),
        messages.CAMERA_INFO: messages.camera_info(make, T_NS, "cam_front", MODEL),
        messages.TF: messages.tf_message(make, [static, static]),
        messages.ODOMETRY: messages.odometry(make, T_NS, "odom", "base_link", pose),
        messages.DETECTIONS: messages.detection3d_array(make, objects, "odom"),
        messages.DETECTIONS + " empty": messages.detection3d_array(make, nobody, "odom"),
        messages.STRING: messages.sample_record(make, "scene-0103", "3e8750f331d7499e9b5123e9eb70f2e2", T_NS),
        messages.MARKERS + " lines": builders["lines"].build(objects, "odom", make),
        messages.MARKERS + " cubes": builders["cubes"].build(objects, "odom", make),
        messages.MARKERS + " removal": builders["cubes"].build(nobody, "odom", make),
    }


def test_bytes_equal_those_of_rclpy_but_for_alignment_gaps():
    os.environ.setdefault("AMENT_PREFIX_PATH", sys.prefix)
    serialization = pytest.importorskip("rclpy.serialization")
    conversions = pytest.importorskip("syncl_ros.conversions")
    ours, theirs = every_message(TYPES.make), every_message(conversions.make)
    for name in ours:
        type_name = ours[name].__msgtype__
        sent, written = serialization.serialize_message(theirs[name]), TYPES.serialize(ours[name])
        read = serialization.deserialize_message(written, type(theirs[name]))
        assert str(read) == str(serialization.deserialize_message(sent, type(theirs[name]))), name
        # rclpy leaves alignment gaps as it finds them: random bytes, which a round trip through our types zeroes.
        assert len(sent) == len(written), name
        assert TYPES.serialize(TYPES.deserialize(sent, type_name)) == written, name


@pytest.mark.parametrize("distro", ["humble", "jazzy", "lyrical"])
def test_every_message_survives_serialisation_in_every_distribution(distro):
    types = BagTypes(distro)
    for name, message in every_message(types.make).items():
        data = types.serialize(message)
        assert types.serialize(types.deserialize(data, message.__msgtype__)) == data, name


def test_make_fills_what_is_left_out_and_rejects_what_does_not_exist():
    marker = TYPES.make("visualization_msgs/msg/Marker", id=3)
    assert (marker.id, marker.ns, marker.points, marker.header.stamp.sec) == (3, "", [], 0)
    assert marker.pose.orientation.w == 1.0  # the definition's default, as rclpy fills it
    assert TYPES.make(messages.ODOMETRY).pose.covariance.shape == (36,)
    with pytest.raises(TypeError, match="colour"):
        TYPES.make("visualization_msgs/msg/Marker", colour=1)
    with pytest.raises(InputError, match="nothing_msgs/msg/Nothing"):
        TYPES.make("nothing_msgs/msg/Nothing")
    with pytest.raises(InputError, match="gutsy"):
        BagTypes("gutsy")


def test_wrong_bytes_are_an_input_error():
    data = TYPES.serialize(every_message(TYPES.make)[messages.DETECTIONS])
    for wrong in (b"", b"\x00", data[: len(data) // 2], data[:4]):
        with pytest.raises(InputError, match="Detection3DArray"):
            TYPES.deserialize(wrong, messages.DETECTIONS)


def test_object_set_round_trip_is_exact():
    objects = random_objects(np.random.default_rng(3), 20)
    message = messages.detection3d_array(TYPES.make, objects, "odom")
    back = messages.object_set_from(TYPES.deserialize(TYPES.serialize(message), messages.DETECTIONS))
    assert (back.t_ns, back.ids, back.labels) == (objects.t_ns, objects.ids, objects.labels)
    for name in ("scores", "centers", "sizes", "rotations"):
        np.testing.assert_array_equal(getattr(back, name), getattr(objects, name))
    assert np.isnan(back.velocities).all()
    assert {(d.header.frame_id, messages.stamp_ns(d)) for d in message.detections} == {("odom", T_NS)}


def test_transform_and_odometry_round_trip():
    rng = np.random.default_rng(5)
    for _ in range(20):
        pose = random_transform(rng)
        stamped = messages.transform_stamped(TYPES.make, T_NS, "/odom", "base_link", pose)
        [(parent, child, t_ns, matrix)] = messages.transforms_from(messages.tf_message(TYPES.make, [stamped]))
        assert (parent, child, t_ns) == ("odom", "base_link", T_NS)
        np.testing.assert_allclose(matrix, pose, atol=1e-12)
        odometry = messages.odometry(TYPES.make, T_NS, "odom", "base_link", pose)
        np.testing.assert_allclose(messages.pose_from(odometry), pose, atol=1e-12)


def test_unusable_transforms_name_their_frames():
    good = messages.transform_stamped(TYPES.make, T_NS, "odom", "base_link", np.eye(4))
    good.transform.translation = messages.vector3(TYPES.make, (0, np.nan, 0))
    with pytest.raises(InputError, match="odom -> base_link"):
        messages.transforms_from(messages.tf_message(TYPES.make, [good]))
    odometry = messages.odometry(TYPES.make, T_NS, "odom", "base_link", np.eye(4))
    odometry.pose.pose.orientation = messages.quaternion(TYPES.make, (0, 0, 0, 0))
    with pytest.raises(InputError, match="base_link"):
        messages.pose_from(odometry)


@pytest.mark.parametrize("t_ns", [0, 1, 10**9 - 1, 10**9, T_NS])
def test_time_round_trip(t_ns):
    assert messages.stamp_ns(SimpleNamespace(header=messages.header(TYPES.make, t_ns, "odom"))) == t_ns


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("jpeg", "jpeg"),
        ("jpg", "jpeg"),
        ("png", "png"),
        ("rgb8; jpeg compressed bgr8", "jpeg"),
        ("bgr8;png compressed bgr8", "png"),
        ("mono8; jpeg compressed ", "jpeg"),
        ("bayer_rggb8; jpeg compressed bgr8", "jpeg"),
    ],
)
def test_compressed_formats(text, encoding):
    message = TYPES.make(messages.COMPRESSED_IMAGE, format=text, data=b"\xff\xd8")
    image = messages.raw_image_from(message)
    assert (image.encoding, bytes(image.data)) == (encoding, b"\xff\xd8")


@pytest.mark.parametrize("text", ["", "h264", "16UC1; compressedDepth png"])
def test_unknown_compression_is_an_input_error(text):
    with pytest.raises(InputError, match="jpeg, png"):
        messages.raw_image_from(TYPES.make(messages.COMPRESSED_IMAGE, format=text, data=b"1"))


@pytest.mark.parametrize("text", ["bayer_rggb8; png compressed ", "bayer_gbrg16; jpeg compressed "])
def test_a_compressed_mosaic_is_no_picture(text):
    with pytest.raises(InputError, match="a colour mosaic"):
        messages.raw_image_from(TYPES.make(messages.COMPRESSED_IMAGE, format=text, data=b"1"))


def test_raw_image_round_trip():
    image = RawImage(encoding="bgr8", data=bytes(range(36)), width=4, height=3)
    back = messages.raw_image_from(messages.image(TYPES.make, T_NS, "cam_front", image))
    assert (back.encoding, back.width, back.height, back.step) == ("bgr8", 4, 3, 12)
    assert bytes(back.data) == image.data


def test_raw_image_is_a_view_with_padding():
    rows = np.arange(2 * 12, dtype=np.uint8).reshape(2, 12)  # 3 pixels and 3 bytes of padding a row
    message = TYPES.make(messages.IMAGE, encoding="bgr8", width=3, height=2, step=12, data=rows.ravel())
    image = messages.raw_image_from(message)
    assert np.shares_memory(np.frombuffer(image.data, np.uint8), message.data)
    np.testing.assert_array_equal(images.decode(image), rows[:, :9].reshape(2, 3, 3)[..., ::-1])


def test_camera_model_round_trip():
    model = messages.camera_model_from(messages.camera_info(TYPES.make, T_NS, "cam_front", MODEL))
    assert (model.width, model.height) == (MODEL.width, MODEL.height)
    np.testing.assert_array_equal(model.intrinsics, MODEL.intrinsics)


def camera_info(**fields):
    """A CameraInfo of MODEL with other fields, on a lens with distortion unless told otherwise."""
    k = MODEL.intrinsics.ravel().tolist()
    p = [1200.0, 0, 800, 0, 0, 1200, 450, 0, 0, 0, 1, 0]
    values = {"width": 1600, "height": 900, "k": k, "p": p, "d": [0.1, 0, 0, 0, 0], **fields}
    return TYPES.make(messages.CAMERA_INFO, **values)


def test_rectified_images_are_described_by_p_and_others_by_k():
    assert messages.camera_model_from(camera_info()).intrinsics[0, 0] == 1200
    undistorted = camera_info(d=[])
    assert messages.camera_model_from(undistorted, rectified=False).intrinsics[0, 0] == 1266.4
    assert messages.camera_model_from(camera_info(p=[0.0] * 12, d=[])).intrinsics[0, 0] == 1266.4


def test_region_of_interest_and_binning_move_the_pixels_of_a_point():
    roi = TYPES.make("sensor_msgs/msg/RegionOfInterest", x_offset=100, y_offset=60, width=800, height=600)
    model = messages.camera_model_from(camera_info(roi=roi, binning_x=2, binning_y=4))
    assert (model.width, model.height) == (400, 150)
    point = np.array([1.0, 0.5, 8.0])
    full, _ = geometry.project(np.array([[1200, 0, 800], [0, 1200, 450], [0, 0, 1.0]]), np.eye(4), point)
    binned, _ = geometry.project(model.intrinsics, np.eye(4), point)
    np.testing.assert_allclose(binned, [(full[0] - 100) / 2, (full[1] - 60) / 4])


@pytest.mark.parametrize(
    ("fields", "culprit"),
    [
        ({"p": [0.0] * 12, "k": [0.0] * 9}, "not calibrated"),
        ({"p": [0.0] * 12, "k": [np.nan] * 9}, "not calibrated"),
        ({"p": [0.0] * 12}, "distortion"),
        ({"width": 0}, "size"),
    ],
)
def test_unusable_calibration_is_an_input_error(fields, culprit):
    with pytest.raises(InputError, match=culprit):
        messages.camera_model_from(camera_info(**fields))


def test_sample_record_round_trip():
    record = messages.sample_record(TYPES.make, "scene-0103", "token", T_NS)
    assert messages.sample_record_from(record) == ("scene-0103", "token", T_NS)
    for text in ("", "[1]", "{}", "not json", "null"):
        with pytest.raises(InputError, match="sample record"):
            messages.sample_record_from(SimpleNamespace(data=text))
