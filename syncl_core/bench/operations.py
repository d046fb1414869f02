"""How many operations a network takes: on a GPU about a kernel each, whose launch a small network waits for."""

from torch.utils._python_dispatch import TorchDispatchMode

_COMPUTE_NOTHING = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "_unsafe_view"}


class Operations(TorchDispatchMode):
    """While entered, counts PyTorch's operations that compute something: neither views nor new memory."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        view = any(value.alias_info and not value.alias_info.is_write for value in function._schema.returns)
        self.count += not view and function.overloadpacket.__name__ not in _COMPUTE_NOTHING
        return function(*args, **(kwargs or {}))
