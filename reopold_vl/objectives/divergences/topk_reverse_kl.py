"""Reverse KL over the student's likeliest tokens: nearly the whole expectation at a fraction of the traffic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from reopold_vl.objectives.divergences.parts import coarse_kl
from reopold_vl.types import TokenSignal

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

    from reopold_vl.types import ScoredBatch


@dataclass(frozen=True)
class TopKReverseKL:
    """Top-k reverse KL: the expectation of reverse_kl's reward in closed form, over k tokens and the rest as one.

    loss_t = KL(pi_S^k || pi_T^k),  pi^k = (pi(v) for the student's k likeliest tokens v, 1 - their sum),  M_t = 1
    """

    k: int = 64
    """Tokens told apart; at the size of the vocabulary it is GKD with beta 1."""

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"objective.k is {self.k}: allowed is 1 or more")

    def __call__(self, batch: ScoredBatch, *, step: int) -> TokenSignal:
        return TokenSignal(advantages=batch.rewards, mask=batch.mask)

    def token_loss(
        self,
        student: Float[Tensor, "tokens vocab"],
        teacher: Float[Tensor, "tokens vocab"],
        *,
        ids: Int[Tensor, " tokens"],
        old_logprobs: Float[Tensor, " tokens"],
        advantages: Float[Tensor, " tokens"],
    ) -> Float[Tensor, " tokens"]:
        return coarse_kl(student, teacher, self.k)
