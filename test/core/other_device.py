"""A device that is not the host, for tests without a GPU: its tensors compute on the CPU, but live apart.

As CUDA does, it refuses operations on tensors of both places (but for scalars and indices), and it knows when host and
device wait for each other. Built on what PyTorch has for backends in Python; a version without that skips the tests.
"""

from collections.abc import Iterable, Iterator

import pytest
import torch
from torch import library
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing

if not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"):
    pytest.skip("this PyTorch has no devices in Python", allow_module_level=True)

_ATEN = torch.ops.aten
_INDEXING = (_ATEN.index.Tensor, _ATEN.index_put.default, _ATEN.index_put_.default)


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


def _tensors(values: Iterable) -> Iterator[torch.Tensor]:
    """Those among an operation's arguments, also in lists; `_pytree` would take most of the time of a test."""
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _tensors(value)


def _held(value):
    """What stands for an argument on the host."""
    if isinstance(value, (list, tuple)):
        return type(value)(map(_held, value))
    return value.held if isinstance(value, _Remote) else value


def _remote(result):
    """What an operation gives back, on the device."""
    if isinstance(result, (list, tuple)):
        return type(result)(map(_remote, result))
    return _Remote(result) if isinstance(result, torch.Tensor) else result


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
        tensors = list(_tensors((*args, *kwargs.values())))
        remote = any(isinstance(x, _Remote) for x in tensors)
        place = torch.device(kwargs.get("device") or (ELSEWHERE if remote else "cpu"))
        if function is _ATEN._to_copy.default:
            self.note_copy(args[0], place.type == "cpu", kwargs.get("non_blocking", False))
        elif function is _ATEN.copy_.default:
            self.note_copy(args[1], not isinstance(args[0], _Remote), any(args[2:]))
        elif remote:
            self._note_work(function, args, tensors)
        on_host = {"device": torch.device("cpu")} if "device" in kwargs else {}
        held = {name: _held(value) for name, value in (kwargs | on_host).items()}
        result = function(*_held(args), **held)
        if place.type == "cpu":
            return result
        result = _remote(result)
        return return_and_correct_aliasing(function, args, kwargs, result) if remote else result

    def note_copy(self, source: torch.Tensor, to_host: bool, goes_on: bool) -> None:
        if isinstance(source, _Remote) and to_host:
            self.reads.append("copy")
        elif not isinstance(source, _Remote) and not to_host and not goes_on:
            self.waits.append("copy")

    def _note_work(self, function, args, tensors: list[torch.Tensor]) -> None:
        """Raises RuntimeError where a GPU would."""
        indices = [x for x in args[1] if x is not None] if function in _INDEXING else []
        local = [x for x in tensors if not isinstance(x, _Remote) and x.dim() and all(x is not i for i in indices)]
        if local:
            raise RuntimeError(f"{function}: tensors of two devices; on the host {[tuple(x.shape) for x in local]}")
        self.waits += [str(function) for index in indices if not isinstance(index, _Remote)]  # each is copied
        masks = any(index.dtype == torch.bool for index in indices)
        one_value = function in _INDEXING[1:] and args[2].numel() == 1  # a mask with one value needs no places
        dynamic = torch.Tag.dynamic_output_shape in function.tags and function not in _INDEXING
        if dynamic or (masks and not one_value) or function is _ATEN._local_scalar_dense.default:
            self.reads.append(str(function))


_active: list[Elsewhere] = []

# Where PyTorch makes tensors of the device by itself, as for `x[..., [3, 8]]` and `torch.tensor([1, 2], device=...)`.
_LIBRARY = library.Library("aten", "IMPL")


def _empty_strided(size, stride, *, dtype=None, **_):
    return _Remote(torch.empty_strided(size, stride, dtype=dtype, device="cpu"))


def _empty(size, *, dtype=None, **_):
    return _Remote(torch.empty(size, dtype=dtype, device="cpu"))


def _copy_from(source, target, non_blocking=False):
    for traffic in _active:
        traffic.note_copy(source, not isinstance(target, _Remote), non_blocking)
    ours, theirs = (x.held if isinstance(x, _Remote) else x for x in (target, source))
    ours.copy_(theirs)
    return target


_LIBRARY.impl("empty_strided", _empty_strided, "PrivateUse1")
_LIBRARY.impl("empty.memory_format", _empty, "PrivateUse1")
_LIBRARY.impl("_copy_from", _copy_from, "PrivateUse1")
