"""REOPOLD: Relaxed On-Policy Distillation (Ko, Abdali, Kim, Chen, Cameron; arXiv 2603.11137)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from reopold_vl.types import TokenSignal

if TYPE_CHECKING:
    from jaxtyping import Bool, Float
    from torch import Tensor

    from reopold_vl.types import ScoredBatch

FloorForm = Literal["bound", "odds"]


@dataclass(frozen=True)
class Reopold:
    """REOPOLD: a clipped token reward and a two-phase token mask (arXiv 2603.11137).

    Maximise  J = (1 / sum M) sum_t rho_t A_t M_t,  rho_t = pi_theta / pi_old  (Eq. 4)

    A_t = max(R_t, log(lambda) / (1 - lambda)),  R_t = log pi_T(o_t|s_t) - log pi_S(o_t|s_t)  (Eq. 7)

    M_t = 1[R_t >= floor] while step < T_switch (exploration, Eq. 9); afterwards M_t = 1[H_t >= tau_beta], the
    beta share of the batch's tokens with the highest student entropy H_t (refinement, Eq. 8 and 10).
    """

    mixture: float = 0.3
    """lambda in (0, 1): sets the floor of the reward; 0.3 is the paper's, a floor of -1.72 nats."""

    entropy_share: float = 0.2
    """beta in (0, 1]: share of the batch's response tokens that the refinement phase trains on."""

    switch_step: int | None = 20
    """T_switch: the first step of the refinement phase; 0 refines from the start, None never does."""

    floor_form: FloorForm = "bound"
    """bound: log(lambda) / (1 - lambda), the paper's; odds: log(lambda / (1 - lambda)), as some forks write it."""

    def __post_init__(self) -> None:
        if not 0 < self.mixture < 1:
            raise ValueError(f"objective.mixture (lambda) is {self.mixture}: allowed is 0 < mixture < 1")
        if not 0 < self.entropy_share <= 1:
            raise ValueError(f"objective.entropy_share (beta) is {self.entropy_share}: allowed is 0 < share <= 1")
        if self.switch_step is not None and self.switch_step < 0:
            raise ValueError(f"objective.switch_step is {self.switch_step}: allowed is 0 or more, or None")
        if self.floor_form == "odds" and self.mixture > 0.5:
            raise ValueError(
                f"objective.mixture is {self.mixture}: with floor_form=odds the floor is positive above 0.5"
            )

    def __call__(self, batch: ScoredBatch, *, step: int) -> TokenSignal:
        lowest = floor(self.mixture, self.floor_form)
        above = batch.mask & (batch.rewards >= lowest)
        refine = self.switch_step is not None and step >= self.switch_step
        mask = top_entropy(batch.entropy, batch.mask, self.entropy_share) if refine else above
        valid = max(int(batch.mask.sum()), 1)
        return TokenSignal(
            advantages=batch.rewards.clamp(min=lowest),
            mask=mask,
            metrics={
                "reopold/floor": lowest,
                "reopold/clipped": 1.0 - int(above.sum()) / valid,
                "reopold/phase": float(refine),
            },
        )


def floor(mixture: float, form: FloorForm = "bound") -> float:
    """The lowest reward R_t that pushes harder (Eq. 7), in nats; always negative for `bound`.

    `bound`: log(lambda*pi_S + (1-lambda)*pi_T) - log pi_S is at least (1-lambda) R by concavity, and at least
    log(lambda) by dropping pi_T, so R need not count below log(lambda) / (1-lambda).
    """
    if form == "odds":
        return math.log(mixture / (1 - mixture))
    return math.log(mixture) / (1 - mixture)


def top_entropy(
    entropy: Float[Tensor, "batch time"], mask: Bool[Tensor, "batch time"], share: float
) -> Bool[Tensor, "batch time"]:
    """The ceil(share * N) of the N tokens in `mask` with the highest entropy; ties with the last one are all kept.

    Keeping all ties makes the result independent of the order of the rows (and of how they are split over devices).
    """
    valid = entropy[mask]
    if valid.numel() == 0:
        return mask
    keep = math.ceil(round(share * valid.numel(), 9))  # 0.07 * 100 is 7.000000000000001 in floating point
    threshold = valid.topk(keep).values[-1]
    return mask & (entropy >= threshold)
