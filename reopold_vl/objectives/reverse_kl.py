"""Vanilla on-policy distillation: reverse KL as a policy gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from reopold_vl.types import TokenSignal

if TYPE_CHECKING:
    from reopold_vl.types import ScoredBatch


@dataclass(frozen=True)
class ReverseKL:
    """Reverse KL: every response token is pushed by its own log-ratio.

    A_t = R_t,  M_t = 1,  R_t = log pi_T(o_t|s_t) - log pi_S(o_t|s_t)

    With R_t held constant the policy gradient of E[sum_t R_t] is the (per-token) gradient of -KL(pi_S || pi_T)
    (Remark 3.1 of arXiv 2603.11137; the baseline "on-policy distillation" there).
    """

    def __call__(self, batch: ScoredBatch, *, step: int) -> TokenSignal:
        return TokenSignal(advantages=batch.rewards, mask=batch.mask)
