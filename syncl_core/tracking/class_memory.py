"""What a track is, by all frames that saw it, not by the last alone (an option of ours; as released the last decides).

An object's class does not change, but what one frame says of it does: of a motorcycle seen from behind, or of a truck
whose trailer is hidden. Probabilities of the classes are summed over a track's frames, earlier ones counting less. The
track's score remains that of the best class in its last frame.
"""

import torch

from syncl_core.config import SynclConfig


def remember_class(
    evidence: torch.Tensor,  # [B, M, C] what the rows' earlier frames came to; zeros for a new row
    probability: torch.Tensor,  # [B, M, C] of this frame
    config: SynclConfig,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The evidence with this frame in it [B, M, C], which has no gradient, and the class [B, M] it speaks for.

    `track.class_memory` is what a frame counts for in the next one. The life cycle lets a class beyond the tracked ones
    pass or not by this frame alone, so such a class stays, and earlier frames do not bring one back.
    """
    evidence = config.track.class_memory * evidence + probability.detach()
    now, tracked = probability.argmax(dim=-1), config.num_tracking_classes
    return evidence, torch.where(now < tracked, evidence[..., :tracked].argmax(dim=-1), now)
