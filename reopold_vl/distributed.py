"""Several processes of one run: they find each other, add up numbers and hand over tensors.

torchrun starts them. Without it every function answers for the one process there is, and torch.distributed is left
alone. All that is exchanged here lies on the CPU (gloo); gradients and weights have their own ways (`sharding.py`).
"""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from reopold_vl.launch import launched, launched_rank

_FAILURE = "reopold_vl/failure"
_store: dist.Store | None = None


class ProcessLost(RuntimeError):
    """Another process has gone without a word."""


class Silenced(BaseException):
    """Another process has failed and said why: this one ends too, and adds nothing."""


@contextmanager
def processes(*, timeout_minutes: float) -> Iterator[None]:
    """The section in which the processes work together; without torchrun, nothing.

    The first process that fails in it raises what it failed with; all others raise Silenced, whatever they met with.
    ProcessLost is raised where a process was killed and could not say anything. Of what they print to standard output,
    the first one's is shown.
    """
    if not launched():
        yield
        return
    _start(timedelta(minutes=timeout_minutes))
    try:
        with nullcontext() if is_first() else redirect_stdout(open(os.devnull, "w")):
            yield
        barrier()  # nobody hangs up while another one is still talking
    except BaseException as error:
        if not _first_to_fail(error):
            raise Silenced from error
        if isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error)):
            raise ProcessLost(
                f"process {rank()} of {size()} lost contact with another one; if that has not said why, it was killed "
                "(out of memory?) or its machine is gone"
            ) from error
        raise
    gc.collect()  # what still holds on to the group would otherwise be taken down after it, and wait for ever
    dist.destroy_process_group()


def _start(timeout: timedelta) -> None:
    global _store
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))  # from now on "cuda" is this process's own
    store, number, count = next(dist.rendezvous("env://", timeout=timeout))
    backend = "cpu:gloo,cuda:nccl" if on_gpu else "gloo"
    dist.init_process_group(backend, store=store, rank=number, world_size=count, timeout=timeout)
    _store = store


def _first_to_fail(error: BaseException) -> bool:
    mine = f"process {launched_rank()}: {type(error).__name__}"
    assert _store is not None
    try:
        return _store.compare_set(_FAILURE, "", mine).decode() == mine
    except (dist.DistError, RuntimeError):  # whoever held the store has gone, and has said why
        return False


def together() -> bool:
    """Whether there are other processes."""
    return size() > 1


def rank() -> int:
    """This process's number, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def size() -> int:
    """The number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_first() -> bool:
    """Whether this process is the one that prints and writes."""
    return rank() == 0


def share_of(items: Sequence[Any], number: int | None = None) -> range:
    """Places of this process's items (or of process `number`'s): every `size()`-th.

    Neighbours go to different processes, so that each contiguous part of `items` is shared out evenly as well.
    """
    return range(rank() if number is None else number, len(items), size())


def barrier() -> None:
    """Wait for all processes."""
    if together():
        largest(0)  # on the CPU, unlike torch's own


def total(value: float) -> float:
    """The sum over all processes."""
    return _reduced(value, dist.ReduceOp.SUM) if together() else value


def largest(value: float) -> float:
    """The maximum over all processes."""
    return _reduced(value, dist.ReduceOp.MAX) if together() else value


def _reduced(value: float, operation: Any) -> float:
    tensor = torch.tensor(value, dtype=torch.float64)
    dist.all_reduce(tensor, operation)
    return float(tensor)


def gather_json(value: Any) -> list[Any]:
    """Every process's `value` (what JSON can hold), by rank. No pickle travels."""
    if not together():
        return [value]
    data = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
    lengths = gather_tensor(torch.tensor([len(data)]), [1] * size())
    return [json.loads(bytes(part.tolist())) for part in gather_tensor(data, [int(length) for length in lengths])]


def gather_tensor(tensor: Tensor, lengths: Sequence[int]) -> list[Tensor]:
    """Every process's `tensor` [lengths[rank], ...], by rank; all but the first dimension must be equal."""
    if not together():
        return [tensor]
    padded = tensor.new_zeros(max(lengths), *tensor.shape[1:])
    padded[: len(tensor)] = tensor
    bits = padded.to(torch.uint8) if tensor.dtype == torch.bool else padded
    found = [torch.empty_like(bits) for _ in lengths]
    dist.all_gather(found, bits.contiguous())
    return [part[:length].to(tensor.dtype) for part, length in zip(found, lengths, strict=True)]
