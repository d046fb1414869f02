"""Between two threads: newest only, or all with back-pressure; never more than the limit, never stuck."""

import threading

import numpy as np
import pytest

from syncl_core.runtime.set_queue import SetQueue, image_bytes
from syncl_core.types import CameraModel, CameraView, FrameSet, RawImage

MODEL = CameraModel(width=8, height=8, intrinsics=np.eye(3))


def sized(t_ns, size=100):
    image = RawImage(encoding="jpeg", data=bytes(size))
    view = CameraView(
        camera="A", t_ns=t_ns, image=image, model=MODEL, base_from_cam=np.eye(4), global_from_base=np.eye(4)
    )
    return FrameSet(t_ns=t_ns, global_from_base=np.eye(4), base_from_model=np.eye(4), views=(view, None))


def in_thread(call):
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    return thread


def test_newest_replaces_what_waits():
    queue = SetQueue(keep_all=False)
    assert all(queue.put(sized(t)) for t in range(5))
    assert queue.dropped == 4 and len(queue) == 1 and queue.get().t_ns == 4 and queue.get(timeout_s=0.01) is None


@pytest.mark.parametrize("limits", [{"max_bytes": 350}, {"max_sets": 3}])
def test_keeping_all_holds_up_the_giver_and_loses_nothing(limits):
    queue, seen = SetQueue(keep_all=True, **limits), []
    giver = in_thread(lambda: [queue.put(sized(t)) for t in range(50)])
    giver.join(0.2)
    assert giver.is_alive() and len(queue) == 3, "it waits"
    while len(seen) < 50:
        seen.append(queue.get(timeout_s=5).t_ns)
        assert len(queue) <= 3
    giver.join(5)
    assert seen == list(range(50)) and queue.held_up >= 1 and queue.dropped == 0


def test_a_set_beyond_the_limit_gets_in_alone():
    queue = SetQueue(keep_all=True, max_bytes=50)
    assert queue.put(sized(0)) and len(queue) == 1
    giver = in_thread(lambda: queue.put(sized(1)))
    giver.join(0.1)
    assert giver.is_alive() and queue.get(1).t_ns == 0
    giver.join(5)
    assert queue.get(1).t_ns == 1


def test_closing_lets_everybody_go():
    queue, results = SetQueue(keep_all=True, max_sets=1), []
    queue.put(sized(0))
    giver = in_thread(lambda: results.append(queue.put(sized(1))))
    giver.join(0.1)
    queue.close()
    giver.join(5)
    assert results == [False] and queue.get() is None and queue.put(sized(2)) is False
    empty = SetQueue(keep_all=False)
    taker = in_thread(lambda: results.append(empty.get()))
    taker.join(0.1)
    empty.close()
    taker.join(5)
    assert results == [False, None]


@pytest.mark.parametrize("data", [bytes(12), memoryview(bytes(12)), np.zeros((2, 2, 3), np.uint8)])
def test_weight_of_a_set(data):
    assert image_bytes(sized(0, 12)) == memoryview(data).nbytes == 12
