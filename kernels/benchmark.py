import weakref
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter


class _LiveBytes(TorchDispatchMode):
    """Counts the bytes of the storages that operators make, from their birth to their release."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self.known = weakref.WeakSet()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        inputs = {t.untyped_storage() for t in tree_iter((args, kwargs)) if isinstance(t, torch.Tensor)}
        for tensor in tree_iter(result):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor.untyped_storage(), inputs)
        return result

    def _count(self, storage, inputs) -> None:
        if storage in self.known or storage in inputs:
            return
        self.known.add(storage)
        size = storage.nbytes()
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._release, size)

    def _release(self, size: int) -> None:
        self.live -= size


def peak_live_bytes(step) -> int:
    """The most bytes that tensors made by `step` held at one time (CPU)."""
    with _LiveBytes() as mode:
        step()
    return mode.peak
