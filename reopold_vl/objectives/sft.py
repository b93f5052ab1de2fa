"""SFT: sequence-level distillation, cross-entropy on the teacher's own answers (arXiv 1606.07947)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from reopold_vl.types import TokenSignal

if TYPE_CHECKING:
    from reopold_vl.types import ScoredBatch


@dataclass(frozen=True)
class SFT:
    """SFT: the teacher answers, the student copies: sequence-level distillation (Kim and Rush, arXiv 1606.07947).

    A_t = 1,  M_t = 1 (with only_correct: 1 for answers that the grader finds right),  o ~ pi_T at temperature 1

    The gradient of -rho_t at rho = 1 is that of -log pi_S(o_t|s_t), the cross-entropy, whose value is logged as
    `sft/cross_entropy` (nats a token). A second update on the same batch has rho in front of it.
    """

    sampler: ClassVar[Literal["student", "teacher"]] = "teacher"

    only_correct: bool = False
    """Train on right answers alone (rejection sampling); a batch without one is a no-op."""

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"correct"}) if self.only_correct else frozenset()

    def __call__(self, batch: ScoredBatch, *, step: int) -> TokenSignal:
        mask = batch.mask
        if self.only_correct:
            assert batch.correct is not None
            mask = mask & (batch.correct > 0.5)[:, None]
        found = {"sft/cross_entropy": -float(batch.old_logprobs[mask].mean())} if mask.any() else {}
        return TokenSignal(advantages=batch.rewards.new_ones(batch.rewards.shape), mask=mask, metrics=found)
