"""EOPD: reverse KL, and forward KL where the teacher is unsure (arXiv 2603.07079)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from reopold_vl.objectives.divergences.parts import coarse_kl, entropy, kl
from reopold_vl.types import TokenSignal

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

    from reopold_vl.types import ScoredBatch


@dataclass(frozen=True)
class EOPD:
    """EOPD: cover all that the teacher finds possible where it hesitates (arXiv 2603.07079).

    loss_t = KL(pi_S || pi_T) + 1[H_T > tau] KL(pi_T^k || pi_S^k),  M_t = 1

    H_T is the teacher's entropy in nats. pi^k keeps the teacher's k likeliest tokens and makes one event of the rest
    (the paper leaves the rest out).
    """

    threshold: float = 0.8
    """tau, nats of the teacher's entropy above which the forward term counts; 0 or more."""

    k: int = 16
    """The teacher's tokens told apart in the forward term."""

    def __post_init__(self) -> None:
        if not self.threshold >= 0:
            raise ValueError(f"objective.threshold (tau) is {self.threshold}: allowed is 0 or more")
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
        unsure = (entropy(teacher) > self.threshold).to(student.dtype)
        return kl(student, teacher) + unsure * coarse_kl(teacher, student, self.k)
