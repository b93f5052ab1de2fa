"""AdamW, its schedule, and the update that skips a step whose gradient is not finite."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import reopold_vl.torchvision_shim  # noqa: F401  (before transformers' image code)

# isort: split
import torch
from torch import nn
from torch.distributed.tensor import DTensor
from torch.optim.adamw import adamw
from transformers import get_scheduler


class MasterAdamW(torch.optim.AdamW):
    """AdamW on fp32 master copies of low-precision parameters, which are rounded from the copies after every step.

    The relative spacing of bf16 is 2^-8: an update of a real learning rate is smaller than half of it and would be
    lost. Masters and moments are fp32 entries of the optimizer's state (`master`, `exp_avg`, `exp_avg_sq`), so that
    checkpoints carry them. The arithmetic is torch's own, on tensors of the parameters' kind (sharded ones as well).
    """

    def step(self, closure: Callable[[], float] | None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One update of every parameter that has a gradient; a closure is not supported (ValueError)."""
        if closure is not None:
            raise ValueError("MasterAdamW takes no closure")
        with torch.no_grad():
            for group in self.param_groups:
                self._step_group(group)

    def _step_group(self, group: dict[str, Any]) -> None:
        parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
        for parameter in parameters:
            if not self.state[parameter]:
                master = parameter.detach().float().clone()
                moments = {name: torch.zeros_like(master) for name in ("exp_avg", "exp_avg_sq")}
                self.state[parameter] = {"step": torch.tensor(0.0), **moments, "master": master}
        states = [self.state[parameter] for parameter in parameters]
        masters = [state["master"] for state in states]
        adamw(
            masters,
            [parameter.grad.float() for parameter in parameters],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )
        for parameter, master in zip(parameters, masters, strict=True):
            parameter.copy_(master)

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As any optimizer's; torch gives every state its parameter's dtype, so the fp32 ones are taken again."""
        super().load_state_dict(state_dict)
        for group, saved in zip(self.param_groups, state_dict["param_groups"], strict=True):
            for parameter, index in zip(group["params"], saved["params"], strict=True):
                for name, value in state_dict["state"].get(index, {}).items():
                    place = value.device if name == "step" else parameter.device
                    self.state[parameter][name] = value.to(place, torch.float32, copy=True)


def build_optimizer(
    module: nn.Module, *, lr: float, betas: tuple[float, float], weight_decay: float, master: bool = False
) -> torch.optim.AdamW:
    """AdamW over the trainable parameters; norms and biases (one-dimensional) are not decayed.

    `master` keeps fp32 copies of the parameters in the optimizer's state (see MasterAdamW).
    """
    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trainable if p.ndim < 2], "weight_decay": 0.0},
    ]
    return (MasterAdamW if master else torch.optim.AdamW)(groups, lr=lr, betas=betas)


def build_scheduler(
    optimizer: torch.optim.Optimizer, *, name: str, warmup_updates: int, updates: int, min_lr_ratio: float = 0.0
) -> Any:
    """transformers' schedule over `updates` optimizer updates; its state is a few numbers.

    `min_lr_ratio` is where cosine_with_min_lr ends, as a share of the peak; other schedules have no such thing.
    """
    specific = {"min_lr_rate": min_lr_ratio} if name == "cosine_with_min_lr" else None
    return get_scheduler(
        name,
        optimizer,
        num_warmup_steps=warmup_updates,
        num_training_steps=updates,
        scheduler_specific_kwargs=specific,
    )


def update(
    optimizer: torch.optim.Optimizer, scheduler: Any, parameters: Iterable[nn.Parameter], *, max_grad_norm: float
) -> float | None:
    """Clip and step; the gradient's global norm before clipping, or None if it was not finite and nothing moved."""
    norm = nn.utils.clip_grad_norm_(list(parameters), max_grad_norm)
    if isinstance(norm, DTensor):  # of a model that is cut up over processes: each has a part of it
        norm = norm.full_tensor()
    length = float(norm)  # the one time that an update waits for the device
    finite = math.isfinite(length)
    if finite:
        optimizer.step()
    # A skipped update counts in the schedule too: resume and rate stay functions of the step alone.
    scheduler.step()
    optimizer.zero_grad(set_to_none=True)
    return length if finite else None
