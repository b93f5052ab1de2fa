"""TIP: train on the tokens that are unsure or far from the teacher (arXiv 2604.14084)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from reopold_vl.objectives.reopold import top_entropy
from reopold_vl.types import TokenSignal

if TYPE_CHECKING:
    from jaxtyping import Bool, Float
    from torch import Tensor

    from reopold_vl.types import ScoredBatch


@dataclass(frozen=True)
class TIP:
    """TIP: reverse KL on the share of tokens with the highest importance (arXiv 2604.14084).

    A_t = R_t,  M_t = 1[score_t in the top share],  score = h + d - h d

    h and d are the student's entropy and KL(pi_S || pi_T) in the token's context, each divided by its largest value in
    the batch: a token counts as important if it is unsure OR far from the teacher (the probabilistic "or"). The share
    is taken over the whole batch; ties with its last token are all kept.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"divergence"})

    share: float = 0.5
    """Share of the batch's response tokens that is trained on; 1 is reverse_kl."""

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(f"objective.share is {self.share}: allowed is 0 < share <= 1")

    def __call__(self, batch: ScoredBatch, *, step: int) -> TokenSignal:
        assert batch.divergence is not None
        entropy, divergence = (normalised(values, batch.mask) for values in (batch.entropy, batch.divergence))
        importance = entropy + divergence - entropy * divergence
        return TokenSignal(advantages=batch.rewards, mask=top_entropy(importance, batch.mask, self.share))


def normalised(values: Float[Tensor, "batch time"], mask: Bool[Tensor, "batch time"]) -> Float[Tensor, "batch time"]:
    """Non-negative values over their largest one in the batch; 0 outside the mask."""
    inside = values.masked_fill(~mask, 0.0).clamp(min=0.0)
    return inside / inside.max().clamp(min=1e-12) if inside.numel() else inside
