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
    """Begins with the extremes as means, equal weights and the variance of all values.

    A step is sixteen small kernels whatever the shape: log densities are polynomials of the values, and all that the
    next step needs of them are their sums, weighted with the shares.
    """
    count = valid.sum(dim=-1, keepdim=True).clamp(min=1).to(values.dtype)
    center = torch.where(valid, values, 0.0).sum(dim=-1, keepdim=True) / count  # squares of what is left lose less
    off = torch.where(valid, values - center, 0.0)
    low = torch.where(valid, off, torch.inf).amin(dim=-1)
    high = torch.where(valid, off, -torch.inf).amax(dim=-1)
    square, one = off.square(), valid.to(values.dtype)
    powers = torch.stack([one, off, square], dim=-1)  # [..., P, 3]
    terms = torch.stack([one / 2, off, -square / 2], dim=-2)  # [..., 3, P]
    mean = torch.stack([low, high], dim=-1)
    mass = (count / 2).expand_as(mean)
    variance = (square.sum(dim=-1, keepdim=True) / count).clamp(min=variance_floor).expand_as(mean)
    for _ in range(iterations):
        precision = variance.reciprocal()
        linear = mean * precision
        constant = (mass.square() * precision).log() - mean * linear
        share = (torch.stack([constant, linear, precision], dim=-1) @ terms).softmax(dim=-2)  # [..., 2, P]
        mass, first, second = (share @ powers).unbind(dim=-1)
        mass = mass.clamp(min=_TINY)
        mean = first / mass
        variance = torch.addcmul(second / mass, mean, mean, value=-1).clamp(min=variance_floor)
    return Mixture(weight=mass / count, mean=mean + center, variance=variance)


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
