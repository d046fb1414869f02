"""When time jumps back, the streams do so one after the other: which of them has followed, and what is from before.

The first stream that jumps begins a new round. Of the others, stamps beyond the middle between old and new time are
from before the jump, until time itself has come that far again. A stream that jumps later, across that same middle,
only follows; it begins no further round. So what the leading streams have already said of the new round stays.
"""

from collections.abc import Iterable


class Rounds:
    """Streams are names. Stamps are ns."""

    def __init__(self):
        self._late: set[str] = set()  # streams that have not followed the latest jump yet
        self._old_ns = self._new_ns = 0  # of that jump: where time was, and where it went
        self._refusing = False  # until time has come to the middle again

    @property
    def _middle_ns(self) -> int:
        return (self._old_ns + self._new_ns) // 2

    def jump(self, stream: str, old_ns: int, new_ns: int, streams: Iterable[str]) -> bool:
        """A stream went back. True: a new round for all `streams`; False: it follows one that has jumped before."""
        if stream in self._late and new_ns < self._middle_ns < old_ns:
            self._late.discard(stream)
            return False
        self._old_ns, self._new_ns, self._refusing = old_ns, new_ns, True
        self._late = {*streams} - {stream}
        return True

    def takes(self, stream: str, t_ns: int) -> bool:
        """Whether a stamp belongs to this round. To be asked in the order of arrival, after `jump`."""
        if stream in self._late:
            if t_ns >= self._middle_ns:
                return not self._refusing
            self._late.discard(stream)
        elif t_ns >= self._old_ns:
            self._late.clear()  # who has not followed by now never left
        elif t_ns >= self._middle_ns:
            self._refusing = False
        return True
