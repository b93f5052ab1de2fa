"""Token log-probabilities and entropies from hidden states, tile by tile, never a tensor of [tokens, vocabulary]."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

# Larger tiles cost memory, much smaller ones time: 64-128 rows were best on a CPU at V = 151,936.
TILE_ROWS = 128
TILE_ELEMENTS = 1 << 24  # a small vocabulary takes more rows a tile: 2^24 fp32 logits are 64 MiB
NO_WEIGHT = -1e4  # exp of it is 0 in fp32, and 0 times it is 0, which 0 times -inf would not be

# What is made of hidden states: a NamedTuple of one vector [tokens] each (`token_stats` is one such reader).
Read = TypeVar("Read", bound=tuple[Tensor, ...])
Reader = Callable[..., Read]


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
    """Log-probability of `ids` and entropy of each row, in fp32 nats, from logits of any dtype; not differentiable."""
    return _reduced(logits.float().log_softmax(-1), ids)


def _reduced(everywhere: Float[Tensor, "tokens vocab"], ids: Int[Tensor, " tokens"]) -> tuple[Tensor, Tensor]:
    # log_softmax, not logits - logsumexp: a sure token's log-prob and entropy would be lost in the rounding of a large
    # normaliser. A logit of -inf has probability 0 and adds nothing to the entropy, but 0 * -inf would be NaN.
    entropy = -everywhere.clamp(min=NO_WEIGHT).mul_(everywhere.exp()).sum(-1)
    return everywhere.gather(-1, ids[:, None])[:, 0], entropy


class _HeadStats(torch.autograd.Function):
    """Log-probs and entropies with a gradient that holds three tiles of logits at a time.

    The backward pass projects a tile once more (one product of four) instead of keeping its logits, unless all tokens
    fit into one tile: then its log-probabilities are kept. With p the distribution and H its entropy,

        d log p(id) / dz = onehot(id) - p,          dH / dz = -p (log p + H)
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, ids: Tensor, rows: int) -> Any:
        found, everywhere = [], None
        for tile, chosen in zip(hidden.split(rows), ids.split(rows), strict=True):
            logits = F.linear(tile, weight, bias)
            ctx.low = logits.dtype  # autocast is at work here, and not in the backward pass
            everywhere = logits.float().log_softmax(-1)
            del logits
            found.append(_reduced(everywhere, chosen))
        logprobs, entropy = (torch.cat(parts) for parts in zip(*found, strict=True))
        ctx.rows = rows
        ctx.save_for_backward(hidden, weight, bias, ids, entropy, everywhere if len(found) == 1 else None)
        ctx.set_materialize_grads(False)
        return logprobs, entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *pushes: Tensor | None) -> Any:
        hidden, weight, bias, ids, entropy, kept = ctx.saved_tensors
        low = ctx.low
        head = weight.to(low)
        shift = None if bias is None else bias.to(low)
        to_hidden, to_weight, to_bias = ctx.needs_input_grad[:3]
        states = torch.empty_like(hidden) if to_hidden else None
        # Sums over all tokens are in fp32 whatever the products are in.
        matrix = torch.zeros(weight.shape, dtype=torch.float32, device=weight.device) if to_weight else None
        offset = torch.zeros(weight.shape[0], dtype=torch.float32, device=weight.device) if to_bias else None
        for start in range(0, len(hidden), ctx.rows):
            tile = slice(start, start + ctx.rows)
            inputs = hidden[tile].to(low)
            everywhere = kept if kept is not None else F.linear(inputs, head, shift).float().log_softmax(-1)
            push = [None if each is None else each[tile].float()[:, None] for each in pushes]
            logits = _logit_gradient(everywhere, ids[tile, None], entropy[tile, None], *push)
            if offset is not None:
                offset += logits.sum(0)
            logits = logits.to(low)
            if states is not None:
                states[tile] = logits @ head
            if matrix is not None and low == torch.float32:
                matrix.addmm_(logits.T, inputs)
            elif matrix is not None:
                matrix += logits.T @ inputs
            del everywhere, logits
        return (
            states,
            None if matrix is None else matrix.to(weight.dtype),
            None if offset is None or bias is None else offset.to(bias.dtype),
            None,
            None,
        )


def _logit_gradient(
    everywhere: Tensor, ids: Tensor, entropy: Tensor, logprob_push: Tensor | None, entropy_push: Tensor | None
) -> Float[Tensor, "tokens vocab"]:
    """What the logits of a tile are pushed by; the pushes are the loss's derivatives by log-prob and by entropy."""
    gradient = everywhere.exp()
    if entropy_push is None:
        assert logprob_push is not None  # torch asks for no gradient otherwise
        gradient.mul_(-logprob_push)
    else:
        level = entropy_push * entropy + (0.0 if logprob_push is None else logprob_push)
        gradient.mul_(everywhere.clamp(min=NO_WEIGHT).mul_(-entropy_push).sub_(level))
    if logprob_push is not None:
        gradient.scatter_add_(-1, ids, logprob_push)
    return gradient


def token_stats(
    hidden: Float[Tensor, "tokens hidden"],
    weight: Float[Tensor, "vocab hidden"],
    bias: Float[Tensor, " vocab"] | None,
    ids: Int[Tensor, " tokens"],
) -> TokenStats:
    """Project `hidden` through the language-model head for the tokens `ids` alone.

    Peak memory holds three tiles of logits whatever the number of tokens, with a gradient as well. Logits are reduced
    in fp32 whatever the dtype of the weights.
    """
    if hidden.shape[0] == 0:
        empty = hidden.new_zeros(0, dtype=torch.float32) + hidden.sum() * 0.0  # keeps the graph connected
        return TokenStats(empty, empty)
    rows = max(TILE_ROWS, TILE_ELEMENTS // weight.shape[0])
    if torch.is_grad_enabled():
        return TokenStats(*_HeadStats.apply(hidden, weight, bias, ids, rows))  # pyright: ignore[reportGeneralTypeIssues]
    parts = [_tile_stats(h, weight, bias, i) for h, i in zip(hidden.split(rows), ids.split(rows), strict=True)]
    logprobs, entropy = zip(*parts, strict=True)
    return TokenStats(torch.cat(logprobs), torch.cat(entropy))
