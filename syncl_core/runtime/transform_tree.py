"""A tree of time-stamped rigid transforms, fed from /tf and /tf_static or from a bag: tf2's Buffer without ROS.

Between two samples the translation is interpolated linearly and the rotation by slerp; at the stamp of a sample the
result is that sample, bit for bit. Nothing is extrapolated unless asked for. A frame has one parent: a transform from
another parent replaces the old edge and its history (the last one wins; tf2 instead keeps the parent per sample).
Not thread-safe.
"""

import bisect
import math
from collections.abc import Iterator, Sequence

import numpy as np

from syncl_core import geometry

MAX_FRAMES = 256
"""With more frames than that, those that no longer move along are forgotten: some publishers name one per object."""


class TransformLookupError(LookupError):
    """A transform is not known at that time. The message names the edge, what was asked and what is known."""

    def __init__(self, message: str, may_come: bool):
        super().__init__(message)
        self.may_come = may_come  # False: the asked time is older than all that is remembered, waiting is useless


class _Edge:
    """The transforms of one frame to its parent."""

    def __init__(self, parent: str, static: bool):
        self.parent = parent
        self.static = static
        self.stamps_ns: list[int] = []
        self.matrices: list[np.ndarray] = []  # parent_from_child [4, 4]

    def insert(self, t_ns: int, matrix: np.ndarray, oldest_ns: int) -> None:
        index = bisect.bisect_left(self.stamps_ns, t_ns)
        if index < len(self.stamps_ns) and self.stamps_ns[index] == t_ns:
            self.matrices[index] = matrix
        else:
            self.stamps_ns.insert(index, t_ns)
            self.matrices.insert(index, matrix)
        expired = bisect.bisect_left(self.stamps_ns, oldest_ns)
        del self.stamps_ns[:expired], self.matrices[:expired]

    def at(self, child: str, t_ns: int, max_extrapolation_ns: int) -> np.ndarray:
        if self.static:
            return self.matrices[0]
        index = bisect.bisect_left(self.stamps_ns, t_ns)
        if index < len(self.stamps_ns) and self.stamps_ns[index] == t_ns:
            return self.matrices[index]
        if index == 0:
            self._fail(child, f"forgotten, oldest {self.stamps_ns[0] / 1e9:.3f} s", t_ns, may_come=False)
        if index == len(self.stamps_ns):
            newest_ns = self.stamps_ns[-1]
            if t_ns > newest_ns + max_extrapolation_ns:
                self._fail(child, f"not there yet, newest {newest_ns / 1e9:.3f} s", t_ns, may_come=True)
            if index == 1:
                return self.matrices[0]
            index -= 1  # the motion between the last two samples goes on
        before_ns, after_ns = self.stamps_ns[index - 1 : index + 1]
        fraction = (t_ns - before_ns) / (after_ns - before_ns)
        return geometry.interpolate_transform(self.matrices[index - 1], self.matrices[index], fraction)

    def _fail(self, child: str, what: str, t_ns: int, may_come: bool) -> None:
        raise TransformLookupError(f"{self.parent} -> {child}: {what}, asked {t_ns / 1e9:.3f} s", may_come)


