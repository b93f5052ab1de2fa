"""A pretend GPU: its tensors compute in CPU memory, cannot be mixed with the CPU's own, and every wait for it is noted.

On a GPU the CPU runs ahead and queues work, until it asks for a value: then it waits for all that was queued, and the
GPU waits for it afterwards. Which calls wait is known without a GPU (PyTorch's own list is behind
`torch.cuda.set_sync_debug_mode`): numbers read from a tensor, shapes that depend on values (`nonzero`, an index with a
mask), and copies that do not come from page-locked memory. What runs here without an error also has no tensor on the
wrong device. Attention is in plain products here, whatever kernel a GPU would take; what an allocator waits for is not
seen.

`install` is for a process of its own: it takes PyTorch's one place for a device written in Python.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

NAME = "pretend"
aten: Any = torch.ops.aten
READS = {aten._local_scalar_dense.default, aten.equal.default}
SHAPED_BY_VALUES = {
    aten.nonzero.default,
    aten.masked_select.default,
    aten.masked_scatter_backward.default,  # which selects with the mask
    aten._unique2.default,
    aten.unique_consecutive.default,
    aten.unique_dim.default,
    aten.repeat_interleave.Tensor,
    aten.bincount.default,
}
INDEXED = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default}


@dataclass(frozen=True)
class Wait:
    """`what` made the CPU wait, in `where` (file:line outside PyTorch), called from `caller` in this project."""

    what: str
    where: str
    caller: str


_noted: list[Wait] = []


class _Module(_DummyBackendModule):
    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]


@lru_cache
def install() -> torch.device:
    """Make the device known to PyTorch, and to this project as one that takes page-locked copies."""
    from reopold_vl import collate
    from reopold_vl.rollout import hf

    _setup_privateuseone_for_python_backend(NAME, backend_module=_Module())
    collate.PAGE_LOCKED.add(NAME)
    hf.STEPS_BETWEEN_CHECKS[NAME] = hf.STEPS_BETWEEN_CHECKS["cuda"]
    return torch.device(NAME, 0)


class _There(Tensor):
    """A tensor on the device; `inner` holds its values."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> _There:
        return Tensor._make_wrapper_subclass(  # pyright: ignore[reportAttributeAccessIssue]
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=torch.device(NAME, 0),
        )

    def __init__(self, inner: Tensor) -> None:
        self.inner = inner

    def __repr__(self) -> str:  # pyright: ignore[reportIncompatibleMethodOverride]
        _note("shown")
        return repr(self.inner)

    __torch_function__ = torch._C._disabled_torch_function_impl  # pyright: ignore[reportAssignmentType]

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(function, args, kwargs or {})


def move(module: nn.Module) -> None:
    """All parameters and buffers to the device, in place; tied ones stay tied."""
    moved: dict[Tensor, nn.Parameter] = {}
    for part in module.modules():
        for name, weight in part._parameters.items():
            if weight is not None:
                found = moved.setdefault(weight, nn.Parameter(_There(weight.data), weight.requires_grad))
                part._parameters[name] = found
        for name, buffer in part._buffers.items():
            part._buffers[name] = None if buffer is None else _There(buffer)


@contextmanager
def waits() -> Iterator[list[Wait]]:
    """Inside it tensors can be made on the device and moved there; the list grows by what waited for it."""
    _noted.clear()
    with torch.autograd.set_multithreading_enabled(False), _Calls(), _Factories():
        yield _noted


def _note(what: str) -> None:
    frames = [frame for frame in traceback.extract_stack() if "/torch/" not in frame.filename]
    frames = [frame for frame in frames if frame.filename != __file__]
    own = [frame for frame in frames if "site-packages" not in frame.filename]
    last, caller = (f"{Path(each[-1].filename).name}:{each[-1].lineno}" for each in (frames, own))
    _noted.append(Wait(what, last, caller))


def _run(function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    there = [each for each in tree_leaves((args, kwargs)) if isinstance(each, _There)]
    here = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor) and not isinstance(each, _There)]
    kwargs, stays = dict(kwargs), bool(there)
    if kwargs.get("device") is not None:
        stays = torch.device(kwargs["device"]).type == NAME
        kwargs["device"] = torch.device("cpu")
    if function is aten._fused_sdp_choice.default:
        return 0  # the plain products: the fused ones of the CPU are no GPU's
    _watch(function, args, there, here, stays)
    inside = {id(each.inner): each for each in there}
    args, kwargs = tree_map_only(_There, lambda each: each.inner, (args, kwargs))
    found = function(*args, **kwargs)
    if not stays or function in READS:
        return found
    return tree_map_only(Tensor, lambda each: inside[id(each)] if id(each) in inside else _There(each), found)


def _watch(function: Any, args: Any, there: list[_There], here: list[Tensor], stays: bool) -> None:
    """Note what waits; raises RuntimeError where tensors of both places meet."""
    name = function._schema.name.removeprefix("aten::")
    if function is aten._to_copy.default:
        if bool(there) != stays and args[0].numel() and not getattr(args[0], "page_locked", False):
            _note("copy to the device" if stays else "copy from the device")
    elif function is aten.copy_.default:
        if there and here and args[1].dim():
            _note("copy")
    elif there and function in READS | SHAPED_BY_VALUES:
        _note(name)
    elif there and function in INDEXED:
        indices = [each for each in args[1] if each is not None]
        if any(each.dtype == torch.bool for each in indices):
            _note(f"{name} with a mask")
        elif any(each.dim() and not isinstance(each, _There) for each in indices):
            _note(f"{name} from CPU memory")
    elif there and any(each.dim() for each in here):
        raise RuntimeError(f"{name} has tensors on the device and in CPU memory")


class _Factories(TorchDispatchMode):
    """Sees what is called with CPU tensors alone, or none."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(function, args, kwargs or {})


class _Calls(TorchFunctionMode):
    """What PyTorch does not dispatch to tensors of another class."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function is Tensor.pin_memory:
            if torch._debug_has_internal_overlap(args[0]) == 1:
                raise RuntimeError("more than one element of the tensor is in the same place: it cannot be page-locked")
            locked = args[0].clone()
            locked.page_locked = True  # what `_watch` looks for
            return locked
        if function is Tensor.tolist and isinstance(args[0], _There):
            _note("tolist")
            return args[0].inner.tolist()
        if function in (torch.tensor, torch.as_tensor) and torch.device(kwargs.get("device") or "cpu").type == NAME:
            values = tree_map_only(_There, lambda each: each.item(), args)
            made = function(*values, **{name: value for name, value in kwargs.items() if name != "device"})
            if made.numel():
                _note("numbers to the device")
            return _There(made)
        return function(*args, **kwargs)
