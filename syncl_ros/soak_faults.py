"""The faults of a soak run, and the order in which a seed brings them."""

import dataclasses
import os
import random
import signal
from collections.abc import Callable, Iterator

from syncl_core.classes import CAMERAS
from syncl_ros.synthetic_rig import SyntheticRig

RECOVERY_SECONDS = 1.0  # after a fault, in which sets may still be missing
QUIET_SECONDS = 2.0  # between two faults


class Faults:
    """The faults, by name: a call begins one, and returns what ends it."""

    def __init__(self, rig: SyntheticRig, reset: Callable[[], None], pid: int):
        """`pid`: the tracker's process."""
        self._rig = rig
        self._reset = reset
        self._pid = pid
        self._good = dict(rig.info)
        self.by_name = {
            "silent": self._silent,
            "all_silent": self._all_silent,
            "corrupt": self._corrupt,
            "late": self._late,
            "no_pose": self._no_pose,
            "bad_info": self._bad_info,
            "jump_back": self._jump_back,
            "reset": self._ask_reset,
            "stalled": self._stalled,
        }

    def _silent(self, camera: str) -> Callable[[], None]:
        self._rig.silent.add(camera)
        return self._rig.silent.clear

    def _all_silent(self, camera: str) -> Callable[[], None]:
        self._rig.silent.update(CAMERAS)
        return self._rig.silent.clear

    def _corrupt(self, camera: str) -> Callable[[], None]:
        self._rig.corrupt.add(camera)
        return self._rig.corrupt.clear

    def _late(self, camera: str) -> Callable[[], None]:
        self._rig.late_s[camera] = 0.3
        return self._rig.late_s.clear

    def _no_pose(self, camera: str) -> Callable[[], None]:
        self._rig.pose_silent = True

        def end() -> None:
            self._rig.pose_silent = False

        return end

    def _bad_info(self, camera: str) -> Callable[[], None]:
        self._rig.info[camera] = dataclasses.replace(self._good[camera], width=11)
        return lambda: self._rig.info.update(self._good)

    def _jump_back(self, camera: str) -> Callable[[], None]:
        self._rig.shift_s -= 7.0
        return lambda: None

    def _ask_reset(self, camera: str) -> Callable[[], None]:
        self._reset()
        return lambda: None

    def _stalled(self, camera: str) -> Callable[[], None]:
        """The machine gives the node no processor."""
        os.kill(self._pid, signal.SIGSTOP)
        return lambda: os.kill(self._pid, signal.SIGCONT)


def schedule(seed: int, seconds: float, names: list[str]) -> Iterator[tuple[float, str, str, float]]:
    """(begin, fault, camera, length) in seconds of the run; the same for the same seed. Every fault comes in turn."""
    chance = random.Random(seed)
    order: list[str] = []
    begin_s = 2 * QUIET_SECONDS
    while True:
        order = order or chance.sample(names, len(names))
        length_s = chance.uniform(0.3, 2.5)
        if begin_s + length_s + RECOVERY_SECONDS + QUIET_SECONDS > seconds:
            return
        yield begin_s, order.pop(), chance.choice(CAMERAS), length_s
        begin_s += length_s + RECOVERY_SECONDS + QUIET_SECONDS
