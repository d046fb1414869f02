"""What the tests of trackers share: a run over frames, and equality of a batch's row with a scene alone."""

import torch
from tiny_tracker import drive

from syncl_core.tensors import to_dict


def track(tracker, frames, state=None):
    state = tracker.init_state() if state is None else state
    outputs = []
    with torch.inference_mode():
        for frame in frames:
            state, tracks = tracker.step(state, frame)
            outputs.append(tracks)
    return state, outputs


def assert_equal(ours, theirs, row: int = 0, tolerance: float = 0.0):
    """Scene `row` of ours is the only scene of theirs; both are device values of one kind."""
    ours, theirs = to_dict(ours), to_dict(theirs)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        a, b = value[row], theirs[name][0]
        if a.is_floating_point():
            torch.testing.assert_close(a, b, atol=tolerance, rtol=tolerance, msg=lambda text, n=name: f"{n}: {text}")
        else:
            assert torch.equal(a, b), name


def assert_same_tracks(ours, theirs):
    """Two trackers say the same of two frames."""
    for mine, other in zip(*(track(tracker, drive(2))[1] for tracker in (ours, theirs)), strict=True):
        assert_equal(mine, other)
