"""The state of a training run as one flat list of named tensors, and back.

Names are the model's own for its weights, `optimizer.INDEX.FIELD` for the optimizer's and `average.NAME` for a moving
average's. Tensors may be cut up over processes (DTensor): what is done here is done to each piece alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

OPTIMIZER, AVERAGE, UPDATES = "optimizer.", "average.", "average.updates"


def own_weights(model: nn.Module) -> dict[str, Tensor]:
    """The tensors of the model's state that training may change, by name; they share its memory.

    Of tied weights the first name stands for all.
    """
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    left_out = {name for name, _ in model.named_parameters(remove_duplicate=False)} - trained
    return {name: tensor for name, tensor in model.state_dict().items() if name not in left_out}


def own_moments(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's per-parameter state as flat names."""
    state = optimizer.state_dict()["state"]
    return {f"{OPTIMIZER}{index}.{field}": value for index, own in state.items() for field, value in own.items()}


def own_averages(average: Any) -> dict[str, Tensor]:
    if average is None:
        return {}
    state = average.state_dict()
    return {UPDATES: state["updates"], **{AVERAGE + name: tensor for name, tensor in state["averages"].items()}}


def empty_moments(
    optimizer: torch.optim.Optimizer, saved: Mapping[str, tuple[torch.Size, torch.dtype]]
) -> dict[str, Tensor]:
    """Room for the saved state of each parameter: like the parameter, cut up as it is, or a single number."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    moments: dict[str, Tensor] = {}
    for name, (shape, dtype) in saved.items():
        if not name.startswith(OPTIMIZER):
            continue
        index = int(name.split(".")[1])
        if index >= len(parameters):
            raise ValueError(
                f"it has optimizer states of more than {len(parameters)} parameters: it is of another model"
            )
        like = parameters[index].detach()
        moments[name] = torch.zeros((), dtype=dtype) if shape == torch.Size() else torch.zeros_like(like, dtype=dtype)
    return moments


def require_same(saved: Mapping[str, tuple[torch.Size, torch.dtype]], targets: Mapping[str, Tensor]) -> None:
    """Raises ValueError with the first tensor that the checkpoint or the run has and the other has not, or not so."""
    for name in sorted(saved.keys() ^ targets.keys()):
        where = "the checkpoint alone" if name in saved else "the run alone"
        raise ValueError(f"{name} is in {where}: it is of another model or of other settings")
    for name, tensor in targets.items():
        if saved[name][0] != tensor.shape:
            raise ValueError(f"{name} is {list(saved[name][0])} in it, {list(tensor.shape)} in the run")


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        _, index, field = name.split(".", 2)
        state.setdefault(int(index), {})[field] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def restore_scheduler(scheduler: Any, optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Go on at the same update of the schedule as it is configured now: another lr or number of steps is heeded."""
    scheduler.last_epoch, scheduler._step_count = state["last_epoch"], state["_step_count"]
    scales = [scale(scheduler.last_epoch) for scale in scheduler.lr_lambdas]
    scheduler._last_lr = [base * scale for base, scale in zip(scheduler.base_lrs, scales, strict=True)]
    for group, rate in zip(optimizer.param_groups, scheduler.get_last_lr(), strict=True):
        group["lr"] = rate
