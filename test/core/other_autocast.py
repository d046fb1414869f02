"""Autocast on the other device as CUDA has it, whose lists of operations are not those of the CPU.

The lists: https://docs.pytorch.org/docs/stable/amp.html#cuda-op-specific-behavior. `register` makes them hold.
"""

import torch
from other_device import ELSEWHERE
from torch import library
from torch.utils import _pytree

_HALF = (
    "addbmm addmm addmv addr baddbmm bmm linear matmul mm mv prelu conv1d conv2d conv3d conv_transpose2d convolution "
    "scaled_dot_product_attention"
)
_FULL = (
    "acos asin cosh erfinv exp expm1 log log10 log2 log1p reciprocal rsqrt sinh tan pow softplus layer_norm group_norm "
    "cosine_similarity cdist binary_cross_entropy_with_logits dist renorm logsumexp l1_loss mse_loss smooth_l1_loss "
    "nll_loss norm prod softmax log_softmax cumprod cumsum linalg_vector_norm sum upsample_bilinear2d"
)
_WIDEST = "addcdiv addcmul atan2 bilinear cross dot grid_sampler index_put tensordot scatter_add cat stack"
_OURS = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)
_LIBRARIES: list[library.Library] = []


def register() -> None:
    """Once in a process."""
    if _LIBRARIES:
        return
    _LIBRARIES.extend(library.Library(name, "IMPL", "AutocastPrivateUse1") for name in ("_", "aten"))
    rest, ours = _LIBRARIES
    rest.fallback(library.fallthrough_kernel, "AutocastPrivateUse1")
    for names, choose in ((_HALF, lambda _: torch.bfloat16), (_FULL, lambda _: torch.float32), (_WIDEST, _widest)):
        for name in names.split():
            packet = getattr(torch.ops.aten, name)
            for overload in packet.overloads():
                operation = getattr(packet, overload)
                if not operation._schema.is_mutable:
                    suffix = "" if overload == "default" else f".{overload}"
                    ours.impl(name + suffix, _casting(operation, choose), allow_override=True)


def _casting(operation, choose):
    def kernel(*args, **kwargs):
        with torch._C._ExcludeDispatchKeyGuard(_OURS):
            wanted = choose([x for x in _pytree.tree_leaves((args, kwargs)) if _may_change(x)])
            args, kwargs = _pytree.tree_map(lambda x: x.to(wanted) if _may_change(x) else x, (args, kwargs))
            return operation(*args, **kwargs)

    return kernel


def _may_change(value) -> bool:
    return (
        isinstance(value, torch.Tensor)
        and value.is_floating_point()
        and value.dtype != torch.float64
        and value.device == ELSEWHERE
    )


def _widest(tensors: list[torch.Tensor]) -> torch.dtype:
    return torch.float32 if any(x.dtype == torch.float32 for x in tensors) else torch.bfloat16
