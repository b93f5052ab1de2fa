"""Prompts that are read once for all their answers: what their layers leave behind, and what each answer sees of it.

Two caches rather than one that grows. Prompts write into the first, once; answers read from the second and leave
nothing, so that a layer may be computed again in the backward pass (`recompute.py`), and no copy of a prompt's keys
for each of its answers stays longer than a layer needs it, unless a gradient does. Attention leaves keys and values,
linear attention the last inputs of its convolution and its state.

A backward pass adds a weight's gradient up over all passes before anyone sees it. A model that is cut up (FSDP2) would
hold the gradients of all layers whole meanwhile: `by_itself` has each pass of answers end on its own.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any, cast

import reopold_vl.torchvision_shim  # noqa: F401  (before transformers' image code)

# isort: split
import torch
from jaxtyping import Int
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers import DynamicCache
from transformers.cache_utils import Cache, DynamicLayer, LinearAttentionCacheLayerMixin, LinearAttentionLayer


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

    def tensors(self) -> list[Any]:
        return [self.keys, self.values]

    def holding(self, tensors: Iterator[Tensor]) -> PromptLayer:
        """The same with the next of these in place of `tensors`."""
        made = copy.copy(self)
        made.keys, made.values = next(tensors), next(tensors)
        return made


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


class PromptStates(LinearAttentionLayer):
    """Keeps what comes first, as it was made: transformers writes over it later on, and there would be no way back.

    It never says that there is something (`has_previous_state`), so that a layer begins anew when it is run again.
    """

    def update_conv_state(
        self, conv_states: Tensor, state_idx: int = 0, conv_kernel_size: int | None = None, **kwargs: Any
    ) -> Tensor:
        size = conv_kernel_size or conv_states.shape[-1]
        padded = nn.functional.pad(conv_states, (max(0, size - conv_states.shape[-1]), 0))
        if self.conv_states[state_idx] is None:
            self.conv_states[state_idx] = padded[..., -size:].clone()  # a view would keep all of it
        return padded

    def update_recurrent_state(self, recurrent_states: Tensor, state_idx: int = 0, **kwargs: Any) -> Tensor:
        if self.recurrent_states[state_idx] is None:
            self.recurrent_states[state_idx] = recurrent_states
        return recurrent_states

    def tensors(self) -> list[Any]:
        return [*self.conv_states.values(), *self.recurrent_states.values()]

    def holding(self, tensors: Iterator[Tensor]) -> PromptStates:
        """The same with the next of these in place of `tensors`."""
        made = copy.copy(self)
        made.conv_states = {number: next(tensors) for number in self.conv_states}
        made.recurrent_states = {number: next(tensors) for number in self.recurrent_states}
        return made


class _OfRows(dict[int, Tensor]):
    """States of prompts, picked out for each row when a layer asks for them."""

    def __init__(self, states: Any, rows: Int[Tensor, " batch"]) -> None:
        super().__init__(states)
        self.rows = rows

    def __getitem__(self, number: int) -> Tensor:
        return super().__getitem__(number).index_select(0, self.rows)


class _AnswerStates(LinearAttentionLayer):
    """Has each row begin with its prompt's states."""

    def __init__(self, prompts: PromptStates, rows: Int[Tensor, " batch"]) -> None:
        super().__init__()
        self.conv_states, self.recurrent_states = (  # pyright: ignore[reportAttributeAccessIssue]
            _OfRows(states, rows) for states in (prompts.conv_states, prompts.recurrent_states)
        )
        self.has_previous_state = dict.fromkeys(self.has_previous_state, True)

    def update_conv_state(self, conv_states: Tensor, state_idx: int = 0, **kwargs: Any) -> Tensor:
        before: Any = self.conv_states[state_idx]
        return torch.cat([before, conv_states], -1)

    def update_recurrent_state(self, recurrent_states: Tensor, state_idx: int = 0, **kwargs: Any) -> Tensor:
        return recurrent_states


def prompt_cache(config: Any) -> RepeatableCache:
    """For the forward pass of prompts; `config` is the language model's."""
    linear = [isinstance(layer, LinearAttentionCacheLayerMixin) for layer in DynamicCache(config=config).layers]
    return RepeatableCache(layers=[PromptStates() if each else PromptLayer() for each in linear])


def answer_cache(prompts: RepeatableCache, rows: Int[Tensor, " batch"]) -> RepeatableCache:
    """For one forward pass of answers, row b of which answers the prompt `rows[b]`; `prompts` stays as it is."""
    return RepeatableCache(layers=[_answer_layer(layer, rows) for layer in prompts.layers])


def _answer_layer(layer: Any, rows: Int[Tensor, " batch"]) -> Any:
    return (_AnswerStates if isinstance(layer, PromptStates) else _AnswerLayer)(layer, rows)


class _ByItself(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, run: Callable[..., Tensor], _: Tensor, *inputs: Tensor) -> Tensor:
        ctx.inputs = [each.detach().requires_grad_(each.requires_grad) for each in inputs]
        with torch.enable_grad():
            ctx.made = run(*ctx.inputs)
        return ctx.made.detach()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        made, inputs = ctx.made, ctx.inputs
        ctx.made = ctx.inputs = None  # or all of it would stay until the whole backward pass is done
        if made.requires_grad:
            torch.autograd.backward(made, gradients)
        return (None, None, *(each.grad for each in inputs))


def by_itself(read: Callable[..., Tensor], prompts: RepeatableCache, rows: Int[Tensor, " batch"]) -> Tensor:
    """`read(cache=answer_cache(prompts, rows))`, whose backward pass ends before that of the prompts begins.

    Weights have its gradients then; `read` reaches nothing else that has one, but for the cache.
    """
    layers = cast(list[Any], prompts.layers)

    def behind(*tensors: Tensor) -> Tensor:
        left = iter(tensors)
        return read(cache=answer_cache(RepeatableCache(layers=[layer.holding(left) for layer in layers]), rows))

    anything = torch.empty(0, requires_grad=True)  # weights have gradients even where nothing in the cache has one
    held = [tensor for layer in layers for tensor in layer.tensors()]
    return _ByItself.apply(behind, anything, *held)  # pyright: ignore[reportReturnType]
