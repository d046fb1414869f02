"""A model of which every process holds a share (FSDP): how it becomes whole to be saved, loaded and used.

For a model that is whole already nothing here does anything.
"""

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.tensor import DTensor, distribute_tensor

from syncl_core.tracking.base import Tracker
from syncl_core.tracking.build import build_tracker


def whole(value: Any) -> Any:
    """A tensor, or dictionaries and lists that hold tensors, with the shares of all processes put together.

    Every process must call it.
    """
    if isinstance(value, DTensor):
        return value.full_tensor()
    if isinstance(value, dict):
        return {key: whole(part) for key, part in value.items()}
    return [whole(part) for part in value] if isinstance(value, list) else value


def whole_tracker(tracker: Tracker) -> Tracker:
    """The tracker itself, or if it consists of shares a copy as it is now, in evaluation mode. Every process must call.

    Shares come together by themselves in the `forward` of what PyTorch distributes, nowhere else.
    """
    if not any(isinstance(parameter, DTensor) for parameter in tracker.parameters()):
        return tracker
    copy = build_tracker(tracker.config).to(next(tracker.parameters()).device)
    copy.load_state_dict(whole(tracker.state_dict()))
    return copy.eval()


def clip_gradients(parameters: Iterable[nn.Parameter], largest: float) -> torch.Tensor:
    """Scale all gradients down to a norm of `largest`, together; returns their norm before. Every process must call it.

    Where others hold shares, what FSDP left whole is averaged over the processes first.
    """
    found = [parameter for parameter in parameters if parameter.grad is not None]
    shares = [parameter for parameter in found if isinstance(parameter, DTensor)]
    rest = [parameter for parameter in found if not isinstance(parameter, DTensor)]
    if shares:
        for parameter in rest:
            dist.all_reduce(parameter.grad)
            parameter.grad /= dist.get_world_size()
    kinds = [kind for kind in (shares, rest) if kind]
    norms = [whole(nn.utils.get_total_norm([parameter.grad for parameter in kind])) for kind in kinds]
    norm = norms[0] if len(norms) == 1 else torch.stack(norms).norm()
    for kind in kinds:
        nn.utils.clip_grads_with_norm_(kind, largest, norm)
    return norm


def load_whole(module: nn.Module, state: dict[str, torch.Tensor]) -> None:
    """`load_state_dict` with whole tensors; where the module holds shares, it takes its own."""
    own = module.state_dict()
    module.load_state_dict({name: _share(value, own.get(name)) for name, value in state.items()})


def load_whole_optimizer(optimizer: torch.optim.Optimizer, state: dict) -> None:
    """The same for an optimiser, whose state is as its parameters."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    shares = {
        number: {name: _share(value, parameters[number]) for name, value in values.items()}
        for number, values in state["state"].items()
    }
    optimizer.load_state_dict(state | {"state": shares})


def _share(value: torch.Tensor, like: torch.Tensor | None) -> torch.Tensor:
    """This process's share of a whole tensor if `like` is a share of such a one, else the tensor."""
    if not isinstance(like, DTensor) or value.shape != like.shape:
        return value
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
