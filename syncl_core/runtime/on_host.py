"""What a step leaves on the device, in numbers on the host. Reading them waits for the device."""

import numpy as np
import torch
from torch.utils import _pytree

from syncl_core.tensors import Tracks


def track_rows(tracks: Tracks) -> np.ndarray:
    """All tracks of a batch of one as rows [K, 13], in one copy: valid, id, label, score, yaw, center, size, velocity.

    float64 holds every float32 and every identity below 2^53 exactly.
    """
    columns = [
        *(getattr(tracks, name)[0, :, None] for name in ("valid", "track_id", "label", "score", "yaw")),
        *(getattr(tracks, name)[0] for name in ("center", "size", "velocity")),
    ]
    return torch.cat([column.double() for column in columns], dim=1).cpu().numpy()


def all_finite(state: object) -> bool:
    """Whether no number of a state is NaN or infinite: one would spread to all tracks, which look at each other."""
    numbers = [x for x in _pytree.tree_leaves(state) if isinstance(x, torch.Tensor) and x.is_floating_point()]
    return not numbers or bool(torch.stack([x.isfinite().all() for x in numbers]).all())


def dropped_tracks(state: object) -> int:
    """Tracks that found no slot since the session began; 0 for a state that does not count them."""
    dropped = getattr(state, "dropped", None)
    return 0 if dropped is None else int(dropped.sum())
