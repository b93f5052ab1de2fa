"""vOPD: reverse KL with a value baseline that is known exactly (arXiv 2605.07865)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from reopold_vl.types import TokenSignal

if TYPE_CHECKING:
    from reopold_vl.types import ScoredBatch


@dataclass(frozen=True)
class VOPD:
    """vOPD: the reward against its expectation in the same context (arXiv 2605.07865).

    A_t = R_t - b_t,  b_t = E_{o ~ pi_S}[R_t] = -KL(pi_S(.|s_t) || pi_T(.|s_t)),  M_t = 1

    The baseline depends on the context alone, so the expected gradient is that of reverse_kl, with less variance. It is
    taken over the whole vocabulary, which takes the logits of both models: the teacher must be local.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"divergence"})

    def __call__(self, batch: ScoredBatch, *, step: int) -> TokenSignal:
        assert batch.divergence is not None
        return TokenSignal(
            advantages=batch.rewards + batch.divergence,
            mask=batch.mask,
            metrics={"vopd/divergence": float(batch.divergence[batch.mask].mean()) if batch.mask.any() else 0.0},
        )
