"""TrOPD: follow the teacher by policy gradient where it is to be trusted, by its distribution elsewhere."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reopold_vl.objectives.divergences.parts import coarse_kl, pushed
from reopold_vl.types import TokenSignal

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

    from reopold_vl.types import ScoredBatch


@dataclass(frozen=True)
class TrOPD:
    """TrOPD: a trust region by rejection, as speculative decoding accepts tokens (arXiv 2606.01249).

    m_t ~ Bernoulli(min(pi_T(o_t|s_t) / pi_S(o_t|s_t), 1)) = Bernoulli(min(exp R_t, 1))

    loss_t = -rho_t R_t           where m_t = 1 (in trust)
             KL(pi_T^k || pi_S^k)  where m_t = 0 (outlier),     M_t = 1

    pi^k keeps the teacher's k likeliest tokens and makes one event of the rest (the paper leaves the rest out). The
    draws are a function of the step and of the token's place in the batch. With `prefix_steps` T, the teacher writes
    the first (1 + cos(pi t / T)) / 2 of its own answer at step t < T, and the student goes on from there; the loss is
    on the student's part alone (the paper adds 0.001 times a cross-entropy on the teacher's).
    """

    k: int = 64
    """The teacher's tokens told apart."""

    prefix_steps: int | None = None
    """T: steps over which the teacher's share of each answer falls to nothing; None: it writes none."""

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"objective.k is {self.k}: allowed is 1 or more")
        if self.prefix_steps is not None and self.prefix_steps < 1:
            raise ValueError(f"objective.prefix_steps (T) is {self.prefix_steps}: allowed is 1 or more, or None")

    def prefix_share(self, step: int) -> float:
        """The share of the teacher's answer that each answer of this step begins with."""
        if self.prefix_steps is None or step >= self.prefix_steps:
            return 0.0
        return (1 + math.cos(math.pi * step / self.prefix_steps)) / 2

    def __call__(self, batch: ScoredBatch, *, step: int) -> TokenSignal:
        import torch

        generator = torch.Generator().manual_seed(step)
        uniform = torch.rand(batch.rewards.shape, generator=generator)
        trusted = uniform < batch.rewards.clamp(max=0.0).exp()
        inside = trusted & batch.mask
        # What is no outlier carries its reward; NaN tells token_loss the outliers.
        advantages = batch.rewards.where(trusted, torch.nan)
        share = int(inside.sum()) / max(int(batch.mask.sum()), 1)
        return TokenSignal(advantages=advantages, mask=batch.mask, metrics={"tropd/trusted": share})

    def token_loss(
        self,
        student: Float[Tensor, "tokens vocab"],
        teacher: Float[Tensor, "tokens vocab"],
        *,
        ids: Int[Tensor, " tokens"],
        old_logprobs: Float[Tensor, " tokens"],
        advantages: Float[Tensor, " tokens"],
    ) -> Float[Tensor, " tokens"]:
        inside = pushed(student, ids, old_logprobs, advantages.nan_to_num())
        return inside.where(~advantages.isnan(), coarse_kl(teacher, student, self.k))
