"""Attention masks, made once a pass: transformers looks first whether it must, torch makes numbers in each layer."""

from __future__ import annotations

import inspect
from typing import Any

import reopold_vl.torchvision_shim  # noqa: F401  (before transformers' image code)

# isort: split
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer


def only_causal(model: Any) -> bool:
    """Whether a token sees all before it and nothing else, in every layer: no window, no linear attention.

    Gemma 3 shows a visual token the rest of its image; it is told by token types.
    """
    layers = DynamicCache(config=model.config.get_text_config()).layers
    inputs = inspect.signature(model.base_model.forward).parameters
    return all(type(layer) is DynamicLayer for layer in layers) and "token_type_ids" not in inputs


def added_mask(
    mask: Bool[Tensor, "batch total"] | None, *, length: int, total: int, dtype: torch.dtype, device: torch.device
) -> Float[Tensor, "rows 1 length total"] | None:
    """0 where the last `length` of `total` tokens may look, else -inf; None where attention is plainly causal.

    A `mask` of None is true throughout: one for all rows then.
    """
    if mask is None and length in (1, total):
        return None
    seen = None if mask is None else mask[:, None, None, :]
    if length > 1:
        places = torch.arange(total, device=device)
        before = (places <= places[-length:, None])[None, None]
        seen = before if seen is None else before & seen
    assert seen is not None
    # Rows lie a multiple of 8 numbers apart, or a GPU's kernel would copy all of it in each layer.
    room = torch.zeros(*seen.shape[:-1], -(-total // 8) * 8, dtype=dtype, device=device)
    return room[..., :total].masked_fill_(~seen, -torch.inf)
