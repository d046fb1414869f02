"""The device that is meant where none is named."""

import torch


def default_device() -> str:
    """A GPU ("cuda") if this torch sees one, else the CPU."""
    return "cuda" if torch.cuda.is_available() else "cpu"
