"""A failing device: its memory is released, the work is tried once more, then it is an error with a name."""

import gc
from collections.abc import Callable
from typing import TypeVar

import torch

from syncl_core.errors import DeviceError

Result = TypeVar("Result")

_SIGNS = ("CUDA", "cuDNN", "CUBLAS", "CUFFT", "HIP error", "DefaultCPUAllocator")  # how torch's messages begin or speak


def is_device_error(error: BaseException) -> bool:
    """Whether the device is to blame, not the program: out of memory, a driver or library that failed."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _SIGNS)


def twice(work: Callable[[], Result], device: torch.device | str, on_retry: Callable[[str], None]) -> Result:
    """`work()`, once more after a device error; `on_retry` hears of it. Raises DeviceError after the second one."""
    try:
        return work()
    except RuntimeError as error:
        if not is_device_error(error):
            raise
        on_retry(f"{device}: {_first_line(error)}")
    # Not in the except block: there the traceback still holds the tensors of the failed step.
    release()
    try:
        return work()
    except RuntimeError as error:
        if not is_device_error(error):
            raise
        raise DeviceError(
            f"device {device} failed twice: {_first_line(error)}; free its memory or choose another device"
        ) from None


def release() -> None:
    """Give back what memory of the device nobody holds any more. A device that is beyond that is left alone."""
    gc.collect()
    if torch.cuda.is_initialized():
        try:
            torch.cuda.empty_cache()
        except RuntimeError:
            pass  # the device is beyond that; the second attempt will say so


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
