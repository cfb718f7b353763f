"""The most memory that a piece of work holds at one time: counted tensor by tensor, or as the machine sees it."""

import ctypes
import gc
import math
import weakref
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of the storages that operators create on `device` and that are still alive; `peak` is the most
    at once. `known`: tensors that do not count, parameters and inputs."""

    def __init__(self, known: Iterable[Tensor], device: str) -> None:
        super().__init__()
        self.device = device
        self.live = self.peak = 0
        self.known = weakref.WeakSet(tensor.untyped_storage() for tensor in known)

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and tensor.device.type == self.device:
                storage = tensor.untyped_storage()
                if storage not in self.known:
                    self.known.add(storage)
                    size = -(-storage.nbytes() // 512) * 512  # the CUDA allocator's grain
                    self.live += size
                    self.peak = max(self.peak, self.live)
                    weakref.finalize(storage, self._free, size)
        return result

    def _free(self, size: int) -> None:
        self.live -= size


def peak_bytes(step: Callable[[], object], device: str) -> float:
    """Peak memory above what is held before `step`: the allocator's on CUDA, the process's resident memory on Linux."""
    gc.collect()
    if device == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        step()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    if not Path("/proc/self/clear_refs").exists():
        return math.nan
    ctypes.CDLL(None).malloc_trim(0)
    before = _resident_bytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
    step()
    return _resident_bytes("VmHWM") - before


def _resident_bytes(field: str) -> int:
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status[field].split()[0]) * 1024
