"""Gradient checkpointing: a layer's activations are computed again in the backward pass instead of being kept.

transformers has its own switch, which works in training mode alone (with dropout) and takes the cache away from layers
that decode. This one looks at what a call is for, so that the policy's mode and its rollouts stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import reopold_vl.torchvision_shim  # noqa: F401  (before transformers' image code)

# isort: split
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer


def recompute_layers(model: nn.Module) -> int:
    """Checkpoint every layer of `model` that transformers can checkpoint, towers included; how many there are."""
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    for layer in layers:
        # The forward method, not the call: hooks on the layer (FSDP's among them) stay outside.
        layer.forward = partial(_recomputed, layer.forward)
    return len(layers)


def _recomputed(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Recomputing would extend most caches twice, and without a gradient there is nothing to recompute for."""
    cache = kwargs.get("past_key_values")
    if not torch.is_grad_enabled() or (cache is not None and not getattr(cache, "repeatable", False)):
        return forward(*args, **kwargs)
    return checkpoint(forward, *args, use_reentrant=False, **kwargs)
