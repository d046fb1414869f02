"""A device that is not the host, for tests without a GPU: its tensors compute on the CPU, but live apart.

As CUDA does, it refuses operations on tensors of both places (but for scalars and indices), and it knows when host and
device wait for each other. Built on what PyTorch has for backends in Python; a version without that skips the tests.
"""

import pytest
import torch
from torch.utils import _pytree, backend_registration
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing

if not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"):
    pytest.skip("this PyTorch has no devices in Python", allow_module_level=True)

_ATEN = torch.ops.aten
_COPIES = (_ATEN._to_copy.default, _ATEN.copy_.default)
_INDICES_ON_THE_HOST = (_ATEN.index.Tensor, _ATEN.index_put.default, _ATEN.index_put_.default)


class _Backend(backend_registration._DummyBackendModule):
    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]


backend_registration._setup_privateuseone_for_python_backend("elsewhere", _Backend())
ELSEWHERE = torch.device("elsewhere:0")


class _Remote(torch.Tensor):
    """A tensor of the device; `held` has its numbers."""

    @staticmethod
    def __new__(cls, held: torch.Tensor):
        layout = dict(strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype)
        made = torch.Tensor._make_wrapper_subclass(cls, held.shape, **layout, device=ELSEWHERE)
        made.held = held
        return made

    def tolist(self) -> list:
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return _active[0].__torch_dispatch__(function, types, args, kwargs)  # outside of it there is no device


class Elsewhere(TorchDispatchMode):
    """The device works while this is entered. Inference mode stands for no_grad there.

    reads: when the host had to know what the device holds, and waited for it. waits: copies to the device from
    ordinary memory that were not told to go on meanwhile. Both by the names of the operations.
    """

    def __init__(self):
        super().__init__()
        self.reads: list[str] = []
        self.waits: list[str] = []
        self._inference_mode = torch.inference_mode

    def __enter__(self):
        torch.inference_mode, _active[:] = torch.no_grad, [self]
        return super().__enter__()

    def __exit__(self, *error):
        torch.inference_mode, _active[:] = self._inference_mode, []
        return super().__exit__(*error)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        tensors = [x for x in _pytree.tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        remote = [x for x in tensors if isinstance(x, _Remote)]
        place = torch.device(kwargs.get("device") or (ELSEWHERE if remote else "cpu"))
        if function in _COPIES:
            self._note_copy(function, args, place, kwargs.get("non_blocking", False))
        elif remote and _asks_for_values(function, tensors):
            self.reads.append(str(function))
        elif remote and function not in _INDICES_ON_THE_HOST:
            if local := [tuple(x.shape) for x in tensors if not isinstance(x, _Remote) and x.dim()]:
                raise RuntimeError(f"{function}: tensors of two devices; on the host {local}")
        on_host = {"device": torch.device("cpu")} if "device" in kwargs else {}
        held_args, held_kwargs = _pytree.tree_map_only(_Remote, lambda x: x.held, (args, kwargs | on_host))
        result = function(*held_args, **held_kwargs)
        if place.type == "cpu":
            return result
        result = _pytree.tree_map_only(torch.Tensor, _Remote, result)
        return return_and_correct_aliasing(function, args, kwargs, result) if remote else result

    def _note_copy(self, function, args, place: torch.device, goes_on: bool) -> None:
        source, target = args[-1] if function is _ATEN.copy_.default else args[0], args[0]
        here = place.type == "cpu" if function is not _ATEN.copy_.default else not isinstance(target, _Remote)
        if isinstance(source, _Remote) and here:
            self.reads.append(str(function))
        elif not isinstance(source, _Remote) and not here and not goes_on and source.dim():
            self.waits.append(str(function))


def _asks_for_values(function, tensors: list[torch.Tensor]) -> bool:
    """Whether the host must know numbers to go on: for itself, or for the size of the result."""
    if function is _ATEN.index.Tensor:
        return any(index.dtype == torch.bool for index in tensors[1:])
    return function is _ATEN._local_scalar_dense.default or torch.Tag.dynamic_output_shape in function.tags


_active: list[Elsewhere] = []

# Where PyTorch makes tensors of the device by itself, as for `x[..., [3, 8]]` and `torch.tensor([1, 2], device=...)`.
_LIBRARY = torch.library.Library("aten", "IMPL")


def _empty_strided(size, stride, *, dtype=None, **_):
    return _Remote(torch.empty_strided(size, stride, dtype=dtype, device="cpu"))


def _empty(size, *, dtype=None, **_):
    return _Remote(torch.empty(size, dtype=dtype, device="cpu"))


def _copy_from(source, target, non_blocking=False):
    for traffic in _active:
        traffic._note_copy(_ATEN.copy_.default, (target, source), ELSEWHERE, non_blocking)
    ours, theirs = (x.held if isinstance(x, _Remote) else x for x in (target, source))
    ours.copy_(theirs)
    return target


_LIBRARY.impl("empty_strided", _empty_strided, "PrivateUse1")
_LIBRARY.impl("empty.memory_format", _empty, "PrivateUse1")
_LIBRARY.impl("_copy_from", _copy_from, "PrivateUse1")
