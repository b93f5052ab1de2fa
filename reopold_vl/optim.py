"""AdamW, its schedule, and the update that skips a step whose gradient is not finite."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from transformers import get_scheduler


def build_optimizer(
    module: nn.Module, *, lr: float, betas: tuple[float, float], weight_decay: float
) -> torch.optim.AdamW:
    """AdamW over the trainable parameters; norms and biases (one-dimensional) are not decayed."""
    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trainable if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=lr, betas=betas)


def build_scheduler(optimizer: torch.optim.Optimizer, *, name: str, warmup_updates: int, updates: int) -> Any:
    """transformers' schedule over `updates` optimizer updates; its state is a few numbers."""
    return get_scheduler(name, optimizer, num_warmup_steps=warmup_updates, num_training_steps=updates)


def update(
    optimizer: torch.optim.Optimizer, scheduler: Any, parameters: Iterable[nn.Parameter], *, max_grad_norm: float
) -> float | None:
    """Clip and step; the gradient's global norm before clipping, or None if it was not finite and nothing moved."""
    norm = nn.utils.clip_grad_norm_(list(parameters), max_grad_norm)
    finite = bool(torch.isfinite(norm))
    if finite:
        optimizer.step()
    # A skipped update counts in the schedule too: resume and rate stay functions of the step alone.
    scheduler.step()
    optimizer.zero_grad(set_to_none=True)
    return float(norm) if finite else None
