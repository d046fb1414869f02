"""One track for one object, though several rows find it (an option of ours; as released every row lives by its score).

Self-attention teaches rows to leave an object to one of them. Where it has not learned to, after a short training, two
tracks share an object for good, which training never shows the network: there each object has one.
"""

import dataclasses

import torch

from syncl_core.models.box_code import code_center
from syncl_core.models.duplicates import duplicates, reach
from syncl_core.tracking.base import Decision


def without_duplicates(
    decision: Decision,  # on M rows
    box: torch.Tensor,  # [B, M, 10] box codes of the rows, model frame
    score: torch.Tensor,  # [B, M] the best class's
    sure: torch.Tensor,  # [B, M] bool: tracks whose score has not become weak; before all others
    distance: float,  # metres beyond half a box (models/duplicates.py); 0 = every row lives
) -> Decision:
    """Rows beside a better one that lives do not: sure tracks before others, then by score, whatever their classes."""
    if not distance:
        return decision
    place = code_center(box)[..., :2]
    again = duplicates(place, reach(box, distance), score.float() + sure, decision.keep)
    return dataclasses.replace(decision, keep=decision.keep & ~again)
