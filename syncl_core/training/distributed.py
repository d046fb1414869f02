"""Several processes, one model: PyTorch's own engine, started by torchrun. Alone, all of this does nothing."""

import inspect
import os
import warnings
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from syncl_core.devices import check_device, default_device

_PATIENCE = timedelta(hours=2)  # processes wait for one that evaluates
_NAMES = inspect.signature(nn.parallel.DistributedDataParallel).parameters
_SYNC_BUFFERS = "forward_sync_buffers" if "forward_sync_buffers" in _NAMES else "broadcast_buffers"  # its older name


@dataclass(frozen=True, slots=True, kw_only=True)
class Workers:
    """This process among those of a run."""

    rank: int = 0
    size: int = 1
    device: torch.device = torch.device("cpu")

    @property
    def leads(self) -> bool:
        """Whether this process writes files and speaks to the user."""
        return self.rank == 0


def join(device: str = "") -> Workers:
    """Become one of the processes torchrun started, or the only one. `device` "" = a GPU if there is one.

    Raises InputError for a device that cannot be used.
    """
    size, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
    device = device or default_device()
    if device == "cuda":
        device = f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
    check_device(device)
    chosen = torch.device(device)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    if "WORLD_SIZE" in os.environ:
        dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo", timeout=_PATIENCE)
    return Workers(rank=rank, size=size, device=chosen)


def leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def distribute(model: nn.Module, workers: Workers, engine: str = "ddp") -> nn.Module:
    """The model as one of several whose gradients are averaged; alone, the model itself.

    engine "ddp": every process holds all of it. "fsdp": every process holds its share of each parameter, so of
    gradients and of the optimiser's state too; `model` itself changes, and is whole only inside its `forward`.
    """
    if not dist.is_initialized():
        return model
    if engine == "fsdp":
        # Trackers are called by `observe` and `commit`, not as modules, so all parameters are gathered at the root.
        mesh = init_device_mesh(workers.device.type, (workers.size,))
        # Single numbers cannot be shared out; `clip_gradients` averages theirs.
        return fully_shard(model, mesh=mesh, ignored_params={p for p in model.parameters() if p.ndim == 0})
    devices = [workers.device] if workers.device.type == "cuda" else None
    # Gradients of 1x1 convolutions of images in channels_last; adding them up as they are costs little.
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    # Statistics of batch norm stay each process's own for a while: see share_statistics.
    return nn.parallel.DistributedDataParallel(model, device_ids=devices, **{_SYNC_BUFFERS: False})


def share_statistics(model: nn.Module) -> None:
    """Give every process the first one's running statistics of batch norm: they are those that are saved.

    Otherwise each would evaluate another network, and a resumed run would go on with other ones.
    """
    if dist.is_initialized():
        for buffer in model.buffers():
            if buffer.is_floating_point():
                dist.broadcast(buffer, 0)


def gather(value: Any) -> list[Any]:
    """The value of every process, in every process."""
    if not dist.is_initialized():
        return [value]
    values = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def any_of(flag: bool, workers: Workers) -> bool:
    """Whether the flag is set in any process."""
    if not dist.is_initialized():
        return flag
    total = torch.tensor(int(flag), device=workers.device)
    dist.all_reduce(total)
    return bool(total.item())
