"""The signals that end a program, and an event that their handler may set."""

import signal
import threading
import time

_LOOK_EVERY = 0.02  # seconds


def ending_signals() -> set[signal.Signals]:
    """SIGINT, SIGTERM and SIGHUP (a terminal that is closed); not the last where it is ignored, as under nohup."""
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return {signal.SIGINT, signal.SIGTERM} | (set() if ignored else {signal.SIGHUP})


class SignalEvent(threading.Event):
    """`threading.Event` without its lock, which the thread that a signal interrupts may hold already.

    A handler that sets an ordinary one then waits for itself: while the same signal is handled for the second time, or
    in the middle of `wait`.
    """

    def __init__(self) -> None:
        super().__init__()
        self._came = False

    def is_set(self) -> bool:
        return self._came

    def set(self) -> None:
        self._came = True

    def clear(self) -> None:
        self._came = False

    def wait(self, timeout: float | None = None) -> bool:
        """Whether it was set within `timeout` seconds; None = however long it takes."""
        end = None if timeout is None else time.monotonic() + timeout
        while not self._came:
            left = _LOOK_EVERY if end is None else end - time.monotonic()
            if left <= 0:
                break
            time.sleep(min(left, _LOOK_EVERY))
        return self._came
