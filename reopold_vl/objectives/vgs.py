"""VGS: steer the update towards what the teacher sees (arXiv 2606.00564)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from reopold_vl.objectives.reopold import top_entropy
from reopold_vl.types import TokenSignal

if TYPE_CHECKING:
    from reopold_vl.types import ScoredBatch


@dataclass(frozen=True)
class VGS:
    """VGS: visual gradient steering, the gain from the picture counted again (arXiv 2606.00564), on sampled tokens.

    A_t = eta [R_t + gamma V_t + lambda 1[G_t in the top 1 - q] P_t],  M = 1

    With image I and text x, G_t = log pi_T(o_t|I,x) - log pi_T(o_t|x) is what the picture adds for the teacher, V_t is
    that less the student's own, and P_t = log pi_T(o_t|x) - log pi_S(o_t|x) is between the priors: R_t = V_t + P_t.

    The paper minimises KLs over the vocabulary: to pi_T, to q* ~ pi_S(.|x) pi_T(.|I,x) / pi_T(.|x), and of the priors
    where KL(pi_T(.|I,x) || pi_T(.|x)) is high. Here each is its log-ratio at the sampled token, and so is that gate.
    For R and V this is the same gradient in expectation (q*'s normaliser is a baseline); P, whose own gradient would
    go through pi_S(.|x), pushes pi_S(.|I,x) instead.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"blind_teacher_logprobs", "blind_student_logprobs"})
    blind: ClassVar[Literal["pixelated", "removed"]] = "removed"

    gamma: float = 2.0
    """What the visual term counts; 0 or more."""

    prior_weight: float = 0.01
    """lambda: what the language prior counts on the tokens that need the picture most; 0 or more."""

    quantile: float = 0.7
    """q: share of the batch's tokens on which the language prior does not count; from 0 to below 1."""

    scale: float = 0.41
    """eta: keeps the gradient as large as that of R alone; the paper's is 0.41 for 2B and 0.36 for 4B students."""

    def __post_init__(self) -> None:
        for name in ("gamma", "prior_weight"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"objective.{name} is {getattr(self, name)}: allowed is 0 or more")
        if not 0 <= self.quantile < 1:
            raise ValueError(f"objective.quantile is {self.quantile}: allowed is 0 <= quantile < 1")
        if not self.scale > 0:
            raise ValueError(f"objective.scale (eta) is {self.scale}: allowed is above 0")

    def __call__(self, batch: ScoredBatch, *, step: int) -> TokenSignal:
        assert batch.blind_teacher_logprobs is not None and batch.blind_student_logprobs is not None
        gain = batch.teacher_logprobs - batch.blind_teacher_logprobs
        visual = gain - (batch.old_logprobs - batch.blind_student_logprobs)
        prior = batch.blind_teacher_logprobs - batch.blind_student_logprobs
        gated = top_entropy(gain, batch.mask, 1 - self.quantile)
        steered = batch.rewards + self.gamma * visual + self.prior_weight * prior.masked_fill(~gated, 0.0)
        means = [float(part[batch.mask].mean()) if batch.mask.any() else 0.0 for part in (visual, prior)]
        return TokenSignal(
            advantages=self.scale * steered,
            mask=batch.mask,
            metrics={"vgs/visual": means[0], "vgs/prior": means[1]},
        )
