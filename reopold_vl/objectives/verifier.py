"""The teacher's tokens and the grader's verdict together: a mix and a gate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from reopold_vl.objectives.grpo import group_advantages
from reopold_vl.types import TokenSignal

if TYPE_CHECKING:
    from reopold_vl.types import ScoredBatch


@dataclass(frozen=True)
class VerifierMix:
    """Verifier mix: the answer's group advantage plus the token's reward, as KDRL (arXiv 2506.02208) joins them.

    A_it = A_i + a R_it,  A_i = (r_i - mean r) / (std r + 1e-6) over the answers to one prompt,  M = 1
    """

    needs: ClassVar[frozenset[str]] = frozenset({"groups", "correct"})

    teacher_weight: float = 1.0
    """a >= 0; 0 is GRPO without its clip."""

    def __post_init__(self) -> None:
        if not self.teacher_weight >= 0:
            raise ValueError(f"objective.teacher_weight (a) is {self.teacher_weight}: allowed is 0 or more")

    def __call__(self, batch: ScoredBatch, *, step: int) -> TokenSignal:
        assert batch.groups is not None and batch.correct is not None
        answers, idle = group_advantages(batch.correct, batch.groups, scale_by_std=True)
        return TokenSignal(
            advantages=answers[:, None] + self.teacher_weight * batch.rewards,
            mask=batch.mask,
            metrics={"grpo/idle": idle},
        )


@dataclass(frozen=True)
class VerifierGate:
    """Verifier gate: the verdict decides in which direction the teacher may push (after RG-OPD, arXiv 2607.04037).

    A_it = R_it,  M_it = 1[r_i = 1 and R_it > 0, or r_i = 0 and R_it < 0]

    A right answer's tokens are only made likelier and a wrong one's only less likely: a teacher that is wrong about
    this problem cannot pull a right answer down. Our reading of "the verdict gates the reward"; see docs/algorithm.md.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"correct"})

    def __call__(self, batch: ScoredBatch, *, step: int) -> TokenSignal:
        assert batch.correct is not None
        right = batch.correct[:, None] > 0.5
        agree = (right & (batch.rewards > 0)) | (~right & (batch.rewards < 0))
        return TokenSignal(advantages=batch.rewards, mask=batch.mask & agree)
