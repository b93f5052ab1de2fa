"""G-OPD / ExOPD: extrapolate beyond the teacher, away from where the student began (arXiv 2602.12125)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from reopold_vl.types import TokenSignal

if TYPE_CHECKING:
    from reopold_vl.types import ScoredBatch


@dataclass(frozen=True)
class ExOPD:
    """ExOPD: the teacher's difference from the untrained student counts more than once (arXiv 2602.12125).

    A_t = -[(log pi_S - log pi_T) + (l - 1)(log pi_ref - log pi_T)] = R_t + (l - 1)(log pi_T - log pi_ref),  M_t = 1

    pi_ref is the student before training. l = 1 is reverse_kl; l > 1 extrapolates past the teacher, l < 1 stops short.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"reference_logprobs"})

    extrapolation: float = 1.25
    """l > 0."""

    def __post_init__(self) -> None:
        if not self.extrapolation > 0:
            raise ValueError(f"objective.extrapolation (l) is {self.extrapolation}: allowed is above 0")

    def __call__(self, batch: ScoredBatch, *, step: int) -> TokenSignal:
        assert batch.reference_logprobs is not None
        further = batch.teacher_logprobs - batch.reference_logprobs
        return TokenSignal(advantages=batch.rewards + (self.extrapolation - 1) * further, mask=batch.mask)
