"""The student's weights under the names of its checkpoint, which is how vLLM's `load_weights` wants them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


def checkpoint_weights(model: Any) -> Iterator[tuple[str, Tensor]]:
    """(name, tensor) of every weight as `save_pretrained` would name it; adapters are added to what they adapt.

    A tied weight comes once. Sharded tensors are gathered one at a time, so every rank must run through the iterator.
    The adapters' products are added on the fly: merging into the weights and taking it back would leave rounding behind
    at every step.
    """
    from transformers.core_model_loading import revert_weight_conversion

    plain = model.get_base_model() if hasattr(model, "get_base_model") else model
    tied = set(getattr(plain, "all_tied_weights_keys", None) or ())
    adapted = {
        f"{name}.weight": module for name, module in plain.named_modules() if hasattr(module, "get_delta_weight")
    }
    state = plain.state_dict()
    if any(".modules_to_save." in name for name in state):
        raise ValueError("an adapter with modules_to_save cannot be handed to vLLM: train those weights without it")
    for name, tensor in state.items():
        own = name.replace(".base_layer.", ".")
        if ".lora_" in name or own in tied:
            continue
        whole = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
        module = adapted.get(own)
        if module is not None:
            with torch.no_grad():
                for adapter in module.active_adapters:
                    whole = whole + module.get_delta_weight(adapter).to(whole.dtype)
        yield from revert_weight_conversion(plain, {own: whole}).items()


def write_weights(model: Any, directory: Path, *, dtype: torch.dtype) -> None:
    """Write `model.safetensors` into `directory`, whole or not at all; other files there are left alone."""
    from safetensors.torch import save_file

    directory.mkdir(parents=True, exist_ok=True)
    weights = {name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in checkpoint_weights(model)}
    unfinished = directory / "model.safetensors.part"
    save_file(weights, unfinished, metadata={"format": "pt"})
    os.replace(unfinished, directory / "model.safetensors")
