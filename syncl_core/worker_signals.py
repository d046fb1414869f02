"""Signals and the processes that work for another one."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_SIGNALS = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
_LOOK_EVERY = 2.0  # seconds: whether the parent still lives


@contextmanager
def held_for_children() -> Iterator[None]:
    """Processes that are started inside get no signal before they call `leave_signals_to_parent`: else one that comes
    while they import would end them, and their parent would find its work broken instead of stopped. The parent answers
    its own signals afterwards: a process that is half started would never get what it is to read.
    """
    came: list[int] = []
    # The mask is what children inherit. It alone does not hold the parent: other threads take signals, too.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    handlers = {number: signal.getsignal(number) for number in _SIGNALS if _is_ours(number)}
    for number in handlers:
        signal.signal(number, lambda number, _: came.append(number))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])


def _is_ours(number: int) -> bool:
    """Whether Python answers this signal, and this thread may say how."""
    return threading.current_thread() is threading.main_thread() and callable(signal.getsignal(number))


def leave_signals_to_parent() -> None:
    """In a worker of multiprocessing: the main process alone answers Ctrl-C, SIGTERM and SIGHUP, which often go to a
    whole group of processes (torchrun, timeout, batch systems, a terminal that is closed): it saves, and then ends its
    workers. One that is killed cannot: then they end by themselves. macOS cannot tell whose signal it is: there every
    SIGTERM ends a worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    if hasattr(signal, "sigtimedwait"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_with_parent, name="end", daemon=True).start()
    else:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a forked worker has its parent's way to take it
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


def _end_with_parent() -> None:
    """End the process at a SIGTERM of its parent, at no other, and when the parent is gone."""
    parent = multiprocessing.parent_process()
    while parent.is_alive():
        came = signal.sigtimedwait({signal.SIGTERM}, _LOOK_EVERY)
        if came and came.si_pid == parent.pid:
            break
    os._exit(0)
