"""Prompts that are read once for all their answers: their keys and values, and what each answer sees of them.

Two caches rather than one that grows. Prompts write into the first, once; answers read from the second and leave
nothing, so that a layer may be computed again in the backward pass (`recompute.py`), and no copy of a prompt's keys
for each of its answers stays longer than a layer needs it, unless a gradient does.
"""

from __future__ import annotations

import copy
from typing import Any

import reopold_vl.torchvision_shim  # noqa: F401  (before transformers' image code)

# isort: split
import torch
from jaxtyping import Int
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import Cache, DynamicLayer, DynamicSlidingWindowLayer


class RepeatableCache(Cache):
    """A cache that a layer can be run on again with the same result."""

    repeatable = True


class PromptLayer(DynamicLayer):
    """Keeps what comes first. A sliding window needs no layer of its own: the mask does it."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.keys, self.values = key_states, value_states
        return key_states, value_states


class _AnswerLayer(DynamicLayer):
    """Shows each row its prompt's keys and values, with the answer's own behind them."""

    def __init__(self, prompts: Any, rows: Int[Tensor, " batch"]) -> None:
        super().__init__()
        self.prompts, self.rows = prompts, rows

    def get_seq_length(self) -> int:
        return self.prompts.get_seq_length()

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        keys, values = (each.index_select(0, self.rows) for each in (self.prompts.keys, self.prompts.values))
        return torch.cat([keys, key_states], -2), torch.cat([values, value_states], -2)


def attention_alone(config: Any) -> bool:
    """Whether all layers are attention; the states of linear attention are overwritten in place, and hold no gradient.

    `config` is the language model's.
    """
    return all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in DynamicCache(config=config).layers)


def prompt_cache(config: Any) -> Cache:
    """For the forward pass of prompts; `config` is the language model's."""
    if not attention_alone(config):
        return DynamicCache(config=config)
    return RepeatableCache(layers=[PromptLayer() for _ in DynamicCache(config=config).layers])


def answer_cache(prompts: Cache, rows: Int[Tensor, " batch"]) -> Cache:
    """For one forward pass of answers, row b of which answers the prompt `rows[b]`; `prompts` stays as it is."""
    if isinstance(prompts, RepeatableCache):
        return RepeatableCache(layers=[_AnswerLayer(layer, rows) for layer in prompts.layers])
    own = copy.copy(prompts)
    own.layers = [twin(layer) for layer in prompts.layers]
    own.reorder_cache(rows)  # pyright: ignore[reportArgumentType]
    return own


def twin(layer: Any) -> Any:
    """A layer that can be changed without its original; tensors are taken over as they are."""
    twin = copy.copy(layer)
    vars(twin).update({name: dict(held) for name, held in vars(layer).items() if isinstance(held, dict)})
    return twin
