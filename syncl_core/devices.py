"""Where a network computes."""

import torch

from syncl_core.errors import InputError


def default_device() -> str:
    """The device that is meant where none is named: a GPU ("cuda") if this torch sees one, else the CPU."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def check_device(name: str) -> None:
    """Raises InputError for a device that cannot hold a tensor."""
    try:
        torch.zeros(1, device=name).cpu()  # the meta device makes tensors, but holds nothing
    except (RuntimeError, AssertionError) as error:  # NotImplementedError is a RuntimeError
        reason = str(error).splitlines()[0]
        raise InputError(f"device {name!r} cannot be used: {reason}; choose another one, such as cpu") from None
