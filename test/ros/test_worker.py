import threading

import pytest

from syncl_ros import worker as worker_module
from syncl_ros.worker import Worker


class Task(int):
    """A job that is told apart by its number; most weigh nothing."""

    nbytes = 0


class Heavy(Task):
    nbytes = 40


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
    worker.submit(Task(1))
    assert gate.entered.wait(5)
    for item in (2, 3, 4):
        worker.submit(Task(item))
    worker.call_when_idle(idle.set)
    assert not idle.is_set() and worker.busy_s > 0
    gate.open.set()
    assert idle.wait(5)
    worker.stop()
    assert worker.busy_s == 0
    assert gate.done == done
    assert worker.dropped == dropped


def test_a_replay_that_runs_ahead_is_held_up_and_loses_nothing(monkeypatch):
    monkeypatch.setattr(worker_module, "MAX_WAITING", 2)
    gate = Gate()
    worker = Worker(gate, keep_all=True)
    worker.start()
    worker.submit(Task(1))
    assert gate.entered.wait(5)
    worker.submit(Task(2))
    worker.submit(Task(3))
    submitting = threading.Thread(target=worker.submit, args=(Task(4),))
    submitting.start()
    submitting.join(0.1)
    assert submitting.is_alive() and worker.waiting == 2
    gate.open.set()
    submitting.join(5)
    idle = threading.Event()
    worker.call_when_idle(idle.set)
    assert idle.wait(5) and gate.done == [1, 2, 3, 4] and worker.held_up == 1
    worker.stop()


def test_what_waits_is_bounded_in_bytes_too_and_says_so_in_time(monkeypatch):
    monkeypatch.setattr(worker_module, "MAX_BYTES", 100)
    gate = Gate()
    worker = Worker(gate, keep_all=True)
    worker.start()
    worker.submit(Heavy(1))
    assert gate.entered.wait(5) and not worker.crowded
    worker.submit(Heavy(2))
    assert worker.crowded  # 40 bytes are more than an eighth: a player should pause long before anybody is held up
    worker.submit(Heavy(3))
    submitting = threading.Thread(target=worker.submit, args=(Heavy(4),))
    submitting.start()
    submitting.join(0.1)
    assert submitting.is_alive() and worker.waiting == 2
    gate.open.set()
    submitting.join(5)
    idle = threading.Event()
    worker.call_when_idle(idle.set)
    assert idle.wait(5) and gate.done == [1, 2, 3, 4] and not worker.crowded
    monkeypatch.setattr(worker_module, "MAX_BYTES", 10)
    again = threading.Event()
    worker.submit(Heavy(5))  # too heavy by itself: it gets in alone
    worker.call_when_idle(again.set)
    assert again.wait(5) and gate.done[-1] == 5
    worker.stop()


def test_a_prediction_never_replaces_a_set():
    gate, idle = Gate(), threading.Event()
    worker = Worker(gate, keep_all=False)
    worker.start()
    worker.submit(Task(1))
    assert gate.entered.wait(5)
    worker.submit(Task(2))
    worker.offer(Task(3))
    worker.call_when_idle(idle.set)
    gate.open.set()
    assert idle.wait(5) and gate.done == [1, 2]
    worker.stop()


def test_stop_finishes_the_set_at_hand_and_forgets_the_rest():
    gate = Gate()
    worker = Worker(gate, keep_all=True)
    worker.start()
    worker.submit(Task(1))
    worker.submit(Task(2))
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
    worker.submit(Task(7))
    worker._thread.join(5)
    assert str(worker.error) == "cannot 7"
    worker.stop()


def test_a_set_that_an_idle_thread_was_given_is_not_replaced():
    """The thread has not woken up yet when the next sets come: that must not decide what is lost."""
    gate, idle = Gate(), threading.Event()
    gate.open.set()
    worker = Worker(gate, keep_all=False)
    for item in (1, 2, 3):  # before the thread runs
        worker.submit(Task(item))
    assert worker.waiting == 2 and worker.dropped == 1
    worker.call_when_idle(idle.set)
    worker.start()
    assert idle.wait(5) and gate.done == [1, 3]
    worker.stop()


def test_a_prediction_makes_way_for_a_set_and_is_no_loss():
    gate, idle = Gate(), threading.Event()
    gate.open.set()
    worker = Worker(gate, keep_all=False)
    worker.offer(Task(1))
    worker.submit(Task(2))
    worker.call_when_idle(idle.set)
    worker.start()
    assert idle.wait(5) and gate.done == [2] and worker.dropped == 0
    worker.stop()
