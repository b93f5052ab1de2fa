"""Caches for sampling token by token, and attention that reads a prompt's keys once a step for all its answers."""

from __future__ import annotations

from typing import Any

import reopold_vl.torchvision_shim  # noqa: F401  (before transformers' image code)

# isort: split
import torch
from jaxtyping import Int
from torch import Tensor
from transformers import AttentionInterface
from transformers.cache_utils import Cache, DynamicLayer, LinearAttentionLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from reopold_vl.collate import moved
from reopold_vl.prefix import PromptStates, RepeatableCache

ROOM = 64  # tokens that a cache is made longer by


class _RoomyLayer(DynamicLayer):
    """Grows in place: transformers' own copies all keys and values for every token."""

    keys: Any
    values: Any

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()
        self.lazy_initialization(keys, values)
        self.keys, self.values, self.held = keys, values, keys.shape[-2]

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        stop = self.held + key_states.shape[-2]
        if stop > self.keys.shape[-2]:
            self.keys, self.values = (_longer(each, stop + ROOM) for each in (self.keys, self.values))
        self.keys[:, :, self.held : stop] = key_states
        self.values[:, :, self.held : stop] = value_states
        self.held = stop
        return self.keys[:, :, :stop], self.values[:, :, :stop]

    def get_seq_length(self) -> int:
        return self.held

    def reorder_cache(self, beam_idx: Tensor) -> None:
        self.keys, self.values = (
            each[:, :, : self.held].index_select(0, beam_idx) for each in (self.keys, self.values)
        )


def _longer(tensor: Tensor, length: int) -> Tensor:
    made = tensor.new_empty(*tensor.shape[:2], length, tensor.shape[-1])
    made[:, :, : tensor.shape[-2]] = tensor
    return made


class _Sharing:
    """Which answers, in rows side by side, share a prompt. `slots` [prompts, most] are rows, filled up with any.

    `rows` and `prompts` (those that are left) are in CPU memory, what attention looks up on `device`.
    """

    def __init__(self, rows: Int[Tensor, " rows"], device: torch.device) -> None:
        self.prompts, self.rows, counts = rows.unique(return_inverse=True, return_counts=True)
        number = torch.arange(len(rows))
        place = number - (counts.cumsum(0) - counts)[self.rows]
        slots = number.new_zeros(len(counts), int(counts.max()))
        slots[self.rows, place] = number
        self.even = slots.numel() == len(rows)  # as many for each prompt: nothing to look up
        self.of, self.place, self.slots = (moved(each, device) for each in (self.rows, place, slots))

    def together(self, each: Tensor) -> Tensor:
        """[rows, heads, group, x] -> [prompts, heads, most * group, x]."""
        packed = (each.unflatten(0, self.slots.shape) if self.even else each[self.slots]).transpose(1, 2)
        return packed.reshape(*packed.shape[:2], -1, packed.shape[-1])

    def apart(self, packed: Tensor, group: int) -> Tensor:
        """The inverse."""
        whole = packed.unflatten(2, (-1, group)).transpose(1, 2)
        return whole.flatten(0, 1) if self.even else whole[self.of, self.place]


class _SharedLayer(_RoomyLayer):
    """Holds the answers' own keys and values by row, and those of the prompts by prompt."""

    def __init__(self, prompts: Any, sharing: _Sharing, rows: int) -> None:
        self.sharing = sharing
        # As a product wants them: otherwise each step would copy them.
        self.prompt_keys, self.prompt_values = prompts.keys.contiguous(), prompts.values.contiguous()
        nothing = [each.new_empty(rows, each.shape[1], 0, each.shape[-1]) for each in (prompts.keys, prompts.values)]
        super().__init__(nothing[0], nothing[1])

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        keys, values = super().update(key_states, value_states)
        keys.shared = self  # pyright: ignore[reportAttributeAccessIssue]  (what `_attend` looks for)
        return keys, values

    def get_seq_length(self) -> int:
        return self.prompt_keys.shape[-2] + self.held


class _RowStates(LinearAttentionLayer):
    """Linear attention's states by row, which go on from the prompts'."""

    def __init__(self, prompts: Any, rows: Int[Tensor, " rows"]) -> None:
        super().__init__()
        for number, inputs in prompts.conv_states.items():
            self.lazy_initialization(inputs[rows], prompts.recurrent_states[number][rows], number)
            self.update_conv_state(inputs[rows], number)
            self.update_recurrent_state(prompts.recurrent_states[number][rows], number)


