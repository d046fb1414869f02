"""One track for one object, though several rows find it (an option of ours; as released every row lives by its score).

Self-attention teaches rows to leave an object to one of them. Where it has not learned to, after a short training, two
tracks share an object for good, which training never shows the network: there each object has one.
"""

import torch

from syncl_core.models.duplicates import duplicates


def without_duplicates(
    keep: torch.Tensor,  # [B, M] bool: rows that would live
    box: torch.Tensor,  # [B, M, 10] box codes of the rows, model frame
    score: torch.Tensor,  # [B, M] the best class's
    sure: torch.Tensor,  # [B, M] bool: tracks whose score has not become weak; before all others
    distance: float,  # metres beyond half a box (models/duplicates.py); 0 = all live
) -> torch.Tensor:
    """`keep` without rows beside a better one: sure tracks before others, then by score, whatever the classes."""
    if not distance:
        return keep
    return keep & ~duplicates(box.detach(), score.detach().float() + sure, distance, keep)
