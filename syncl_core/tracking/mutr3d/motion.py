"""Where a track is in the next frame: constant velocity for the time that passed, then into the new model frame.

The rule is MUTR3D's (Zhang et al. 2022). It knows nothing of queries, so other trackers use it too.
"""

import torch

from syncl_core.models.position import relative_transform


def carry_over(
    points: torch.Tensor,  # [B, K, 3] metres in the old model frame
    velocity: torch.Tensor,  # [B, K, 2] m/s along its x and y
    seconds: torch.Tensor,  # [B] time that passed, from `elapsed_seconds`
    transform: torch.Tensor,  # [B, 4, 4] float64, from `new_from_old`
) -> torch.Tensor:
    """Points [B, K, 3] at the new time in the new model frame."""
    ahead = velocity * seconds[:, None, None]
    return to_new_frame(points + torch.nn.functional.pad(ahead, (0, 1)), transform)


def elapsed_seconds(old_t_ns: torch.Tensor, new_t_ns: torch.Tensor) -> torch.Tensor:
    """[B] float32 of times [B] int64; never negative; zero before the first frame (old_t_ns -1)."""
    return (torch.where(old_t_ns >= 0, new_t_ns - old_t_ns, 0).clamp(min=0).double() / 1e9).float()


def new_from_old(old_pose: torch.Tensor, new_pose: torch.Tensor, old_t_ns: torch.Tensor) -> torch.Tensor:
    """Transform [B, 4, 4] float64 between the model frames of two poses global_from_model [B, 4, 4] float64.

    Before the first frame (old_t_ns [B] is -1) it is the identity.
    """
    identity = torch.eye(4, dtype=torch.float64, device=new_pose.device)
    return torch.where((old_t_ns >= 0)[:, None, None], relative_transform(new_pose, old_pose), identity)


def to_new_frame(points: torch.Tensor, transform: torch.Tensor) -> torch.Tensor:
    """Points [B, K, 3] through transform [B, 4, 4] float64."""
    return (points.double() @ transform[:, :3, :3].transpose(1, 2) + transform[:, None, :3, 3]).to(points.dtype)
