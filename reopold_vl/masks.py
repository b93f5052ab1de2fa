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
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer, LinearAttentionLayer


@dataclass(frozen=True)
class Attention:
    """How a model's layers look at tokens: at all before them, but for what is said here.

    `window`: in some layers at so many tokens, itself included. `linear`: some keep a state instead. `typed`: visual
    tokens see all of their image, and the model is told which these are (Gemma 3). `known`: it takes what `mask` makes.
    """

    known: bool
    window: int | None
    linear: bool
    typed: bool

    @classmethod
    def of(cls, model: Any) -> Attention:
        config = model.config.get_text_config()
        layers = {type(layer) for layer in DynamicCache(config=config).layers}
        near = DynamicSlidingWindowLayer in layers
        named = set(getattr(config, "layer_types", None) or ())  # a model that names none takes one mask for all
        mixed = {DynamicSlidingWindowLayer, LinearAttentionLayer} <= layers or "chunked_attention" in named
        usual = layers <= {DynamicLayer, DynamicSlidingWindowLayer, LinearAttentionLayer} and not mixed
        return cls(
            known=usual and bool(named or not near),
            window=config.sliding_window if near else None,
            linear=LinearAttentionLayer in layers,
            typed="token_type_ids" in inspect.signature(model.base_model.forward).parameters,
        )

    def mask(self, mask: Bool[Tensor, "batch total"] | None, *, length: int, **shape: Any) -> Any:
        """`added_mask`, or for each kind of layer what transformers takes for it."""
        whole = added_mask(mask, length=length, **shape)
        if self.window is not None:
            near = added_mask(mask, length=length, window=self.window, **shape)
            return {"full_attention": whole, "sliding_attention": near}
        if self.linear:
            # What is padded goes into a state as zeros; a token by itself is none of it.
            padded = None if mask is None or length == 1 else mask[:, -length:]
            return {"full_attention": whole, "linear_attention": padded}
        return whole


def added_mask(
    mask: Bool[Tensor, "batch total"] | None,
    *,
    length: int,
    total: int,
    window: int | None = None,
    dtype: torch.dtype,
    device: torch.device,
) -> Float[Tensor, "rows 1 length total"] | None:
    """0 where the last `length` of `total` tokens may look, else -inf; None where attention is plainly causal.

    A `mask` of None is true throughout: one for all rows then. `window` is how many tokens one may look at.
    """
    if window is not None and window >= total:
        window = None
    if mask is None and window is None and length in (1, total):
        return None
    seen = None if mask is None else mask[:, None, None, :]
    if length > 1 or window is not None:
        places = torch.arange(total, device=device)
        here = places[-length:, None]
        before = places <= here if window is None else (places <= here) & (places > here - window)
        seen = before[None, None] if seen is None else before & seen
    assert seen is not None
    # Rows lie a multiple of 8 numbers apart, or a GPU's kernel would copy all of it in each layer.
    room = torch.zeros(*seen.shape[:-1], -(-total // 8) * 8, dtype=dtype, device=device)
    return room[..., :total].masked_fill_(~seen, -torch.inf)
