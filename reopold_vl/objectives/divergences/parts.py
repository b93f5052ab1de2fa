"""What the divergences are made of; every function takes log-probabilities [tokens, vocabulary] and returns [tokens]."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor


def kl(p: Float[Tensor, "tokens vocab"], q: Float[Tensor, "tokens vocab"]) -> Float[Tensor, " tokens"]:
    """KL(p || q) in nats; a token of probability 0 under p adds nothing."""
    terms = p.exp() * (p - q)
    return torch.where(p > -torch.inf, terms, 0.0).sum(-1)


def coarse_kl(p: Float[Tensor, "tokens vocab"], q: Float[Tensor, "tokens vocab"], k: int) -> Float[Tensor, " tokens"]:
    """KL between p and q when all tokens but the k likeliest of p are one event: a lower bound of KL(p || q), in nats.

    With the rest as an event of its own both sides stay distributions, so the result is never negative and a student
    cannot lower it by moving probability out of sight.
    """
    top = p.detach().topk(min(k, p.shape[-1]), dim=-1).indices
    return kl(coarse(p, top), coarse(q, top))


def coarse(logprobs: Float[Tensor, "tokens vocab"], top: Int[Tensor, "tokens k"]) -> Float[Tensor, "tokens events"]:
    """Log-probabilities of the tokens `top` and, last, of all others together (at least 1e-9, for the logarithm)."""
    chosen = logprobs.gather(-1, top)
    rest = (1 - chosen.exp().sum(-1, keepdim=True)).clamp(min=1e-9)
    return torch.cat([chosen, rest.log()], -1)


def entropy(p: Float[Tensor, "tokens vocab"]) -> Float[Tensor, " tokens"]:
    """In nats."""
    return -torch.where(p > -torch.inf, p.exp() * p, 0.0).sum(-1)


def pushed(
    student: Float[Tensor, "tokens vocab"],
    ids: Int[Tensor, " tokens"],
    old_logprobs: Float[Tensor, " tokens"],
    advantages: Float[Tensor, " tokens"],
) -> Float[Tensor, " tokens"]:
    """The policy gradient's loss of each token, -rho_t A_t."""
    logprobs = student.gather(-1, ids[:, None])[:, 0]
    return -(logprobs - old_logprobs).exp() * advantages
