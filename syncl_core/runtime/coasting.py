"""Objects between two processed sets: where their velocities lead, while nothing new is known."""

from dataclasses import replace

from syncl_core.types import ObjectSet

END_SCORE = 0.5
"""By so much the score has shrunk when coasting ends; linearly in time until then."""


def coasted(objects: ObjectSet, t_ns: int, coast_max_s: float) -> ObjectSet | None:
    """The objects at `t_ns`, moved straight on in the fixed frame, with state "coasting" and a lower score.

    An unknown velocity counts as zero. None if `t_ns` is not later than the objects, or more than `coast_max_s` later.
    """
    seconds = (t_ns - objects.t_ns) * 1e-9
    if not 0 < seconds <= coast_max_s:
        return None
    return replace(
        objects.moved(t_ns),
        scores=objects.scores * (1 - (1 - END_SCORE) * seconds / coast_max_s),
        states=("coasting",) * len(objects),
    )
