"""torch.compile takes a step as one graph: nothing in it looks at values or leaves PyTorch."""

import pytest
import torch
from tiny_mutr3d import tiny_mutr3d
from tiny_stream import stream_drive, tiny_stream
from tiny_tracker import drive, tiny_tracker
from torch.utils import _pytree


@pytest.mark.parametrize("kind", ["pf_track", "mutr3d", "stream"])
def test_a_step_is_one_graph(kind):
    tracker = {"pf_track": tiny_tracker, "mutr3d": tiny_mutr3d, "stream": lambda: tiny_stream("mutr3d", 5)}[kind]()
    first, second, third = stream_drive(3) if kind == "stream" else drive(3)
    torch._dynamo.reset()
    with torch.no_grad():
        state, _ = tracker.step(tracker.init_state(), first)
        state, _ = tracker.step(state, second)
        compiled = torch.compile(tracker.step, backend="eager", fullgraph=True)  # traced, not translated
        found, expected = compiled(state, third), tracker.step(state, third)
    for ours, theirs in zip(_pytree.tree_leaves(found), _pytree.tree_leaves(expected), strict=True):
        torch.testing.assert_close(ours, theirs)
    assert (expected[1].track_id >= 0).any()
