"""IW-OPD: early tokens weigh more (arXiv 2606.22600)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from reopold_vl.types import TokenSignal

if TYPE_CHECKING:
    from reopold_vl.types import ScoredBatch


@dataclass(frozen=True)
class IWOPD:
    """IW-OPD: a token counts more, the less the answer has left the teacher's path before it (arXiv 2606.22600).

    A_t = w_t R_t,  w_t = 1 + g (1 - sum_{s<t} |R_s| / sum_s |R_s|),  M_t = 1,  R_t = log pi_T - log pi_S

    The weight falls from 1 + g at the first token towards 1, fastest where teacher and student disagree most.
    An answer without any disagreement has w_t = 1 + g throughout (and nothing to learn).
    """

    strength: float = 0.5
    """g >= 0; 0 is reverse_kl."""

    def __post_init__(self) -> None:
        if not self.strength >= 0:
            raise ValueError(f"objective.strength (g) is {self.strength}: allowed is 0 or more")

    def __call__(self, batch: ScoredBatch, *, step: int) -> TokenSignal:
        size = batch.rewards.masked_fill(~batch.mask, 0.0).abs()
        before = size.cumsum(1) - size
        total = size.sum(1, keepdim=True).clamp(min=1e-12)
        weights = 1 + self.strength * (1 - before / total)
        return TokenSignal(advantages=weights * batch.rewards, mask=batch.mask)
