"""VA-OPD: more weight to answers and tokens that need the picture (arXiv 2605.21924)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from reopold_vl.types import TokenSignal

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int
    from torch import Tensor

    from reopold_vl.types import ScoredBatch


@dataclass(frozen=True)
class VAOPD:
    """VA-OPD: reverse KL weighted by visual advantage, between answers and within each (arXiv 2605.21924).

    VA_t = max(0, log pi_T(o_t | image, ...) - log pi_T(o_t | pixelated image, ...))  (Eq. 2)

    w_i = softmax over the answers to one prompt of z(mean_t VA_it) / temperature, z the prompt's z-score  (Eq. 3, 4)

    loss = mean over prompts of sum_i w_i [a mean_{t in high_i} + (1 - a) mean_{other t}] (-rho_t R_t)  (Eq. 5, 6)

    high_i are the ceil(share T_i) tokens of answer i with the largest VA. Written as A_t = c_t R_t with M = 1: the
    coefficients c_t have mean 1 over the batch. The paper's inner term is the KL over the whole vocabulary.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"groups", "blind_teacher_logprobs"})
    blind: ClassVar[Literal["pixelated", "removed"]] = "pixelated"

    share: float = 0.2
    """Share of each answer's tokens that make up its visual part; above 0, up to 1."""

    visual_weight: float = 0.5
    """a: what the visual part of an answer counts; 0 to 1."""

    temperature: float = 1.0
    """Of the softmax over a prompt's answers; large values weigh them alike."""

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(f"objective.share is {self.share}: allowed is 0 < share <= 1")
        if not 0 <= self.visual_weight <= 1:
            raise ValueError(f"objective.visual_weight is {self.visual_weight}: allowed is 0 to 1")
        if not self.temperature > 0:
            raise ValueError(f"objective.temperature is {self.temperature}: allowed is above 0")

    def __call__(self, batch: ScoredBatch, *, step: int) -> TokenSignal:
        assert batch.groups is not None and batch.blind_teacher_logprobs is not None
        gain = batch.teacher_logprobs - batch.blind_teacher_logprobs
        advantage = gain.clamp(min=0.0).masked_fill(~batch.mask, 0.0)
        lengths = batch.mask.sum(1)
        answers = answer_shares(advantage.sum(1) / lengths.clamp(min=1), batch.groups, self.temperature)
        answers = answers.masked_fill(lengths == 0, 0.0)  # an answer that has no token to train on
        high = highest(advantage, batch.mask, self.share)
        coefficients = answers[:, None] * token_shares(high, batch.mask, self.visual_weight)
        tokens, total = int(batch.mask.sum()), float(coefficients.sum())
        coefficients = coefficients * (tokens / total) if total > 0 else coefficients
        found = float(advantage.sum())
        return TokenSignal(
            advantages=coefficients * batch.rewards,
            mask=batch.mask,
            metrics={
                "va_opd/advantage": found / max(tokens, 1),
                "va_opd/high_share": float(advantage[high].sum()) / found if found else 0.0,
            },
        )


def answer_shares(
    means: Float[Tensor, " batch"], groups: Int[Tensor, " batch"], temperature: float
) -> Float[Tensor, " batch"]:
    """Softmax of the z-scores (population's deviation) over the answers to each prompt; 1 in all for each prompt."""
    _, index, counts = groups.unique(return_inverse=True, return_counts=True)
    zeros = means.new_zeros(len(counts))
    sizes = counts.to(means.dtype)
    centred = means - (zeros.scatter_add(0, index, means) / sizes)[index]
    deviation = (zeros.scatter_add(0, index, centred**2) / sizes).sqrt()
    scores = centred / (deviation[index] + 1e-6) / temperature
    powers = (scores - zeros.scatter_reduce(0, index, scores, "amax", include_self=False)[index]).exp()
    return powers / zeros.scatter_add(0, index, powers)[index]


def highest(
    values: Float[Tensor, "batch time"], mask: Bool[Tensor, "batch time"], share: float
) -> Bool[Tensor, "batch time"]:
    """The ceil(share T) of each row's T tokens in `mask` with the largest values, the earlier one of a tie."""
    order = values.masked_fill(~mask, -1.0).argsort(dim=1, descending=True, stable=True)
    rank = order.argsort(dim=1)
    # 0.07 * 100 is 7.000000000000001 in floating point
    keep = (mask.sum(1, keepdim=True).double() * share).sub(1e-9).ceil()
    return mask & (rank < keep)


def token_shares(
    high: Bool[Tensor, "batch time"], mask: Bool[Tensor, "batch time"], weight: float
) -> Float[Tensor, "batch time"]:
    """1 in each row: `weight` spread over `high`, the rest over its other tokens; without others all over `high`."""
    low = mask & ~high
    many, few = low.sum(1, keepdim=True).float(), high.sum(1, keepdim=True).float()
    upper = (few > 0) * (weight + (1 - weight) * (many == 0)) / few.clamp(min=1)
    lower = (1 - weight) / many.clamp(min=1)
    return upper * high + lower * low
