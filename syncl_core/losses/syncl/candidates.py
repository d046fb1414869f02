"""An object's best rows: the K lowest prices, as a mask."""

import torch


def lowest(price: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The `count` lowest prices of every object: values and rows, [L, B, K, G] each, of [L, B, M, G]; lowest first.

    Infinite prices are no candidates; they fill up where there are not enough rows.
    """
    found = price.topk(min(count, price.shape[2]), dim=2, largest=False)
    return found.values, found.indices


def as_mask(rows: torch.Tensor, chosen: torch.Tensor, num_rows: int) -> torch.Tensor:
    """Mask [L, B, M, G] of the pairs that `rows` [L, B, K, G] names where `chosen` [L, B, K, G] holds."""
    mask = chosen.new_zeros(*rows.shape[:2], num_rows, rows.shape[3])
    return mask.scatter(2, rows, chosen)
