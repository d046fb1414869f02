"""Two Gaussians on a line, fitted by expectation-maximisation: which matching costs are reliable (paper, Eq. 10)."""

from dataclasses import dataclass

import torch

_FEWEST = 4  # values worth a fit
_TINY = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixture:
    """p(z) = sum_i weight_i N(z | mean_i, variance_i); component 0 began at the least value, 1 at the largest."""

    weight: torch.Tensor  # [..., 2]
    mean: torch.Tensor  # [..., 2]
    variance: torch.Tensor  # [..., 2]


def fit_two_gaussians(
    values: torch.Tensor,  # [..., P] float64
    valid: torch.Tensor,  # [..., P] bool; one at least
    iterations: int,
    variance_floor: float,
) -> Mixture:
    """Begins with the extremes as means, equal weights and the variance of all values."""
    count = valid.sum(dim=-1, keepdim=True).clamp(min=1).to(values.dtype)
    values = torch.where(valid, values, 0.0)
    low = torch.where(valid, values, torch.inf).amin(dim=-1)
    high = torch.where(valid, values, -torch.inf).amax(dim=-1)
    off = torch.where(valid, values - values.sum(dim=-1, keepdim=True) / count, 0.0)
    spread = off.square().sum(dim=-1, keepdim=True) / count
    mean = torch.stack([low, high], dim=-1)
    variance = spread.clamp(min=variance_floor).expand_as(mean)
    weight = torch.full_like(mean, 0.5)
    for _ in range(iterations):
        share = _shares(values, valid, weight, mean, variance)  # [..., P, 2]
        mass = share.sum(dim=-2).clamp(min=_TINY)
        weight = mass / count
        mean = (share * values[..., None]).sum(dim=-2) / mass
        off = (values[..., None] - mean[..., None, :]).square()
        variance = ((share * off).sum(dim=-2) / mass).clamp(min=variance_floor)
    return Mixture(weight=weight, mean=mean, variance=variance)


def _shares(values, valid, weight, mean, variance) -> torch.Tensor:
    """Of every value, the shares [..., P, 2] of the two components."""
    off = (values[..., None] - mean[..., None, :]).square() / variance[..., None, :]
    log_density = weight.clamp(min=_TINY).log()[..., None, :] - 0.5 * (off + variance.log()[..., None, :])
    return log_density.softmax(dim=-1) * valid[..., None]


def reliable_threshold(
    values: torch.Tensor,  # [..., P] matching costs
    valid: torch.Tensor,  # [..., P] bool
    iterations: int,
    variance_floor: float,
) -> torch.Tensor:
    """The mean [...] of the component with the lower mean, float64; NaN where no value is valid.

    Fewer than four values, or values closer together than the variance floor can tell apart, all pass: their largest is
    the threshold. It is never below the least value, so one passes always.
    """
    values = torch.where(valid, values.double(), 0.0)
    fitted = fit_two_gaussians(values, valid, iterations, variance_floor).mean.amin(dim=-1)
    low = torch.where(valid, values, torch.inf).amin(dim=-1)
    high = torch.where(valid, values, -torch.inf).amax(dim=-1)
    plain = (valid.sum(dim=-1) < _FEWEST) | (high - low < variance_floor**0.5)
    threshold = torch.where(plain, high, fitted.clamp(min=low))
    return torch.where(valid.any(dim=-1), threshold, torch.nan)
