"""The query filter: the mixture against its slow twin, fallbacks, and what the threshold does."""

import math

import pytest
import torch
from loss_cases import filter_case
from slow_losses import cost, mixture_means, threshold

from syncl_core.losses.matching import matching_cost
from syncl_core.losses.syncl.mixture import fit_two_gaussians, reliable_threshold
from syncl_core.strategy_config import FilterConfig, LossConfig

FLOOR = 1e-3


def _fit(values: torch.Tensor, iterations: int = 30, valid=None) -> torch.Tensor:
    valid = torch.ones_like(values, dtype=torch.bool) if valid is None else valid
    return reliable_threshold(values, valid, iterations, FLOOR)


@pytest.mark.parametrize("seed", range(12))
def test_mixture_equals_the_slow_one_in_batches_with_gaps(seed):
    """Invalid entries may hold anything, also what is not a number."""
    generator = torch.Generator().manual_seed(seed)
    counts = (1, 3, 4, 17, 60)
    values, valid = torch.full((2, len(counts), 80), torch.nan), torch.zeros(2, len(counts), 80, dtype=torch.bool)
    for i in range(2):
        for j, count in enumerate(counts):
            places = torch.randperm(80, generator=generator)[:count]
            two = torch.where(torch.rand(count, generator=generator) < 0.4, 0.0, 4.0 * seed / 11)
            values[i, j, places] = two + torch.randn(count, generator=generator) * (0.1 + 0.5 * i)
            valid[i, j, places] = True
    found = _fit(values, valid=valid)
    for i in range(2):
        for j in range(len(counts)):
            expected = threshold(values[i, j][valid[i, j]].double().tolist(), 30, FLOOR)
            assert found[i, j].item() == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_mixture_finds_the_two_clusters_it_was_drawn_from():
    generator = torch.Generator().manual_seed(0)
    low, high = torch.randn(4000, generator=generator) * 0.3 - 1.0, torch.randn(6000, generator=generator) * 0.8 + 4.0
    values = torch.cat([low, high]).double()
    fit = fit_two_gaussians(values, torch.ones_like(values, dtype=torch.bool), 50, FLOOR)
    torch.testing.assert_close(fit.mean, torch.tensor([-1.0, 4.0]).double(), atol=0.05, rtol=0)
    torch.testing.assert_close(fit.weight, torch.tensor([0.4, 0.6]).double(), atol=0.02, rtol=0)
    torch.testing.assert_close(fit.variance.sqrt(), torch.tensor([0.3, 0.8]).double(), atol=0.05, rtol=0)


def _usual_stop(values: torch.Tensor) -> tuple[float, int]:
    """Threshold and iterations where the mean log likelihood grows by less than 1e-3, scikit-learn's stop."""
    before = -math.inf
    for iterations in range(1, 101):
        fit = fit_two_gaussians(values, torch.ones_like(values, dtype=torch.bool), iterations, FLOOR)
        off = (values[:, None] - fit.mean).square() / fit.variance
        log_density = fit.weight.log() - 0.5 * (fit.variance.log() + off)
        if (likelihood := log_density.logsumexp(dim=1).mean().item()) - before < 1e-3:
            break
        before = likelihood
    return fit.mean.amin().item(), iterations


def test_the_default_ends_about_where_the_usual_stop_does():
    """On pools like the filter's, two heaps and one; more iterations go on to sharpen the lower component."""
    generator = torch.Generator().manual_seed(1)
    near, far = torch.randn(20, 60, generator=generator).abs() * 0.5, torch.rand(20, 65, generator=generator) * 12 + 2
    pools = torch.cat([torch.cat([near, far], dim=1), torch.rand(20, 125, generator=generator).log() * -3]).double()
    stops = [_usual_stop(pool) for pool in pools]
    assert 10 <= sorted(iterations for _, iterations in stops)[20] <= 16
    usual = torch.tensor([threshold for threshold, _ in stops], dtype=torch.float64)

    def passing(delta: torch.Tensor) -> float:
        return (pools <= delta[:, None]).double().mean().item()

    assert (_fit(pools, FilterConfig().iterations) - usual).abs().median() < 0.05
    off = {n: abs(passing(_fit(pools, n)) - passing(usual)) for n in (5, FilterConfig().iterations, 1000)}
    assert off[FilterConfig().iterations] < 0.02 < min(off[5], off[1000])


def test_threshold_moves_with_the_costs():
    """Shifted and stretched costs give the shifted and stretched threshold."""
    values = torch.rand(3, 40, generator=torch.Generator().manual_seed(2)).square() * 9
    torch.testing.assert_close(_fit(2.5 * values - 7), 2.5 * _fit(values) - 7, atol=1e-5, rtol=1e-5)
    assert torch.equal(_fit(values[:, torch.randperm(40)]) > 0, _fit(values) > 0)


