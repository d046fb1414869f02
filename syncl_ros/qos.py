"""Quality of service: what the node asks for, and what to change where a publisher does not fit: DDS says nothing."""

from collections.abc import Sequence

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.topic_endpoint_info import TopicEndpointInfo
from sensor_msgs.msg import CompressedImage, Image

from syncl_core.io.topics import frame_of
from syncl_ros import conversions
from syncl_ros.params import NodeParams

_RELIABILITY = {ReliabilityPolicy.BEST_EFFORT: "best effort", ReliabilityPolicy.RELIABLE: "reliable"}
_DURABILITY = {DurabilityPolicy.VOLATILE: "volatile", DurabilityPolicy.TRANSIENT_LOCAL: "transient local"}


def mismatch(asked: QoSProfile, offered: QoSProfile) -> str:
    """Why a subscription gets nothing from a publisher, naming both policies; "" = they fit (DDS: offered >= asked)."""
    if asked.reliability == ReliabilityPolicy.RELIABLE and offered.reliability == ReliabilityPolicy.BEST_EFFORT:
        return _said("reliability", _RELIABILITY, asked.reliability, offered.reliability)
    if asked.durability == DurabilityPolicy.TRANSIENT_LOCAL and offered.durability == DurabilityPolicy.VOLATILE:
        return _said("durability", _DURABILITY, asked.durability, offered.durability)
    return ""


def _said(policy: str, names: dict, asked, offered) -> str:
    return f"{policy}: asked for {names.get(asked, asked)}, offered is {names.get(offered, offered)}"


def why_silent(
    topic: str,
    type_name: str,
    asked: QoSProfile,
    publishers: Sequence[TopicEndpointInfo],
    parameter: str,
    elsewhere: str = "",
) -> str:
    """Why nothing comes on a topic, and the parameter to change. `type_name` reads "package/msg/Name".

    `elsewhere` is the topic of the same images in the other transport, if those are published.
    """
    if not publishers and elsewhere:
        return f"nobody publishes {topic}, but {elsewhere} is published: change image_transport or {parameter}"
    if not publishers:
        return f"nobody publishes {topic}: start the publisher or change {parameter}"
    reasons = {mismatch(asked, publisher.qos_profile) for publisher in publishers}
    others = {publisher.topic_type for publisher in publishers} - {type_name}
    if len(others) == 1 and all(publisher.topic_type in others for publisher in publishers):
        return f"{topic} is published as {others.pop()}, not {type_name}: change image_transport or {parameter}"
    if "" not in reasons:
        return f"{topic} has an incompatible QoS ({'; '.join(sorted(reasons))}): change qos.images or the publisher"
    return (
        f"{topic} has a publisher but nothing arrives: does the camera run? does the middleware carry such images "
        "(docs/ros.md, middleware)?"
    )


def explain_silence(node: Node, params: NodeParams, camera: str, kind: type, topic: str, name: str) -> str:
    """`why_silent` of messages of the class `kind` that a camera does not send, by what the ROS graph says.

    `topic` is the one before remapping, `name` the parameter that gives it: image_topic or camera_info_topic.
    """
    topic = node.resolve_topic_name(topic)
    raw = topic.removesuffix("/compressed")
    other = raw if raw != topic else f"{topic}/compressed"
    published = kind in (Image, CompressedImage) and node.count_publishers(other)
    return why_silent(
        topic,
        f"{kind.__module__.split('.')[0]}/msg/{kind.__name__}",
        image_qos(params),
        node.get_publishers_info_by_topic(topic),
        f"{name} or cameras.{frame_of(camera)}.{name}",
        elsewhere=other if published else "",
    )


def why_no_pose(
    topic: str, asked: QoSProfile, publishers: Sequence[TopicEndpointInfo], wanted: str, came: bool = False
) -> str:
    """Why a vehicle's pose is not known, and the parameter to change. `wanted` reads "fixed frame -> base frame".

    `came`: it did until now, so the parameters fit.
    """
    if not publishers:
        return f"nobody publishes {topic}: start the localisation or change ego_motion.source"
    reasons = {mismatch(asked, publisher.qos_profile) for publisher in publishers}
    if "" not in reasons:
        return f"{topic} has an incompatible QoS ({'; '.join(sorted(reasons))}): change the publisher"
    if came:
        return f"{topic} does not tell {wanted} any more: does the localisation still run?"
    return f"{topic} does not tell {wanted}: check ego_motion.source, fixed_frame and base_frame"


def image_qos(params: NodeParams) -> QoSProfile:
    """What the node asks of image and calibration topics. In a replay no message may push another one out."""
    reliable = params.image_qos == "reliable"
    qos = conversions.reliable(5) if reliable else conversions.sensor_data(5)
    if params.queue == "all":
        qos.history = HistoryPolicy.KEEP_ALL
    return qos


def is_latched(node: Node, topic: str) -> bool:
    """Whether all publishers of a topic keep their last message for those who come later (transient local).

    Only who asks for transient local himself gets that message, and nothing at all from volatile publishers.
    """
    publishers = node.get_publishers_info_by_topic(node.resolve_topic_name(topic))
    kept = [publisher.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL for publisher in publishers]
    return bool(kept) and all(kept)


def transform_qos(params: NodeParams) -> QoSProfile:
    """What the node asks of /tf: as tf2 does, and in a replay that nothing is lost."""
    return conversions.lossless() if params.queue == "all" else conversions.reliable(conversions.DEEP)


def odometry_qos(params: NodeParams) -> QoSProfile:
    """What the node asks of odometry: live, every publisher fits."""
    return conversions.lossless() if params.queue == "all" else conversions.sensor_data(conversions.DEEP)


def explain_missing_pose(node: Node, params: NodeParams, came: bool = False) -> str:
    """Why the vehicle's pose does not come (`came`: any more), and what to change. Asks the ROS graph."""
    odometry = params.ego_source == "odometry"
    topic, qos = (params.odometry_topic, odometry_qos(params)) if odometry else ("/tf", transform_qos(params))
    topic = node.resolve_topic_name(topic)  # as remapped
    publishers = node.get_publishers_info_by_topic(topic)
    return why_no_pose(topic, qos, publishers, f"{params.fixed_frame} -> {params.base_frame}", came)
