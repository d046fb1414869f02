"""Rows into a fixed number of slots: which stay, and who they are. Knows nothing of what a row holds."""

import dataclasses

import torch


def best_rows(keep: torch.Tensor, score: torch.Tensor, slots: int) -> torch.Tensor:
    """Indices [B, slots] of the `slots` best rows of keep [B, M] by score [B, M], in their old order.

    If fewer rows are kept, other ones fill the slots up.
    """
    best = torch.where(keep, score, -1.0).argsort(dim=1, descending=True, stable=True)[:, :slots]
    # Sorted again by row, so that nearly equal scores cannot swap identities.
    return best.sort(dim=1).values


def give_identities(
    track_id: torch.Tensor,  # [B, K] int64, -1 = none yet
    kept: torch.Tensor,  # [B, K] bool
    next_id: torch.Tensor,  # [B] int64
) -> tuple[torch.Tensor, torch.Tensor]:
    """Identities [B, K], -1 where nothing is kept, and the next free one [B]. New tracks count on, none is skipped."""
    born = kept & (track_id < 0)
    new_id = next_id[:, None] + born.cumsum(dim=1) - 1
    return torch.where(born, new_id, torch.where(kept, track_id, -1)), next_id + born.sum(dim=1)


def select_rows(state, names: tuple[str, ...], index: torch.Tensor):
    """The state with the rows `index` [B, K'] of every scene, in that order, in its fields `names` [B, K, ...]."""
    batch = torch.arange(index.shape[0], device=index.device)[:, None]
    return dataclasses.replace(state, **{name: getattr(state, name)[batch, index] for name in names})


def clear_free_rows(state, names: tuple[str, ...]):
    """Free slots hold zeros again, so that equal tracks mean equal states and no old number lives on."""
    free = state.track_id < 0

    def clear(name: str) -> torch.Tensor:
        value = getattr(state, name)
        return value.masked_fill(free.view(*free.shape, *[1] * (value.ndim - 2)), -1 if name == "track_id" else 0)

    return dataclasses.replace(state, **{name: clear(name) for name in names})
