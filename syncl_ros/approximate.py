"""`sync.policy: approximate_time`: message_filters' ApproximateTimeSynchronizer in front of the Intake.

Only images that it puts into a set go on. It needs every camera: while one is silent there is no set at all; hence the
default, the deadline policy.
"""

from collections.abc import Callable, Sequence
from types import ModuleType

from syncl_core.errors import InputError
from syncl_core.io import messages
from syncl_core.runtime.set_assembler import JUMP_NS

QUEUE = 10  # messages per camera


class ApproximateSets:
    """Takes images as they come, hands complete sets over: `forward(camera, message)` once per camera.

    `slop_s` is the largest distance of two stamps of a set. Raises InputError where message_filters is missing.
    """

    def __init__(self, cameras: Sequence[str], slop_s: float, forward: Callable[[str, object], None]):
        self._package = _message_filters()
        self._cameras = tuple(cameras)
        self._slop_s = slop_s
        self._forward = forward
        self._newest_ns: dict[str, int] = {}
        self._complete: list[tuple[str, object]] = []
        self._renew()

    def add(self, camera: str, message) -> None:
        t_ns = messages.stamp_ns(message)
        if t_ns < self._newest_ns.get(camera, t_ns) - JUMP_NS:
            self._renew()  # its queues keep the newest stamps, and those would be of before the jump for ever
        self._newest_ns[camera] = t_ns
        self._filters[camera].signalMessage(message)
        # Not in its callback: that runs under its lock, which an exception would leave locked.
        complete, self._complete = self._complete, []
        for one, image in complete:
            self._forward(one, image)

    def _renew(self) -> None:
        self._filters = {camera: self._package.SimpleFilter() for camera in self._cameras}
        inputs = list(self._filters.values())
        self._synchronizer = self._package.ApproximateTimeSynchronizer(inputs, QUEUE, self._slop_s)
        self._synchronizer.registerCallback(self._keep)

    def _keep(self, *images) -> None:
        self._complete += zip(self._cameras, images, strict=True)


def _message_filters() -> ModuleType:
    try:
        import message_filters
    except ImportError:
        raise InputError(
            "parameter sync.policy: approximate_time needs the ROS package message_filters "
            "(apt install ros-$ROS_DISTRO-message-filters); deadline needs nothing"
        ) from None
    return message_filters
