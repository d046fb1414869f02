"""The event that signal handlers set: under a flood of signals, and as any other event."""

import subprocess
import sys
import threading
import time

from syncl_core.signal_event import SignalEvent

_FLOOD = """
import signal, time
from syncl_core.signal_event import SignalEvent

event = SignalEvent()
signal.signal(signal.SIGALRM, lambda *_: event.set())
signal.setitimer(signal.ITIMER_REAL, 3e-5, 3e-5)
end = time.monotonic() + 1.0
while time.monotonic() < end:
    event.clear()
    event.wait(0.0005)
    event.set()
signal.setitimer(signal.ITIMER_REAL, 0)
print("through")
"""


def test_a_flood_of_signals_neither_blocks_nor_recurses():
    """The main thread uses the event while thousands of signals a second set it; threading.Event ends in recursion."""
    done = subprocess.run([sys.executable, "-c", _FLOOD], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("through\n", "")


def test_it_waits_like_any_other_event():
    event = SignalEvent()
    assert not event.wait(0.05) and not event.is_set()
    timer = threading.Timer(0.1, event.set)
    timer.start()
    begin = time.monotonic()
    assert event.wait(20) and event.wait() and time.monotonic() - begin < 10
    event.clear()
    assert not event.wait(0)
    timer.join()