@pytest.mark.parametrize(
    "values, expected",
    [
        ([], math.nan),
        ([3.0], 3.0),
        ([1.0, 9.0, 2.0], 9.0),  # too few for a fit: all pass
        ([2.0, 2.0, 2.0, 2.0, 2.0], 2.0),
        ([2.0, 2.01, 2.02, 2.0, 2.01], 2.02),  # closer together than a component is wide
        ([0.1, 0.1, 0.1, 5.0, 5.0, 5.0], 0.1),
    ],
)
def test_fallbacks(values, expected):
    padded = torch.tensor([*values, math.nan, math.inf])
    valid = torch.arange(len(padded)) < len(values)
    found = _fit(padded[None], valid=valid[None]).item()
    assert found == pytest.approx(expected, abs=1e-6, nan_ok=True)
    if values:
        assert found >= padded[0].double().item() and sum(v <= found for v in padded[valid].double().tolist()) > 0


def test_slow_mixture_is_a_likelihood_climber():
    """A check of the check: every iteration raises the likelihood of the slow fit."""
    values = (torch.rand(30, generator=torch.Generator().manual_seed(3)).square() * 8).tolist()
    means = [mixture_means(values, n, FLOOR) for n in (0, 1, 50)]
    assert means[0] == (min(values), max(values)) and means[1] != means[0]
    assert min(values) < means[2][0] < sum(values) / len(values) < means[2][1] < max(values)


# --- the filter on pairs ---


@pytest.mark.parametrize("count", [1, 4, 5, 6, 100])
@pytest.mark.parametrize("method", ["gmm", "top_k", "deta", "atss", "sim_ota"])
def test_at_most_k_queries_per_object(method, count):
    kept_any = 0
    for seed in range(5):
        module, inputs = filter_case({"method": method, "candidates": count}, seed)
        chosen = module(*inputs)
        assert not (chosen.kept & ~inputs[1]).any() and not (chosen.kept & ~chosen.candidates).any()
        assert chosen.kept.sum(dim=2).max() <= min(count, 7)
        kept_any += chosen.kept.sum().item()
        assert chosen.threshold.shape == (2, 2)
    assert kept_any > 0


def test_a_refused_candidate_costs_more_than_every_kept_one():
    for seed in range(6):
        module, inputs = filter_case({}, seed)
        chosen = module(*inputs)
        costs = inputs[0].double()
        limit = chosen.threshold[..., None, None].expand_as(costs)
        assert (costs[chosen.kept] <= limit[chosen.kept]).all()
        refused = chosen.candidates & ~chosen.kept
        assert refused.any() and (costs[refused] > limit[refused]).all()


def test_force_best_leaves_no_object_without_candidate():
    for seed in range(4):
        module, inputs = filter_case({"force_best": True, "candidates": 3}, seed)
        has = inputs[1].any(dim=1)  # [B, G]
        assert torch.equal(module(*inputs).kept.any(dim=2), has.expand(2, -1, -1))


def test_threshold_remembers_if_it_shall():
    module, inputs = filter_case({"smoothing": 0.75})
    plain, _ = filter_case({})
    other = filter_case({}, seed=9)[1]
    first, second = plain(*inputs).threshold.mean(dim=1), plain(*other).threshold.mean(dim=1)
    torch.testing.assert_close(module(*inputs).threshold, first[:, None].expand(2, 2))
    expected = 0.75 * first + 0.25 * second
    torch.testing.assert_close(module(*other).threshold, expected[:, None].expand(2, 2))
    torch.testing.assert_close(module.state_dict()["smoothed"], expected)
    module.eval()(*inputs)
    torch.testing.assert_close(module.smoothed, expected)  # looking does not teach
    nothing = (*inputs[:1], torch.zeros_like(inputs[1]), *inputs[2:])
    assert module.train()(*nothing).threshold.isnan().all() and not module.smoothed.isnan().any()
    assert not list(plain.buffers())


def test_threshold_falls_as_costs_fall():
    """Queries drift towards their objects, as they do in training: easy pairs first, then ever stricter."""
    generator = torch.Generator().manual_seed(0)
    module, (_, allowed, logits, box, targets) = filter_case({}, objects=(5, 5), tracks=(0, 0), padding=0, queries=60)
    target_of = torch.randint(0, 5, (60,), generator=generator)
    offset = torch.randn(2, 2, 66, 10, generator=generator) * 3.0
    thresholds, kept = [], []
    for _ in range(12):
        near = torch.cat([targets.box[:, target_of], targets.box[:, :1].expand(-1, 6, -1)], dim=1)
        costs = matching_cost(logits.nan_to_num(), near + offset, targets, LossConfig())
        chosen = module(costs, allowed, logits, near + offset, targets)
        thresholds.append(chosen.threshold.mean().item())
        kept.append(chosen.kept.sum(dim=2).float().mean().item())
        offset = offset * 0.75 + torch.randn(offset.shape, generator=generator) * 0.05
    assert all(later < earlier for earlier, later in zip(thresholds, thresholds[1:], strict=False)), thresholds
    assert thresholds[-1] < 0.25 * thresholds[0]
    assert all(0 < k <= 5 for k in kept)


def test_costs_equal_the_slow_ones():
    for seed in range(4):
        _, (costs, allowed, logits, box, targets) = filter_case({}, seed)
        for layer, b, m, g in torch.nonzero(allowed.expand_as(costs)).tolist():
            values = logits[layer, b, m].double().tolist(), box[layer, b, m].double().tolist()
            expected = cost(*values, int(targets.label[b, g]), targets.box[b, g].double().tolist())
            assert costs[layer, b, m, g].item() == pytest.approx(expected, rel=1e-5, abs=1e-5)
