"""Every non-result has a name: how often it happened and what was said last, for diagnostics and reports."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One named reason for which input did not become a result."""

    count: int
    message: str  # of the latest occurrence


@dataclass(frozen=True, slots=True, kw_only=True)
class MissedSet:
    """A set that was due and became nothing: its time is known, so objects can be predicted for it."""

    t_ns: int
    reason: str
    message: str


class ProblemLog:
    """Counts problems by reason. Bounded: it keeps one message per reason."""

    def __init__(self):
        self._problems: dict[str, Problem] = {}

    def add(self, reason: str, message: str) -> None:
        previous = self._problems.get(reason)
        self._problems[reason] = Problem(count=previous.count + 1 if previous else 1, message=message)

    def count(self, reason: str) -> int:
        return self._problems[reason].count if reason in self._problems else 0

    def snapshot(self) -> dict[str, Problem]:
        return dict(self._problems)
