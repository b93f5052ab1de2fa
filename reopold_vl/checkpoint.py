"""Checkpoints that are whole or absent: safetensors and JSON, written aside, flushed to disk, then renamed."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

PREFIX = "step-"
MODEL_FILE, OPTIMIZER_FILE, STATE_FILE = "model.safetensors", "optimizer.safetensors", "state.json"


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
) -> Path:
    """Write `directory/step-NNNNNN`, then delete all but the newest `keep`. `step` counts the steps that are done.

    Raises CheckpointError when the disk is full (or another OSError): older checkpoints stay as they were.
    """

    def write(target: Path) -> None:
        # Tied tensors are written twice here, which costs a little space and needs no knowledge of the model.
        save_file(
            {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}, target / MODEL_FILE
        )
        save_file(_optimizer_tensors(optimizer), target / OPTIMIZER_FILE)
        record = {"step": step, "scheduler": scheduler.state_dict(), **state}
        (target / STATE_FILE).write_text(json.dumps(record, indent=1), encoding="utf-8")

    path = directory / f"{PREFIX}{step:06d}"
    write_atomically(path, write)
    for old in checkpoints(directory)[:-keep]:
        shutil.rmtree(old)
    return path


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Fill the directory `path` by `write(temporary directory)` such that it appears whole or not at all.

    Raises CheckpointError for any OSError, after removing what was half-written.
    """
    temporary = path.with_name(f".{path.name}.tmp")
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
        last = checkpoints(path.parent) or checkpoints(path.parent / "checkpoints")  # the student lies beside them
        full = (isinstance(error, OSError) and error.errno == errno.ENOSPC) or "No space left" in str(error)
        reason = "the disk is full" if full else str(error)
        good = f"the last good checkpoint is {last[-1]}" if last else "no earlier checkpoint exists"
        raise CheckpointError(f"{path} could not be saved: {reason}; {good}") from error


def checkpoints(directory: Path) -> list[Path]:
    """Whole checkpoints, oldest first."""
    return sorted((path for path in directory.glob(f"{PREFIX}*") if (path / STATE_FILE).is_file()), key=step_of)


def step_of(path: Path) -> int:
    """The number of steps that are done in a checkpoint, from its name."""
    return int(path.name.removeprefix(PREFIX))


def load_checkpoint(
    path: Path, *, model: nn.Module, optimizer: torch.optim.Optimizer, scheduler: Any
) -> dict[str, Any]:
    """Restore everything in place and return the state record (`step` and what was saved beside it).

    Raises CheckpointError for a checkpoint that cannot be read or belongs to another model.
    """
    try:
        record = json.loads((path / STATE_FILE).read_text(encoding="utf-8"))
        model.load_state_dict(load_file(path / MODEL_FILE))
        _restore_optimizer(optimizer, load_file(path / OPTIMIZER_FILE))
        _restore_scheduler(scheduler, optimizer, record.pop("scheduler"))
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(
            f"checkpoint {path} cannot be read: {reason}; remove that directory to resume from the one before"
        ) from error
    return record


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's per-parameter state as flat names `index.field`."""
    state = optimizer.state_dict()["state"]
    tensors = {f"{index}.{name}": value.cpu() for index, fields in state.items() for name, value in fields.items()}
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


def _restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, field = name.split(".", 1)
        state.setdefault(int(index), {})[field] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _restore_scheduler(scheduler: Any, optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Go on at the same update of the schedule as it is configured now: another lr or number of steps is heeded."""
    scheduler.last_epoch, scheduler._step_count = state["last_epoch"], state["_step_count"]
    scales = [scale(scheduler.last_epoch) for scale in scheduler.lr_lambdas]
    scheduler._last_lr = [base * scale for base, scale in zip(scheduler.base_lrs, scales, strict=True)]
    for group, rate in zip(optimizer.param_groups, scheduler.get_last_lr(), strict=True):
        group["lr"] = rate


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
