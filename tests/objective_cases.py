"""One batch of seven tokens, and what each objective makes of it, worked out by hand."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from reopold_vl.loss import policy_gradient_loss
from reopold_vl.objectives import OBJECTIVES, Reopold, ReverseKL
from reopold_vl.objectives.discounted import Discounted
from reopold_vl.objectives.exopd import ExOPD
from reopold_vl.objectives.grpo import GRPO
from reopold_vl.objectives.iw_opd import IWOPD
from reopold_vl.objectives.sft import SFT
from reopold_vl.objectives.tip import TIP
from reopold_vl.objectives.va_opd import VAOPD
from reopold_vl.objectives.verifier import VerifierGate, VerifierMix
from reopold_vl.objectives.vgs import VGS
from reopold_vl.objectives.vopd import VOPD
from reopold_vl.types import ScoredBatch, TokenSignal

T, F = True, False
PAD = 7.5  # what stands outside the mask

# Two answers to one prompt, the first one right. Two rewards are below log(0.3) / 0.7, four below log(0.3 / 0.7).
REWARDS = torch.tensor([[0.4, -1.0, -2.0, PAD], [-0.6, -1.7, -3.0, 0.1]])
ENTROPY = torch.tensor([[0.2, 1.5, 2.0, PAD], [0.9, 0.1, 1.9, 0.3]])
DIVERGENCE = torch.tensor([[0.1, 0.5, 1.0, PAD], [0.2, 0.4, 0.8, 0.05]])
TEACHER_GAIN = torch.tensor([[0.5, -0.2, 0.1, PAD], [0.0, 0.3, 1.5, 0.2]])  # what the picture adds to log pi_T
STUDENT_GAIN = torch.tensor([[0.1, 0.0, 0.3, PAD], [0.2, -0.1, 0.5, 0.4]])
MASK = torch.tensor([[T, T, T, F], [T, T, T, T]])
GROUPS, CORRECT = torch.tensor([4, 4]), torch.tensor([1.0, 0.0])

ALL = [[T, T, T, F], [T, T, T, T]]
ABOVE_BOUND = [[T, T, F, F], [T, T, F, T]]
ABOVE_ODDS = [[T, F, F, F], [T, F, F, T]]
TOP_3 = [[F, T, T, F], [F, F, T, F]]  # ceil(0.4 * 7) = 3: entropies 2.0, 1.9, 1.5
TOP_4 = [[F, T, T, F], [T, F, T, F]]  # ceil(0.5 * 7) = 4 of h + d - h d: 1, 0.99, 0.875, 0.56 (then 0.43)
AGREED = [[T, F, F, F], [T, T, T, F]]  # up in the right answer, down in the wrong one
FIRST = [[T, T, T, F], [F, F, F, F]]
RAW = [[0.4, -1.0, -2.0], [-0.6, -1.7, -3.0, 0.1]]
BOUND = [[0.4, -1.0, -1.719961], [-0.6, -1.7, -1.719961, 0.1]]
ODDS = [[0.4, -0.847298, -0.847298], [-0.6, -0.847298, -0.847298, 0.1]]
A = 0.7071058  # 0.5 / (sqrt(0.5) + 1e-6)


@dataclass(frozen=True)
class Case:
    """An objective at a step; its advantages, mask and loss at rho = 1, minus the mean of A over the mask."""

    objective: Any
    advantages: list[list[float]]
    mask: list[list[bool]]
    loss: float
    step: int = 0
    doubled: float | None = None
    """The loss at rho = 2, where it is not twice the loss."""


CASES: dict[str, Case] = {
    "reverse_kl": Case(ReverseKL(), RAW, ALL, 7.8 / 7),
    "exploration": Case(Reopold(0.3, 0.4, switch_step=20), BOUND, ABOVE_BOUND, 2.8 / 5, step=19),
    "refinement": Case(Reopold(0.3, 0.4, switch_step=20), BOUND, TOP_3, 4.439922 / 3, step=20),
    "refinement_from_the_start": Case(Reopold(0.3, 0.4, switch_step=0), BOUND, TOP_3, 4.439922 / 3),
    "exploration_for_ever": Case(Reopold(0.3, 0.4, switch_step=None), BOUND, ABOVE_BOUND, 2.8 / 5, step=10**6),
    "exploration_odds": Case(Reopold(0.3, 0.4, 20, "odds"), ODDS, ABOVE_ODDS, 0.1 / 3),
    "refinement_odds": Case(Reopold(0.3, 0.4, 20, "odds"), ODDS, TOP_3, 0.847298, step=20),
    # A positive advantage counts 1.2 times at most, a negative one twice: (2 * 4 - 1.2 * 3) / 7.
    "grpo": Case(GRPO(), [[A] * 3, [-A] * 4], ALL, A / 7, doubled=4.4 * A / 7),
    "dapo": Case(GRPO(clip_high=0.28), [[A] * 3, [-A] * 4], ALL, A / 7, doubled=(8 - 3.84) * A / 7),
    # The weight of each token is 7 / (2 * 4): the longest answer has four.
    "dr_grpo": Case(
        GRPO(scale_by_std=False, weighting="answer_sum"), [[0.4375] * 3, [-0.4375] * 4], ALL, 0.0625, doubled=0.275
    ),
    # 7 / (2 * 3) and 7 / (2 * 4): both answers weigh the same, so that their advantages cancel out.
    "grpo_by_answer": Case(
        GRPO(weighting="answer_mean"), [[A * 7 / 6] * 3, [-A * 7 / 8] * 4], ALL, 0.0, doubled=A * 0.8 / 2
    ),
    "discounted": Case(Discounted(0.5), [[-0.3, -1.0, -1.0], [-1.09375, -1.5875, -1.475, 0.05]], ALL, 6.40625 / 7),
    "iw_opd": Case(
        IWOPD(),
        [[0.6, -1.4411765, -2.5882353], [-0.9, -2.4555556, -3.8611111, 0.1009259]],
        ALL,
        10.5451525 / 7,
    ),
    # The reference gives every token -1.5, so that A = 1.25 R + 0.25 * 0.5.
    "exopd": Case(ExOPD(), [[0.625, -1.125, -2.375], [-0.625, -2.0, -3.625, 0.25]], ALL, 8.875 / 7),
    "vopd": Case(VOPD(), [[0.5, -0.5, -1.0], [-0.4, -1.3, -2.2, 0.15]], ALL, 4.75 / 7),
    "tip": Case(TIP(), RAW, TOP_4, 6.6 / 4),
    "verifier_mix": Case(
        VerifierMix(), [[A + 0.4, A - 1.0, A - 2.0], [-A - 0.6, -A - 1.7, -A - 3.0, -A + 0.1]], ALL, (7.8 + A) / 7
    ),
    "verifier_gate": Case(VerifierGate(), RAW, AGREED, 4.9 / 4),
    "sft": Case(SFT(), [[1.0] * 3, [1.0] * 4], ALL, -1.0),
    "sft_on_right_answers": Case(SFT(only_correct=True), [[1.0] * 3, [1.0] * 4], FIRST, -1.0),
    # Mean visual advantages 0.2 and 0.5, z-scores -1 and 1, so the answers weigh 0.1192029 and 0.8807971; half of each
    # is its one high token's (0.5 and 1.5), the rest shared by two and by three; times 7 for a mean of 1.
    "va_opd": Case(
        VAOPD(),
        [[0.1668841, -0.2086051, -0.4172102], [-0.6165580, -1.7469142, -9.2483694, 0.1027597]],
        ALL,
        11.9680131 / 7,
    ),
    # R + 2 V is 1.2, -1.4, -2.4 and -1, -0.9, -1, -0.3; the three largest gains add 0.01 * (0, -2.1, -4).
    "vgs": Case(VGS(), [[0.492, -0.574, -0.984], [-0.41, -0.37761, -0.4264, -0.123]], ALL, 2.40301 / 7),
}


def example() -> ScoredBatch:
    """The batch of the worked examples; every token has log pi_S = -1."""
    old = torch.full_like(REWARDS, -1.0)
    teacher = old + REWARDS
    return ScoredBatch(
        old_logprobs=old,
        teacher_logprobs=teacher,
        entropy=ENTROPY,
        rewards=REWARDS,
        mask=MASK,
        groups=GROUPS,
        correct=CORRECT,
        reference_logprobs=torch.full_like(REWARDS, -1.5),
        divergence=DIVERGENCE,
        blind_teacher_logprobs=teacher - TEACHER_GAIN,
        blind_student_logprobs=old - STUDENT_GAIN,
    )


def scored(rewards: Tensor, entropy: Tensor, mask: Tensor) -> ScoredBatch:
    """A batch with nothing but what every objective gets."""
    old = torch.full_like(rewards, -1.0)
    return ScoredBatch(old, old + rewards, entropy, rewards, mask)


def random_batch(rows: int, time: int, *, seed: int, dtype: torch.dtype = torch.float64) -> ScoredBatch:
    """Everything drawn, prompts with two answers each, about a fifth of the tokens outside the mask."""
    generator = torch.Generator().manual_seed(seed)
    draws = torch.randn(7, rows, time, generator=generator, dtype=dtype)
    rewards, entropy, old, reference, divergence, blind_teacher, blind_student = draws.unbind()
    return ScoredBatch(
        old_logprobs=old,
        teacher_logprobs=old + rewards,
        entropy=(4 * entropy.abs()).round() / 4,  # many ties
        rewards=rewards,
        mask=torch.rand(rows, time, generator=generator) < 0.8,
        groups=torch.arange(rows) // 2,
        correct=torch.rand(rows, generator=generator).round().to(dtype),
        reference_logprobs=old + reference,
        divergence=divergence.abs(),
        blind_teacher_logprobs=old + rewards - blind_teacher,
        blind_student_logprobs=old - blind_student,
    )


def changed(batch: ScoredBatch, change: Any, *, dims: tuple[int, ...] = (1, 2)) -> ScoredBatch:
    """The batch with `change` applied to each tensor of that many dimensions, the mask apart."""
    tensors = {field.name: getattr(batch, field.name) for field in fields(batch) if field.name != "mask"}
    return replace(
        batch, **{name: change(value) for name, value in tensors.items() if value is not None and value.ndim in dims}
    )


def loss_of(signal: TokenSignal, logprobs: Tensor, old: Tensor, *, rows: Any = slice(None)) -> Tensor:
    """What the rows contribute to the loss of the whole signal."""
    return policy_gradient_loss(
        logprobs[rows],
        old[rows],
        signal.advantages[rows],
        signal.mask[rows],
        denominator=int(signal.mask.sum()),
        ratio_bounds=signal.ratio_bounds,
    ).loss


def divergence_names() -> set[str]:
    """Names of the objectives of the second contract."""
    return {name for name, kind in OBJECTIVES.items() if hasattr(kind, "token_loss")}
