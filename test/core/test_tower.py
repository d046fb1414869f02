"""The convolutions after the pyramid: against loops over cells, and what they leave alone."""

import pytest
import torch
from tiny_mutr3d import mutr3d_config
from tiny_tracker import make_frame

from syncl_core.config import with_values
from syncl_core.errors import InputError
from syncl_core.models.tower import Tower
from syncl_core.tracking.build import build_tracker


@torch.no_grad()
def test_a_block_adds_four_convolutions():
    """Convolution, norm, ReLU and so on, without a ReLU at the end; two blocks follow each other."""
    tower = Tower(4, 2).double().eval()
    generator = torch.Generator().manual_seed(0)
    for value in (*tower.parameters(), *tower.buffers()):
        if value.is_floating_point():
            value.copy_(torch.rand(value.shape, generator=generator, dtype=value.dtype) - 0.3)
            value.abs_() if value.ndim == 1 else value
    x = torch.randn(2, 4, 3, 5, generator=generator, dtype=torch.float64)
    expected = x
    for block in tower:
        y = expected
        for i, (conv, norm) in enumerate(zip(block.convs, block.norms, strict=True)):
            y = _slowly(y.clamp(min=0) if i else y, conv.weight)
            scale = norm.weight / (norm.running_var + norm.eps).sqrt()
            y = (y - norm.running_mean[:, None, None]) * scale[:, None, None] + norm.bias[:, None, None]
        expected = expected + y
    assert [conv.weight.shape[2:] for conv in tower[0].convs] == [(1, 1), (3, 3), (3, 3), (1, 1)]
    assert torch.allclose(tower(x), expected) and (expected < 0).any()


def _slowly(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Maps [B, C, h, w] with kernels [D, C, k, k], cell by cell, zeros beyond the border."""
    reach = weight.shape[-1] // 2
    result = x.new_zeros(len(x), len(weight), *x.shape[2:])
    for i in range(x.shape[2]):
        for j in range(x.shape[3]):
            for di in range(-reach, reach + 1):
                for dj in range(-reach, reach + 1):
                    if 0 <= i + di < x.shape[2] and 0 <= j + dj < x.shape[3]:
                        result[:, :, i, j] += x[:, :, i + di, j + dj] @ weight[:, :, di + reach, dj + reach].T
    return result


@torch.no_grad()
def test_only_the_finest_map_passes_it_and_hardly_changes_at_first():
    """A network without a tower can be given one: names and weights stay, and so does nearly all of its map."""
    plain = build_tracker(mutr3d_config(), 1).eval()
    tracker = build_tracker(with_values(mutr3d_config(), {"model": {"detr3d": {"tower": 2}}}), 1).eval()
    lacking = tracker.load_state_dict(plain.state_dict(), strict=False)
    assert not lacking.unexpected_keys and all(name.startswith("tower.") for name in lacking.missing_keys)
    before, after = (network.encode(make_frame(0)).levels for network in (plain, tracker))
    assert all(torch.equal(a, b) for a, b in zip(before[1:], after[1:], strict=True))
    change = (after[0] - before[0]).std() / before[0].std()
    assert 0 < change < 0.5, change
    tracker.tower[0].norms[-1].weight.zero_()
    tracker.tower[1].norms[-1].weight.zero_()
    assert torch.allclose(tracker.encode(make_frame(0)).levels[0], before[0])


def test_impossible_values_are_named():
    with pytest.raises(InputError, match="^model.detr3d.tower: only for detector detr3d, got petr"):
        with_values(mutr3d_config(), {"model": {"framework": "pf_track", "detector": "petr", "detr3d": {"tower": 1}}})
    with pytest.raises(InputError, match="^model.detr3d.tower: must be within 0 and 100, got -1"):
        with_values(mutr3d_config(), {"model": {"detr3d": {"tower": -1}}})
