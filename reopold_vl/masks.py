"""Attention masks, made once a pass: transformers looks first whether it must, torch makes numbers in each layer."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import reopold_vl.torchvision_shim  # noqa: F401  (before transformers' image code)

# isort: split
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, LinearAttentionLayer


@dataclass(frozen=True)
class Attention:
    """How a model's layers look at tokens.

    `causal`: a token sees all before it and nothing else, in every layer, without a window. `linear`: some layers keep
    a state instead. `typed`: visual tokens see all of their image, and the model is told which these are (Gemma 3).
    """

    causal: bool
    linear: bool
    typed: bool

    @classmethod
    def of(cls, model: Any) -> Attention:
        layers = [type(layer) for layer in DynamicCache(config=model.config.get_text_config()).layers]
        linear = LinearAttentionLayer in layers
        typed = "token_type_ids" in inspect.signature(model.base_model.forward).parameters
        return cls(not typed and set(layers) <= {DynamicLayer, LinearAttentionLayer}, linear, typed)

    def mask(
        self,
        mask: Bool[Tensor, "batch total"] | None,
        *,
        length: int,
        total: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> Any:
        """What transformers takes in a pass of the last `length` of `total` tokens; None is true throughout."""
        if not self.causal:
            return None if mask is None else mask.long()
        made = added_mask(mask, length=length, total=total, dtype=dtype, device=device)
        if not self.linear:
            return made
        # What is padded goes into a state as zeros; a token by itself is none of it.
        return {"full_attention": made, "linear_attention": None if mask is None or length == 1 else mask[:, -length:]}


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
