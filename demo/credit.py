"""What on-policy distillation sees: of each token that the student wrote, whether the teacher would have written it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from demo.contenders import Arena, Role
from demo.errors import DemoError
from demo.tokens import token_texts

if TYPE_CHECKING:
    from reopold_vl.types import Rollout

IMPOSSIBLE = -1e4  # nats; stands for a probability of 0, which JSON has no logarithm for


@dataclass(frozen=True)
class Credit:
    """Both models' view of one answer, token by token: log-probabilities in nats, the student's entropy in nats.

    Raises DemoError for lists of unequal length, for none and for numbers that are not finite.
    """

    tokens: tuple[str, ...]
    student_logprobs: tuple[float, ...]
    teacher_logprobs: tuple[float, ...]
    entropy: tuple[float, ...]

    def __post_init__(self) -> None:
        for name in ("student_logprobs", "teacher_logprobs", "entropy"):
            values = getattr(self, name)
            if len(values) != len(self.tokens) or not values:
                raise DemoError(f"{name} has {len(values)} entries for {len(self.tokens)} tokens: allowed is one each")
            if not all(isinstance(value, int | float) and math.isfinite(value) for value in values):
                raise DemoError(f"{name}: allowed are finite numbers")

    @property
    def rewards(self) -> tuple[float, ...]:
        """R_t = log pi_T - log pi_S, in nats."""
        return tuple(t - s for t, s in zip(self.teacher_logprobs, self.student_logprobs, strict=True))


@dataclass(frozen=True)
class Signal:
    """What REOPOLD makes of a Credit at one lambda and beta: the floor in nats, and per token what the masks keep."""

    mixture: float
    entropy_share: float
    floor: float
    advantages: tuple[float, ...]
    explored: tuple[bool, ...]
    refined: tuple[bool, ...]

    @property
    def clipped(self) -> tuple[bool, ...]:
        """Below the floor: not explored, and never pushed harder than the floor."""
        return tuple(not kept for kept in self.explored)


def credit_of(arena: Arena, role: Role, rollout: Rollout) -> Credit:
    """Score the answer of the model in `role` under the teacher.

    Raises DemoError where student and teacher have no common vocabulary, and ValueError where the teacher cannot take
    the picture.
    """
    if role == "teacher":
        raise DemoError("model 'teacher': the credit view needs an answer of a student")
    if arena.mismatch is not None:
        raise DemoError(f"no credit view for this pair: {arena.mismatch}")
    student, teacher = arena[role], arena["teacher"]
    # The engine knows the student's log-probs at sampling time; where it is not exact they are those of bf16 decoding.
    with arena.alone(teacher.device):
        (logprobs,) = teacher.score([rollout])
    return Credit(
        tokens=token_texts(student.model.tokenizer, rollout.response_ids.tolist()),
        student_logprobs=finite(rollout.logprobs.tolist()),
        teacher_logprobs=finite(logprobs),
        entropy=finite(rollout.entropy.tolist()),
    )


def recolour(credit: Credit, mixture: float, entropy_share: float) -> Signal:
    """Floor, clipping and both masks at this lambda (`mixture`) and beta (`entropy_share`); no model is called.

    The entropy quantile is over the tokens of this one answer (a training step takes it over its whole batch). Raises
    ValueError for values that the objective does not allow.
    """
    import torch

    from reopold_vl.objectives import Reopold
    from reopold_vl.types import ScoredBatch

    batch = ScoredBatch(
        old_logprobs=torch.tensor([credit.student_logprobs]),
        teacher_logprobs=torch.tensor([credit.teacher_logprobs]),
        entropy=torch.tensor([credit.entropy]),
        rewards=torch.tensor([credit.rewards]),
        mask=torch.ones(1, len(credit.tokens), dtype=torch.bool),
    )
    for name, value in (("lambda", mixture), ("beta", entropy_share)):
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise DemoError(f"{name} is {value!r:.40}: allowed is a number")
    explore = Reopold(mixture=mixture, entropy_share=entropy_share, switch_step=None)(batch, step=0)
    refine = Reopold(mixture=mixture, entropy_share=entropy_share, switch_step=0)(batch, step=0)
    return Signal(
        mixture=mixture,
        entropy_share=entropy_share,
        floor=explore.metrics["reopold/floor"],
        advantages=tuple(explore.advantages[0].tolist()),
        explored=tuple(explore.mask[0].tolist()),
        refined=tuple(refine.mask[0].tolist()),
    )


def finite(values: Sequence[float]) -> tuple[float, ...]:
    """The values with a probability of 0 as IMPOSSIBLE; raises DemoError for NaN, which only broken weights give."""
    if any(math.isnan(value) for value in values):
        raise DemoError("the model gives NaN for log-probabilities: broken weights, or its precision overflows")
    return tuple(max(value, IMPOSSIBLE) for value in values)


def as_json(credit: Credit, signal: Signal) -> dict[str, Any]:
    """Both as plain JSON, one entry a token."""
    columns = zip(
        credit.tokens,
        credit.rewards,
        credit.student_logprobs,
        credit.teacher_logprobs,
        credit.entropy,
        signal.advantages,
        signal.clipped,
        signal.explored,
        signal.refined,
        strict=True,
    )
    names = (
        "token",
        "reward",
        "student_logprob",
        "teacher_logprob",
        "entropy",
        "advantage",
        "clipped",
        "explored",
        "refined",
    )
    return {
        "lambda": signal.mixture,
        "beta": signal.entropy_share,
        "floor": signal.floor,
        "tokens": [dict(zip(names, values, strict=True)) for values in columns],
    }


def from_json(value: Any) -> Credit:
    """What `as_json` made; raises DemoError for anything else."""
    try:
        rows = list(value["tokens"])
        return Credit(
            tokens=tuple(str(row["token"]) for row in rows),
            student_logprobs=tuple(row["student_logprob"] for row in rows),
            teacher_logprobs=tuple(row["teacher_logprob"] for row in rows),
            entropy=tuple(row["entropy"] for row in rows),
        )
    except (KeyError, TypeError) as error:
        raise DemoError(f"scored: allowed is what /credit returns ({error})") from error
