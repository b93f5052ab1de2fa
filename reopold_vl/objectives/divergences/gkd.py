"""GKD: generalised knowledge distillation on the student's own answers (arXiv 2306.13649)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reopold_vl.objectives.divergences.parts import kl
from reopold_vl.types import TokenSignal

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

    from reopold_vl.types import ScoredBatch


@dataclass(frozen=True)
class GKD:
    """GKD: the generalised Jensen-Shannon divergence in every context that the student reached (arXiv 2306.13649).

    loss_t = beta KL(pi_T || m) + (1 - beta) KL(pi_S || m),  m = beta pi_T + (1 - beta) pi_S,  M_t = 1

    The ends are taken as their limits after scaling: beta = 0 is KL(pi_T || pi_S) (forward), beta = 1 is
    KL(pi_S || pi_T) (reverse), as TRL has it. Every rollout is the student's own (the paper's lambda = 1).
    """

    beta: float = 0.5
    """0 forward, 1 reverse KL, between them the mixture's weight of the teacher."""

    def __post_init__(self) -> None:
        if not 0 <= self.beta <= 1:
            raise ValueError(f"objective.beta is {self.beta}: allowed is 0 <= beta <= 1")

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
        if self.beta == 0:
            return kl(teacher, student)
        if self.beta == 1:
            return kl(student, teacher)
        mixture = (teacher + math.log(self.beta)).logaddexp(student + math.log1p(-self.beta))
        return self.beta * kl(teacher, mixture) + (1 - self.beta) * kl(student, mixture)