class _SharedCache(Cache):
    def __init__(self, prompts: RepeatableCache, rows: Int[Tensor, " rows"], device: torch.device) -> None:
        self.sharing, own = _Sharing(rows, device), moved(rows, device)
        super().__init__(
            layers=[
                _RowStates(layer, own)
                if isinstance(layer, PromptStates)
                else _SharedLayer(layer, self.sharing, len(rows))
                for layer in prompts.layers
            ]
        )

    def reorder_cache(self, beam_idx: Any) -> None:
        """Rows of different prompts cannot change places: raises NotImplementedError."""
        raise NotImplementedError("use keep_rows")

    def keep(self, rows: Int[Tensor, " fewer"], there: Int[Tensor, " fewer"]) -> None:
        """Prompts without any of these rows are dropped; `there` are the rows on the device."""
        device = there.device
        before, self.sharing = self.sharing, _Sharing(self.sharing.rows[rows], device)
        left = moved(self.sharing.prompts, device) if len(self.sharing.prompts) < len(before.prompts) else None
        for layer in self.layers:
            layer.reorder_cache(there)  # pyright: ignore[reportArgumentType]
            if not isinstance(layer, _SharedLayer):
                continue
            layer.sharing = self.sharing
            if left is not None:
                layer.prompt_keys = layer.prompt_keys.index_select(0, left)
                layer.prompt_values = layer.prompt_values.index_select(0, left)


def sampling_cache(
    prompts: RepeatableCache, rows: Int[Tensor, " rows"], *, attention: str, device: torch.device
) -> Cache:
    """For sampling an answer in each row, which goes on from the prompt `rows[b]`; without gradient.

    `prompts` is a `prefix.prompt_cache` that was filled, `rows` are in CPU memory, the model is on `device`;
    `keep_rows` drops rows. With `attention` sdpa, prompts of several rows stay one copy and are read once a step.
    """
    if attention == "sdpa" and len(rows) > len(rows.unique()):
        return _SharedCache(prompts, rows, device)
    rows = moved(rows, device)
    return Cache(layers=[_for_rows(layer, rows) for layer in prompts.layers])


def keep_rows(cache: Cache, rows: Int[Tensor, " fewer"], *, device: torch.device) -> Int[Tensor, " fewer"]:
    """Go on with these rows of a `sampling_cache` alone; `rows` are in CPU memory, and come back on the device."""
    there = moved(rows, device)
    if isinstance(cache, _SharedCache):
        cache.keep(rows, there)
    else:
        cache.reorder_cache(there)  # pyright: ignore[reportArgumentType]
    return there


def _for_rows(layer: Any, rows: Int[Tensor, " rows"]) -> Any:
    if isinstance(layer, PromptStates):
        return _RowStates(layer, rows)
    return _RoomyLayer(layer.keys.index_select(0, rows), layer.values.index_select(0, rows))


def _attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **settings: Any,
) -> tuple[Tensor, None]:
    """transformers' sdpa attention, and where keys come from a `_SharedLayer` the same in two products.

    query [rows, heads, 1, width]; the mask covers the prompt and, behind it, the answer.
    """
    shared = getattr(key, "shared", None)
    if shared is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **settings)
    rows, heads, _, width = query.shape
    group = heads // key.shape[1]
    query = query.reshape(rows, -1, group, width) * (width**-0.5 if scaling is None else scaling)
    sharing = shared.sharing
    # All that is as long as the prompt stays in the layout of its products, so that none of it is copied.
    of_prompt = sharing.together(query) @ shared.prompt_keys.transpose(-1, -2)
    scores = torch.cat([of_prompt, sharing.together(query @ key.transpose(-1, -2))], -1).float()
    if attention_mask is not None:
        mask = sharing.together(attention_mask.expand(rows, -1, group, -1))
        scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
    weights = scores.softmax(-1).to(value.dtype)
    length = of_prompt.shape[-1]
    seen = sharing.apart(weights[..., :length] @ shared.prompt_values, group)
    return (seen + sharing.apart(weights[..., length:], group) @ value).reshape(rows, 1, heads, -1), None


AttentionInterface.register("sdpa", _attend)  # what is not shared goes through as before