class TransformTree:
    """Remembers the transforms of the last `max_seconds`, measured from the newest one of each edge."""

    def __init__(self, max_seconds: float = 30.0):
        self._max_ns = round(max_seconds * 1e9)
        self._edges: dict[str, _Edge] = {}

    def remember(self, max_seconds: float) -> None:
        """Change how long transforms are remembered from now on."""
        self._max_ns = round(max_seconds * 1e9)

    def insert(self, parent: str, child: str, t_ns: int, parent_from_child: np.ndarray, static: bool = False) -> None:
        """Add one transform [4, 4]; of a static one the stamp does not matter. Stamps may come in any order.

        Raises ValueError naming the edge if the matrix is not a finite rigid transform or the edge would close a loop.
        """
        matrix = np.array(parent_from_child, dtype=np.float64)
        _check_rigid(matrix, f"{parent} -> {child}")
        edge = self._edges.get(child)
        if edge is None or (edge.parent, edge.static) != (parent, static):
            if child == parent or any(frame == child for frame in self._ancestors(parent)):
                raise ValueError(f"{parent} -> {child}: would close a loop, {parent} hangs below {child}")
            if len(self._edges) >= MAX_FRAMES:
                self._forget_stale(t_ns - self._max_ns)
            edge = self._edges[child] = _Edge(parent, static)
        if static:
            edge.stamps_ns, edge.matrices = [t_ns], [matrix]
        else:
            newest_ns = max(t_ns, edge.stamps_ns[-1]) if edge.stamps_ns else t_ns
            edge.insert(t_ns, matrix, newest_ns - self._max_ns)

    def lookup(self, dst: str, src: str, t_ns: int, max_extrapolation_s: float = 0.0) -> np.ndarray:
        """`dst_from_src` [4, 4] at one time. Raises TransformLookupError."""
        max_extrapolation_ns = round(max_extrapolation_s * 1e9)
        path_src, path_dst = self._path(src), self._path(dst)
        meeting = next((frame for frame in path_src if frame in path_dst), None)
        if meeting is None:
            raise TransformLookupError(
                f"{dst} and {src} are not connected: roots are {path_dst[-1]} and {path_src[-1]}", may_come=True
            )
        meeting_from_src = self._climb(path_src[: path_src.index(meeting)], t_ns, max_extrapolation_ns)
        meeting_from_dst = self._climb(path_dst[: path_dst.index(meeting)], t_ns, max_extrapolation_ns)
        return geometry.inverse(meeting_from_dst) @ meeting_from_src

    def knows(self, dst: str, src: str, t_ns: int) -> bool:
        """Whether `lookup` has an answer; of a frame to itself it always has."""
        if dst == src:
            return True
        try:
            self.lookup(dst, src, t_ns)
        except TransformLookupError:
            return False
        return True

    def between(self, dst: str, src: str) -> dict[str, bool] | None:
        """The frames whose transforms to their parents lead from `src` to `dst`, and whether they move.

        None if the two are not connected; empty for a frame and itself.
        """
        up_src, up_dst = list(self._ancestors(src)), list(self._ancestors(dst))
        meeting = next((frame for frame in up_src if frame in up_dst), None)
        if meeting is None:
            return None
        frames = up_src[: up_src.index(meeting)] + up_dst[: up_dst.index(meeting)]
        return {frame: not self._edges[frame].static for frame in frames}

    def parent(self, child: str) -> str | None:
        """The frame `child` hangs on; None for a root or an unknown frame."""
        return self._edges[child].parent if child in self._edges else None

    def newest_ns(self, child: str) -> int | None:
        """Stamp of the newest transform of `child` to its parent; None if there is none or it is static."""
        edge = self._edges.get(child)
        return None if edge is None or edge.static else edge.stamps_ns[-1]

    def moving(self) -> list[str]:
        """The frames that move against their parents."""
        return [child for child, edge in self._edges.items() if not edge.static]

    def clear(self, newer_than_ns: int | None = None) -> None:
        """Forget every moving edge, or those with a transform newer than the stamp. Static ones stay."""
        self._edges = {
            child: edge
            for child, edge in self._edges.items()
            if edge.static or (newer_than_ns is not None and edge.stamps_ns[-1] <= newer_than_ns)
        }

    def forget(self, child: str) -> None:
        """Forget the edge of `child` to its parent."""
        self._edges.pop(child, None)

    def frames(self) -> list[str]:
        """All known frames, sorted."""
        return sorted({*self._edges, *(edge.parent for edge in self._edges.values())})

    def _forget_stale(self, oldest_ns: int) -> None:
        self._edges = {
            child: edge for child, edge in self._edges.items() if edge.static or edge.stamps_ns[-1] >= oldest_ns
        }

    def _ancestors(self, frame: str) -> Iterator[str]:
        """The frame itself, its parent, and so on up to the root."""
        yield frame
        while (edge := self._edges.get(frame)) is not None:
            frame = edge.parent
            yield frame

    def _path(self, frame: str) -> list[str]:
        path = list(self._ancestors(frame))
        if len(path) == 1 and frame not in (known := self.frames()):
            raise TransformLookupError(f"unknown frame {frame!r}, known: {', '.join(known) or 'none'}", may_come=True)
        return path

    def _climb(self, frames: list[str], t_ns: int, max_extrapolation_ns: int) -> np.ndarray:
        result = np.eye(4)
        for frame in frames:
            result = self._edges[frame].at(frame, t_ns, max_extrapolation_ns) @ result
        return result


def _check_rigid(matrix: np.ndarray, edge: str) -> None:
    """In plain floats: /tf may carry a thousand transforms a second, and numpy takes ten times as long for so few."""
    if matrix.shape != (4, 4) or not all(map(math.isfinite, values := matrix.ravel().tolist())):
        raise ValueError(f"{edge}: not a finite 4x4 transform")
    x, y, z, last = values[0:3], values[4:7], values[8:11], values[12:16]
    units = all(abs(_dot(row, row) - 1.0) <= 2e-5 for row in (x, y, z))
    orthogonal = all(abs(_dot(*pair)) <= 1e-5 for pair in ((x, y), (y, z), (z, x)))
    cross = (x[1] * y[2] - x[2] * y[1], x[2] * y[0] - x[0] * y[2], x[0] * y[1] - x[1] * y[0])
    if not (units and orthogonal and _dot(cross, z) > 0) or last != [0.0, 0.0, 0.0, 1.0]:
        raise ValueError(f"{edge}: not a rigid transform")


def _dot(a: Sequence[float], b: Sequence[float]) -> float:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
