"""What the divergences are made of; every function takes log-probabilities [tokens, vocabulary], none of them -inf.

Torch is imported where it is needed, here and in the objectives, because `--help` reads their docstrings.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor


def kl(p: Float[Tensor, "tokens vocab"], q: Float[Tensor, "tokens vocab"]) -> Float[Tensor, " tokens"]:
    """KL(p || q) in nats."""
    return (p.exp() * (p - q)).sum(-1)


def coarse_kl(p: Float[Tensor, "tokens vocab"], q: Float[Tensor, "tokens vocab"], k: int) -> Float[Tensor, " tokens"]:
    """KL between p and q when all tokens but the k likeliest of p are one event: a lower bound of KL(p || q), in nats.

    With the rest as an event of its own both sides stay distributions, so the result is never negative and a student
    cannot lower it by moving probability out of sight. From k = vocabulary - 1 on it is KL(p || q).
    """
    if k >= p.shape[-1] - 1:
        return kl(p, q)
    top = p.detach().topk(k, dim=-1).indices
    return kl(coarse(p, top), coarse(q, top))


def coarse(logprobs: Float[Tensor, "tokens vocab"], top: Int[Tensor, "tokens k"]) -> Float[Tensor, "tokens events"]:
    """Log-probabilities of the tokens `top` and, last, of all others together."""
    import torch

    # Summed up as logarithms: 1 - sum of the others loses a small rest to rounding, and its gradient with it.
    rest = logprobs.scatter(-1, top, -inf).logsumexp(-1, keepdim=True)
    return torch.cat([logprobs.gather(-1, top), rest], -1)


def entropy(p: Float[Tensor, "tokens vocab"]) -> Float[Tensor, " tokens"]:
    """In nats."""
    return -(p.exp() * p).sum(-1)


def pushed(
    student: Float[Tensor, "tokens vocab"],
    ids: Int[Tensor, " tokens"],
    old_logprobs: Float[Tensor, " tokens"],
    advantages: Float[Tensor, " tokens"],
) -> Float[Tensor, " tokens"]:
    """The policy gradient's loss of each token, -rho_t A_t."""
    logprobs = student.gather(-1, ids[:, None])[:, 0]
    return -(logprobs - old_logprobs).exp() * advantages
