"""AOPD: policy gradient upwards, the teacher's distribution downwards (arXiv 2605.06387)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from reopold_vl.objectives.divergences.parts import coarse_kl, pushed
from reopold_vl.types import TokenSignal

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

    from reopold_vl.types import ScoredBatch


@dataclass(frozen=True)
class AOPD:
    """AOPD: asymmetric, since a negative reward says what not to write but not what to write (arXiv 2605.06387).

    loss_t = -rho_t R_t           where R_t > 0
             KL(pi_T^k || pi_S^k)  where R_t <= 0,     M_t = 1,  R_t = log pi_T(o_t|s_t) - log pi_S(o_t|s_t)

    pi^k keeps the teacher's k likeliest tokens and makes one event of the rest (the paper leaves the rest out).
    """

    k: int = 8
    """The teacher's tokens told apart."""

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
        upwards = pushed(student, ids, old_logprobs, advantages.clamp(min=0.0))
        return upwards.where(advantages > 0, coarse_kl(teacher, student, self.k))
