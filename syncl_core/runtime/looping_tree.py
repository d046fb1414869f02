"""A TransformTree for recordings that loop and clocks that are set back: it forgets what such a jump makes wrong."""

import numpy as np

from syncl_core.runtime.camera_stream import JUMP_NS
from syncl_core.runtime.rounds import Rounds
from syncl_core.runtime.transform_tree import TransformTree

_IMAGES = ""  # their name among the streams of `Rounds`, where the others are frames


class LoopingTree(TransformTree):
    """`follow` comes before `insert`; the images' times count as well. Not thread-safe.

    Only frames that a lookup has met say something about time. Others hang on clocks that are no concern of ours.
    """

    def __init__(self):
        super().__init__()
        self._rounds = Rounds()
        self._used: set[str] = set()  # frames on the way of a lookup

    def lookup(self, dst: str, src: str, t_ns: int, max_extrapolation_s: float = 0.0) -> np.ndarray:
        """As ever; from now on the frames on the way count when time goes back."""
        self._used.update(self.between(dst, src) or ())
        return super().lookup(dst, src, t_ns, max_extrapolation_s)

    def follow(self, child: str, t_ns: int) -> str:
        """What a moving transform's stamp means: "" it goes on, "jump" time went back and what was wrong is forgotten,
        "stale" it is itself from before a jump and must not be used."""
        newest_ns = self.newest_ns(child)
        jumped = newest_ns is not None and t_ns < newest_ns - JUMP_NS
        if child not in self._used:
            if jumped:
                self.forget(child)
            return ""
        if jumped and self._rounds.jump(child, newest_ns, t_ns, (*self._moving_used(), _IMAGES)):
            self.clear(newer_than_ns=t_ns + JUMP_NS)
        elif jumped:
            self.forget(child)
        if not self._rounds.takes(child, t_ns):
            return "stale"
        return "jump" if jumped else ""

    def images_jumped(self, old_ns: int, new_ns: int) -> None:
        """The images went back; transforms that have done so before are right already."""
        if self._rounds.jump(_IMAGES, old_ns, new_ns, self._moving_used()):
            self.clear(newer_than_ns=new_ns + JUMP_NS)

    def images_at(self, t_ns: int) -> None:
        """An image was taken in."""
        self._rounds.takes(_IMAGES, t_ns)

    def _moving_used(self) -> list[str]:
        return [frame for frame in self.moving() if frame in self._used]
