"""`sync.policy: approximate_time`: message_filters' ApproximateTimeSynchronizer in front of the Intake.

Only images that it puts into a set go on. It needs every camera: while one is silent there is no set at all; hence the
default, the deadline policy.
"""

from collections.abc import Callable, Sequence

from syncl_core.errors import InputError

QUEUE = 10  # messages per camera


class ApproximateSets:
    """Takes images as they come, hands complete sets over: `forward(camera, message)` once per camera.

    `slop_s` is the largest distance of two stamps of a set. Raises InputError where message_filters is missing.
    """

    def __init__(self, cameras: Sequence[str], slop_s: float, forward: Callable[[str, object], None]):
        try:
            from message_filters import ApproximateTimeSynchronizer, SimpleFilter
        except ImportError:
            raise InputError(
                "parameter sync.policy: approximate_time needs the ROS package message_filters "
                "(apt install ros-$ROS_DISTRO-message-filters); deadline needs nothing"
            ) from None
        self._cameras = tuple(cameras)
        self._forward = forward
        self._filters = {camera: SimpleFilter() for camera in self._cameras}
        self._synchronizer = ApproximateTimeSynchronizer(list(self._filters.values()), QUEUE, slop_s)
        self._synchronizer.registerCallback(self._complete)

    def add(self, camera: str, message) -> None:
        self._filters[camera].signalMessage(message)

    def _complete(self, *images) -> None:
        for camera, message in zip(self._cameras, images, strict=True):
            self._forward(camera, message)
