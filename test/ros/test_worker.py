import threading

import pytest

from syncl_ros.worker import Worker


class Gate:
    """A `process` that reports what it got and holds on until it is let through."""

    def __init__(self):
        self.done = []
        self.entered = threading.Event()
        self.open = threading.Event()

    def __call__(self, item):
        self.entered.set()
        assert self.open.wait(5)
        self.done.append(item)


@pytest.mark.parametrize(("keep_all", "done", "dropped"), [(True, [1, 2, 3, 4], 0), (False, [1, 4], 2)])
def test_sets_that_come_while_busy(keep_all, done, dropped):
    gate, idle = Gate(), threading.Event()
    worker = Worker(gate, keep_all=keep_all)
    worker.start()
    worker.submit(1)
    assert gate.entered.wait(5)
    for item in (2, 3, 4):
        worker.submit(item)
    worker.call_when_idle(idle.set)
    assert not idle.is_set()
    gate.open.set()
    assert idle.wait(5)
    worker.stop()
    assert gate.done == done
    assert worker.dropped == dropped


def test_stop_finishes_the_set_at_hand_and_forgets_the_rest():
    gate = Gate()
    worker = Worker(gate, keep_all=True)
    worker.start()
    worker.submit(1)
    worker.submit(2)
    assert gate.entered.wait(5)
    stopping = threading.Thread(target=worker.stop)
    stopping.start()
    while not worker._stopping:
        pass
    gate.open.set()
    stopping.join(5)
    assert gate.done == [1]


def test_an_exception_ends_the_thread_and_is_kept():
    def fail(item):
        raise RuntimeError(f"cannot {item}")

    worker = Worker(fail, keep_all=True)
    worker.start()
    worker.submit("infer")
    worker._thread.join(5)
    assert str(worker.error) == "cannot infer"
    worker.stop()
