"""Named tensors: read from files without running code, and compared with what a network needs."""

import pickle
import re
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from syncl_core.errors import InputError, one_line

Tensors = dict[str, torch.Tensor]

TRACKER_FORMAT, SNAPSHOT_FORMAT = "syncl-tracker-1", "syncl-training-1"  # of checkpoint.py and training/snapshot.py
PICKLES = (".pth", ".pt", ".ckpt")


def read_safetensors(path: Path) -> tuple[Tensors, dict[str, str]]:
    """Tensors and metadata. Raises InputError if the file is cut short or of another kind."""
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(f"truncated or not a safetensors file ({one_line(error)})") from None


def read_pickle(path: Path) -> Tensors:
    """The weights in a PyTorch file, bare or under "state_dict" or "model"; nothing else in it is looked at.

    Raises InputError if opening the file would take more than building tensors, because that could run any code.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(_refusal(error)) from None
    except (RuntimeError, OSError, EOFError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise InputError(f"truncated or not a PyTorch file ({one_line(error)})") from None
    if isinstance(content, dict) and content.get("format") == SNAPSHOT_FORMAT:
        raise InputError("is a snapshot for --resume; its weights are in last.safetensors beside it")
    for key in ("state_dict", "model"):
        content = content.get(key, content) if isinstance(content, dict) else None
    if not _is_state_dict(content):
        raise InputError("holds no dictionary of tensors (state_dict)")
    return dict(content)


def _is_state_dict(content: object) -> bool:
    if not isinstance(content, dict) or not content:
        return False
    return all(isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in content.items())


def _refusal(error: pickle.UnpicklingError) -> str:
    culprit = re.search(r"GLOBAL (\S+)", str(error))
    if not culprit:
        return "holds more than tensors, or is no PyTorch file; it is not opened for safety"
    return (
        f"not opened for safety: it asks for {culprit[1]}, and such a file can run any code. If you trust it, keep "
        "only its weights: torch.save(torch.load(FILE, weights_only=False)['state_dict'], NEW_FILE)"
    )


def shared_names(network: nn.Module) -> dict[str, str]:
    """Second names of shared tensors (the head used by every layer) -> the first name, under which they are stored."""
    first_name: dict[int, str] = {}
    aliases = {}
    for name, value in network.state_dict(keep_vars=True).items():
        first = first_name.setdefault(id(value), name)
        if first != name:
            aliases[name] = first
    return aliases


def check_tensors(tensors: Tensors, expected: Tensors) -> None:
    """Raises InputError naming a tensor of another shape or kind than its namesake in `expected`, or not finite."""
    for name, value in tensors.items():
        if value.shape != expected[name].shape:
            raise InputError(f"{name} has shape {list(value.shape)}, the network needs {list(expected[name].shape)}")
        if value.is_floating_point() != expected[name].is_floating_point():
            raise InputError(f"{name} holds {value.dtype}, the network needs {expected[name].dtype}")
        if value.is_floating_point() and not value.isfinite().all():
            raise InputError(f"{name} holds NaN or infinite weights")
