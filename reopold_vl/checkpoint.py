"""Checkpoints that are whole or absent: safetensors and JSON, written aside, flushed to disk, then renamed.

One process, or several with a copy each, write whole tensors; the processes of a cut-up model write a shard each, by
torch.distributed.checkpoint (DCP) in its safetensors form, which says where each piece belongs. DCP reads both, on any
number of processes. Nothing is pickled. Frozen weights are left out: they come with the model.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.tensor import DTensor

from reopold_vl import distributed
from reopold_vl.flat_state import (
    UPDATES,
    empty_moments,
    own_averages,
    own_moments,
    own_weights,
    require_same,
    restore_optimizer,
    restore_scheduler,
)

PREFIX = "step-"
MODEL_FILE, OPTIMIZER_FILE, STATE_FILE = "model.safetensors", "optimizer.safetensors", "state.json"
READING = (OSError, ValueError, KeyError, RuntimeError, SafetensorError, CheckpointException)


class CheckpointError(ValueError):
    """A checkpoint that could not be written or read; the message says what is still good."""


def save_checkpoint(
    directory: Path,
    *,
    step: int,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scheduler: Any,
    state: Mapping[str, Any],
    keep: int,
    average: Any = None,
) -> Path:
    """Write `directory/step-NNNNNN`, then delete all but the newest `keep`. `step` counts the steps that are done.

    All processes call it and see the same directory. `average` is a MovingAverage or None. Raises CheckpointError when
    the disk is full (or another OSError): older checkpoints stay as they were.
    """
    path = directory / f"{PREFIX}{step:06d}"
    weights, moments = own_weights(model), own_moments(optimizer) | own_averages(average)
    sharded = any(isinstance(tensor, DTensor) for tensor in weights.values())

    def write(target: Path) -> None:
        if sharded:
            distributed.barrier()  # the directory is there
            _save_shard(target, weights | moments)
        else:
            save_file({name: tensor.cpu().clone() for name, tensor in weights.items()}, target / MODEL_FILE)
            save_file({name: tensor.cpu().contiguous() for name, tensor in moments.items()}, target / OPTIMIZER_FILE)
        record = {"step": step, "scheduler": scheduler.state_dict(), **state}
        (target / STATE_FILE).write_text(json.dumps(record, indent=1), encoding="utf-8")

    if distributed.is_first():
        write_atomically(path, write)
        for old in checkpoints(directory)[:-keep]:
            shutil.rmtree(old)
    elif sharded:
        distributed.barrier()
        _join(path, weights | moments)
    distributed.barrier()
    return path


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Fill the directory `path` by `write(temporary directory)` such that it appears whole or not at all.

    Raises CheckpointError for any OSError, after removing what was half-written.
    """
    temporary = _aside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        write(temporary)
        for file in temporary.iterdir():
            _flush(file)
        _flush(temporary)
        if path.exists():
            shutil.rmtree(path)
        os.replace(temporary, path)
        _flush(path.parent)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise _not_saved(path, error) from error


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.tmp")


def _not_saved(path: Path, error: Exception) -> CheckpointError:
    last = checkpoints(path.parent) or checkpoints(path.parent / "checkpoints")  # the student lies beside them
    full = (isinstance(error, OSError) and error.errno == errno.ENOSPC) or "No space left" in str(error)
    reason = "the disk is full" if full else str(error)
    good = f"the last good checkpoint is {last[-1]}" if last else "no earlier checkpoint exists"
    return CheckpointError(f"{path} could not be saved: {reason}; {good}")


def _save_shard(target: Path, tensors: dict[str, Tensor]) -> None:
    """This process's part of the tensors, by DCP; raises OSError or SafetensorError on all if one cannot write."""
    try:
        dcp.save(tensors, storage_writer=HuggingFaceStorageWriter(str(target), save_distributed=True))
    except CheckpointException as error:
        cause = _cause(error)
        if isinstance(cause, OSError | SafetensorError):
            raise cause from None
        raise


def _join(path: Path, tensors: dict[str, Tensor]) -> None:
    try:
        _save_shard(_aside(path), tensors)
    except (OSError, SafetensorError) as error:
        raise _not_saved(path, error) from error


def checkpoints(directory: Path) -> list[Path]:
    """Whole checkpoints, oldest first."""
    return sorted((path for path in directory.glob(f"{PREFIX}*") if (path / STATE_FILE).is_file()), key=step_of)


def step_of(path: Path) -> int:
    """The number of steps that are done in a checkpoint, from its name."""
    return int(path.name.removeprefix(PREFIX))


def load_checkpoint(
    path: Path, *, model: nn.Module, optimizer: torch.optim.Optimizer, scheduler: Any, average: Any = None
) -> dict[str, Any]:
    """Restore everything in place and return the state record (`step` and what was saved beside it).

    All processes call it; there may be more or fewer of them than when it was saved. Raises CheckpointError for a
    checkpoint that cannot be read or belongs to another model.
    """
    try:
        record = json.loads((path / STATE_FILE).read_text(encoding="utf-8"))
        reader = HuggingFaceStorageReader(str(path))
        found = reader.read_metadata().state_dict_metadata
        saved = {
            name: (torch.Size(entry.size), entry.properties.dtype)
            for name, entry in found.items()
            if isinstance(entry, TensorStorageMetadata)
        }
        moments = empty_moments(optimizer, saved)
        targets = own_weights(model) | moments | own_averages(average)
        require_same(saved, targets)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="torch.distributed is disabled")  # one process: as meant
            dcp.load(targets, storage_reader=reader, no_dist=not distributed.together())
        restore_optimizer(optimizer, moments)
        if average is not None:
            average.load_state_dict({**average.state_dict(), "updates": targets[UPDATES]})
        restore_scheduler(scheduler, optimizer, record.pop("scheduler"))
    except READING as error:
        cause = _cause(error)
        reason = (str(cause).splitlines() or [type(cause).__name__])[0]
        raise CheckpointError(
            f"checkpoint {path} cannot be read: {reason}; remove that directory to resume from the one before"
        ) from error
    return record


def _cause(error: BaseException) -> BaseException:
    """What went wrong in the first process that DCP reports of."""
    if isinstance(error, CheckpointException) and error.failures:
        return next(iter(error.failures.values()))[0]
    return error


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
