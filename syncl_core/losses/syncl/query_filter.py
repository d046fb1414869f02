"""Dynamic query filtering: which of an object's candidates are good enough to learn from it (paper, sec. 3.4)."""

from dataclasses import dataclass

import torch
from torch import nn

from syncl_core.losses.set_loss import average_over_processes
from syncl_core.losses.syncl.candidates import as_mask, lowest
from syncl_core.losses.syncl.mixture import reliable_threshold
from syncl_core.losses.syncl.overlap_filters import atss, sim_ota
from syncl_core.strategy_config import FilterConfig, LossConfig
from syncl_core.tensors import Targets


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The filter's verdict on every pair of a row and an object."""

    kept: torch.Tensor  # [L, B, M, G] bool
    candidates: torch.Tensor  # [L, B, M, G] bool: pairs that were considered, the kept ones among them
    price: torch.Tensor  # [L, B, M, G]: of two objects that keep a row, the one with the lower price gets it
    threshold: torch.Tensor  # [L, B] float64 the highest cost that passes, delta; NaN without candidates


class QueryFilter(nn.Module):
    """Has no memory unless `smoothing` asks for one, which is then the buffer `smoothed` [L]."""

    def __init__(self, config: FilterConfig, loss: LossConfig, num_layers: int):
        super().__init__()
        self.config, self.loss = config, loss
        if config.smoothing > 0:
            self.register_buffer("smoothed", torch.full((num_layers,), torch.nan, dtype=torch.float64))

    @torch.no_grad()
    def forward(
        self,
        cost: torch.Tensor,  # [L, B, M, G]
        allowed: torch.Tensor,  # [B, M, G] bool: pairs that may be considered
        logits: torch.Tensor,  # [L, B, M, C]
        box: torch.Tensor,  # [L, B, M, 10]
        targets: Targets,
    ) -> Selection:
        method, count = self.config.method, self.config.candidates
        if method == "atss":
            kept, candidates, price = atss(box, allowed, targets, count)
            threshold = _highest(cost, kept)
        elif method == "sim_ota":
            kept, candidates, price = sim_ota(logits, box, allowed, targets, count, self.loss)
            threshold = _highest(cost, kept)
        else:
            price = cost.masked_fill(~allowed, torch.inf)
            values, rows = lowest(price, count)
            candidates = as_mask(rows, values.isfinite(), cost.shape[2])
            threshold = self._threshold(price, values)
            kept = candidates & (cost <= threshold[..., None, None])
        if self.config.force_best:
            best = price.masked_fill(~candidates, torch.inf).argmin(dim=2, keepdim=True)
            kept = kept | (candidates & torch.zeros_like(kept).scatter(2, best, True))
        return Selection(kept=kept, candidates=candidates, price=price, threshold=threshold)

    def _threshold(self, price: torch.Tensor, lowest_prices: torch.Tensor) -> torch.Tensor:
        """[L, B] float64, of prices [L, B, M, G] and the K lowest of every object [L, B, K, G]; infinite = none."""
        config = self.config
        if config.method == "top_k":
            return _highest(lowest_prices, lowest_prices.isfinite())
        if config.method == "deta":
            any_pair = lowest_prices.isfinite().flatten(2).any(dim=2)
            return torch.where(any_pair, config.threshold, torch.nan).double()
        pool = (price if config.pool == "all_pairs" else lowest_prices).flatten(2)  # [L, B, P]
        if config.pool == "all_blocks":
            pool = pool.transpose(0, 1).flatten(1)[None]
        fitted = reliable_threshold(pool, pool.isfinite(), config.iterations, config.variance_floor)
        fitted = fitted.expand(price.shape[0], -1)
        return fitted if config.smoothing == 0 else self._smooth(fitted)

    def _smooth(self, fitted: torch.Tensor) -> torch.Tensor:
        """The running mean over calls of thresholds [L, B], for every scene that has one.

        Of the scenes of all frames and processes: all remember the same, and a snapshot of one holds what all knew.
        """
        known = ~fitted.isnan()
        sums = torch.stack([fitted.nansum(dim=1), known.sum(dim=1).double()])
        total, count = average_over_processes(sums) if self.training else sums
        newest = total / count  # NaN where no scene has one
        moved = torch.lerp(newest, self.smoothed, self.config.smoothing)
        current = torch.where(self.smoothed.isnan(), newest, torch.where(newest.isnan(), self.smoothed, moved))
        if self.training:
            self.smoothed.copy_(current)
        return torch.where(known, current[:, None], torch.nan)


def _highest(cost: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """The highest cost [L, B] float64 of the chosen ones; NaN without any."""
    highest = cost.double().masked_fill(~chosen, -torch.inf).flatten(2).amax(dim=2)
    return torch.where(chosen.flatten(2).any(dim=2), highest, torch.nan)
