"""Token log-probabilities and entropies from hidden states, tile by tile, never a tensor of [tokens, vocabulary]."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

# Larger tiles cost memory, much smaller ones time: 64-256 rows were best on a CPU at V = 151,936.
TILE_ROWS = 128
TILE_ELEMENTS = 1 << 25  # a small vocabulary takes more rows a tile: 2^25 fp32 logits are 128 MiB


class TokenStats(NamedTuple):
    """`logprobs`: log pi(token) in nats; `entropy`: of the full-vocabulary distribution it was drawn from, in nats."""

    logprobs: Tensor
    entropy: Tensor


def _tile_stats(
    hidden: Float[Tensor, "tokens hidden"],
    weight: Float[Tensor, "vocab hidden"],
    bias: Float[Tensor, " vocab"] | None,
    ids: Int[Tensor, " tokens"],
) -> tuple[Float[Tensor, " tokens"], Float[Tensor, " tokens"]]:
    return logit_stats(F.linear(hidden, weight, bias), ids)


def logit_stats(
    logits: Float[Tensor, "tokens vocab"], ids: Int[Tensor, " tokens"]
) -> tuple[Float[Tensor, " tokens"], Float[Tensor, " tokens"]]:
    """Log-probability of `ids` and entropy of each row, in fp32 nats, from logits of any dtype."""
    # log_softmax, not logits - logsumexp: a sure token's log-prob and entropy would be lost in the rounding of a large
    # normaliser. A logit of -inf has probability 0 and adds nothing to the entropy, but 0 * -inf would be NaN.
    everywhere = logits.float().log_softmax(-1)
    finite = everywhere.masked_fill(everywhere == -torch.inf, 0.0)
    entropy = -(everywhere.exp() * finite).sum(-1)
    return everywhere.gather(-1, ids[:, None])[:, 0], entropy


def token_stats(
    hidden: Float[Tensor, "tokens hidden"],
    weight: Float[Tensor, "vocab hidden"],
    bias: Float[Tensor, " vocab"] | None,
    ids: Int[Tensor, " tokens"],
) -> TokenStats:
    """Project `hidden` through the language-model head for the tokens `ids` alone.

    Tiles run under activation checkpointing when a gradient is wanted, so that peak memory holds one tile's logits
    whatever the number of tokens. Logits are reduced in fp32 whatever the dtype of the weights.
    """
    if hidden.shape[0] == 0:
        empty = hidden.new_zeros(0, dtype=torch.float32) + hidden.sum() * 0.0  # keeps the graph connected
        return TokenStats(empty, empty)
    rows = max(TILE_ROWS, TILE_ELEMENTS // weight.shape[0])
    tiles = list(zip(hidden.split(rows), ids.split(rows), strict=True))
    if torch.is_grad_enabled() and len(tiles) > 1:
        parts = [checkpoint(_tile_stats, h, weight, bias, i, use_reentrant=False) for h, i in tiles]
    else:
        parts = [_tile_stats(h, weight, bias, i) for h, i in tiles]
    logprobs, entropy = zip(*parts, strict=True)
    return TokenStats(torch.cat(logprobs), torch.cat(entropy))
