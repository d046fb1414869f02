"""Ctrl-C, SIGTERM and the end of a terminal end a training between two steps."""

import contextlib
import signal
import threading
import time
from collections.abc import Iterator

from syncl_core.signal_event import SignalEvent, ending_signals

SAME_SIGNAL_SECONDS = 1.0  # after the first: no second wish


@contextlib.contextmanager
def stop_flag() -> Iterator[threading.Event]:
    """Set by the first Ctrl-C, SIGTERM or SIGHUP, so that a step is never torn apart; a second one ends the program.

    One that follows at once is the same: a batch system signals every process, and torchrun hands its own on.
    """
    stop = SignalEvent()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    asked_s = 0.0

    def ask(number: int, frame) -> None:
        nonlocal asked_s
        if not stop.is_set():
            asked_s = time.monotonic()  # first: the same signal may come again before the next line
            stop.set()
        elif time.monotonic() - asked_s > SAME_SIGNAL_SECONDS:
            raise KeyboardInterrupt

    before = {number: signal.signal(number, ask) for number in ending_signals()}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
