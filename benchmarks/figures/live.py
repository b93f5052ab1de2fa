"""How much memory tensors take at most: a count, where the resident size has the allocator's noise."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class _Live(TorchDispatchMode):
    """Counts storages from the operation that returns them to their end."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.known: weakref.WeakSet[Any] = weakref.WeakSet()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = function(*args, **(kwargs or {}))
        before = {each.untyped_storage() for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)}
        for storage in (each.untyped_storage() for each in tree_leaves(found) if isinstance(each, Tensor)):
            if storage not in before and storage not in self.known:
                self.known.add(storage)
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self._gone, storage.nbytes())
        return found

    def _gone(self, size: int) -> None:
        self.now -= size


def live_bytes(work: Callable[[], Any]) -> int:
    """The most that tensors made by `work` take at a time; what an operation needs for itself is not seen."""
    with _Live() as live:
        work()
    return live.peak
