"""Draws of tokens that do not depend on who else is in the batch: every answer has its own random numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers.generation.logits_process import TopPLogitsWarper


def uniform_numbers(seed: int, keys: Sequence[int], n: int, time: int) -> Float[Tensor, "rows time"]:
    """Numbers in [0, 1) for `n` answers of up to `time` tokens to each prompt of `keys`, float64 on the CPU.

    Entry [k * n + i, t] is a function of `seed`, `keys[k]`, i and t alone: not of the other prompts, of `n` or of
    `time`. The streams are those of numpy's SeedSequence, made to be independent.
    """
    sequences = [np.random.SeedSequence(seed, spawn_key=(key, sample)) for key in keys for sample in range(n)]
    table = np.empty((len(sequences), time))
    for row, sequence in zip(table, sequences, strict=True):
        np.random.Generator(np.random.PCG64(sequence)).random(out=row)
    return torch.from_numpy(table)


def draw_tokens(
    logits: Float[Tensor, "rows vocab"],
    uniforms: Float[Tensor, " rows"],
    *,
    temperature: float,
    top_p: float,
    banned: Int[Tensor, " banned"],
) -> Int[Tensor, " rows"]:
    """One token a row, never a banned one; greedy at temperature 0 (ties: the lowest id).

    Each row's token is where its uniform number falls in the cumulative distribution, summed in float64: float32
    would lose the tail of a large vocabulary.
    """
    logits = logits.float().index_fill(-1, banned, -torch.inf)
    best = logits.argmax(-1)
    if temperature == 0:
        return best
    logits = logits / temperature
    if top_p < 1:
        warp = TopPLogitsWarper(top_p)
        logits = warp(torch.empty(0, dtype=torch.long), logits)  # pyright: ignore[reportArgumentType]
    probabilities = logits.softmax(-1)
    cumulative = probabilities.cumsum(-1, dtype=torch.float64)
    point = uniforms.double()[:, None] * cumulative[:, -1:]
    # `right` passes over tokens of probability 0, which have no width.
    tokens = torch.searchsorted(cumulative, point, right=True).clamp(max=logits.shape[-1] - 1)
    # A device that sums in parts may leave steps of 1e-16 between tokens of probability 0: those are not drawn either.
    possible = probabilities.gather(-1, tokens)[:, 0] > 0
    return torch.where(possible, tokens[:, 0], best)
