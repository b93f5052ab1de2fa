"""GRPO and its relatives: reinforcement learning on a verifiable answer, the baseline that needs no teacher."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from reopold_vl.types import TokenSignal

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int
    from torch import Tensor

    from reopold_vl.types import ScoredBatch


@dataclass(frozen=True)
class GRPO:
    """GRPO: every token of an answer is pushed by how much better the answer is than its siblings.

    A_it = (r_i - mean r) / (std r + 1e-6) over the n answers to one prompt, r_i = 1 if the grader finds answer i right

    Maximise  sum_it w_i min(rho_it A_it, clip(rho_it, 1 - clip_low, 1 + clip_high) A_it)  (arXiv 2402.03300). The
    verdict is the benchmark's own grader's; the teacher's log-probs are not looked at. Dr. GRPO (arXiv 2503.20783) is
    scale_by_std off with weighting "answer_sum"; DAPO (arXiv 2503.14476) is clip_high 0.28 with weighting "token".
    w_i, from the whole batch, is 1, or what makes the mean over tokens one over answers (`weighting`).
    """

    needs: ClassVar[frozenset[str]] = frozenset({"groups", "correct"})

    clip_low: float = 0.2
    """The ratio counts no lower than 1 - clip_low."""

    clip_high: float = 0.2
    """The ratio counts no higher than 1 + clip_high; DAPO's "clip higher" is 0.28."""

    scale_by_std: bool = True
    """Divide by the standard deviation of the prompt's verdicts; Dr. GRPO does not."""

    weighting: Literal["token", "answer_mean", "answer_sum"] = "token"
    """What weighs the same: every token; every answer (the original GRPO); or every answer by its tokens over the
    longest answer of the batch (Dr. GRPO's constant length)."""

    def __post_init__(self) -> None:
        for name, value in (("clip_low", self.clip_low), ("clip_high", self.clip_high)):
            if not value > 0 or (name == "clip_low" and value >= 1):
                raise ValueError(
                    f"objective.{name} is {value}: allowed is above 0" + " and below 1" * (name == "clip_low")
                )

    def __call__(self, batch: ScoredBatch, *, step: int) -> TokenSignal:
        assert batch.groups is not None and batch.correct is not None
        answers, idle = group_advantages(batch.correct, batch.groups, scale_by_std=self.scale_by_std)
        advantages = (answers * answer_weights(batch.mask, self.weighting))[:, None].expand_as(batch.rewards)
        return TokenSignal(
            advantages=advantages,
            mask=batch.mask,
            metrics={"grpo/reward": float(batch.correct.mean()), "grpo/idle": idle},
            ratio_bounds=(1 - self.clip_low, 1 + self.clip_high),
        )


def group_advantages(
    rewards: Float[Tensor, " batch"], groups: Int[Tensor, " batch"], *, scale_by_std: bool
) -> tuple[Float[Tensor, " batch"], float]:
    """Each answer's reward against the answers to the same prompt, and the share of answers whose group agrees.

    The standard deviation is the sample's (n - 1), as in public code; a group of one has advantage 0.
    """
    _, index, counts = groups.unique(return_inverse=True, return_counts=True)
    zeros = rewards.new_zeros(len(counts))
    sizes = counts.to(rewards.dtype)
    centred = rewards - (zeros.scatter_add(0, index, rewards) / sizes)[index]
    variance = zeros.scatter_add(0, index, centred**2) / (sizes - 1).clamp(min=1)
    idle = float((variance[index] == 0).float().mean())
    return (centred / (variance.sqrt()[index] + 1e-6) if scale_by_std else centred), idle


def answer_weights(
    mask: Bool[Tensor, "batch time"], weighting: Literal["token", "answer_mean", "answer_sum"]
) -> Float[Tensor, " batch"]:
    """Factors by which the loss's mean over tokens becomes the wanted mean.

    The loss divides by N, the number of tokens. A weight N / (B |o_i|) makes that the mean over answers of their means,
    N / (B max|o|) the mean over answers of their sums over one constant length.
    """
    lengths = mask.sum(1).float()
    if weighting == "token":
        return lengths.new_ones(len(lengths))
    each = lengths.clamp(min=1) if weighting == "answer_mean" else lengths.max().clamp(min=1).expand_as(lengths)
    return lengths.sum() / (len(lengths) * each)
