"""How long will it take? One scaled-down real step in two sizes, extrapolated to the run's own sizes.

Each part of a step costs `a` for being done at all and `b` for each row of it, so that one size is not enough: a small
model's cost is nearly all `a`, a large one's nearly all `b`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from reopold_vl.check.result import Result
from reopold_vl.collate import collate_rollouts
from reopold_vl.models import VisionLanguageModel
from reopold_vl.teachers import Teacher
from reopold_vl.types import Prompt, Rollout

DECODED = 8  # tokens of an answer in the timed rollouts


@dataclass(frozen=True)
class Line:
    """seconds(x) = start + slope * x, neither of them negative."""

    start: float
    slope: float

    def at(self, size: float) -> float:
        return self.start + self.slope * size


@dataclass(frozen=True)
class StepTime:
    """Seconds of one training step's parts, and of a whole run."""

    rollout: float
    scoring: float
    gradient: float
    run: float

    @property
    def step(self) -> float:
        return self.rollout + self.scoring + self.gradient


@dataclass(frozen=True)
class Rates:
    """What was timed, by rows: `prefill` of prompts, one `decode` step of answers, `scoring` and `gradient` of
    answers of `tokens` tokens."""

    prefill: Line
    decode: Line
    scoring: Line
    gradient: Line
    prompt_tokens: float
    tokens: float


def line(small: tuple[float, float], large: tuple[float, float]) -> Line:
    """The line through two (size, seconds); noise must not make a cost that falls with the size."""
    (x, low), (y, high) = small, large
    slope = max(0.0, (high - low) / (y - x)) if y > x else 0.0
    start = max(0.0, low - slope * x)
    return Line(start, slope) if start or slope else Line(0.0, high / y)


def measure(
    student: VisionLanguageModel, teacher: Teacher, prompts: Sequence[Prompt], *, n: int, scored_again: bool
) -> Rates:
    """Time a rollout, the scoring and a gradient pass of `n` answers to one prompt, and to all of `prompts`.

    `scored_again`: the student scores its own answers too, because its sampler is not exact. Weights stay as they are,
    and no gradient is left behind.
    """
    few, many = prompts[:1], list(prompts)
    timed: dict[str, list[tuple[float, float]]] = {"prefill": [], "decode": [], "scoring": [], "gradient": []}
    rollouts: list[Rollout] = []
    _sample(student, few, n, 2)  # the first call of a process is slower than all others
    for some in (few, many):
        first = _seconds(lambda some=some: _sample(student, some, n, 1))
        rollouts = _sample(student, some, n, DECODED)
        steps = max(1, max(len(rollout.response_ids) for rollout in rollouts) - 1)
        whole = _seconds(lambda some=some: _sample(student, some, n, DECODED))
        rows = len(rollouts)
        timed["prefill"].append((len(some), first))
        timed["decode"].append((rows, max(0.0, whole - first) / steps))
        timed["scoring"].append((rows, _seconds(lambda: _score(student, teacher, rollouts, scored_again))))  # noqa: B023
        timed["gradient"].append((rows, _seconds(lambda: _gradient(student, rollouts))))  # noqa: B023
    found = {name: line(*points) for name, points in timed.items()}
    tokens = sum(len(rollout.response_ids) for rollout in rollouts) / len(rollouts)
    return Rates(**found, prompt_tokens=sum(len(prompt.ids) for prompt in many) / len(many), tokens=tokens)


def extrapolate(
    rates: Rates,
    *,
    n: int,
    prompts_per_step: int,
    rollout_rows: int,
    learn_rows: int,
    answer_tokens: float,
    longest_answer: int,
    steps: int,
    graded_answers: int = 0,
    teacher_answers: int = 0,
    teacher_cost: float = 1.0,
) -> StepTime:
    """From timed rows to a run. `answer_tokens` is the mean length expected, `longest_answer` that of a batch.

    `graded_answers` are the student's greedy answers of all measurements together, `teacher_answers` the teacher's,
    each at `teacher_cost` times the student's time.
    """

    def rollout(answers: int, copies: int) -> float:
        chunk = min(answers, max(copies, rollout_rows))
        alive = chunk * answer_tokens / longest_answer  # rows that have ended are dropped
        one = rates.prefill.at(chunk / copies) + longest_answer * rates.decode.at(alive)
        return one * answers / chunk

    rows = n * prompts_per_step
    longer = (rates.prompt_tokens + answer_tokens) / (rates.prompt_tokens + rates.tokens)
    pieces = -(-rows // learn_rows)

    def passes(cost: Line) -> float:
        return pieces * cost.start + cost.slope * rows * longer

    sampled, scored, learned = rollout(rows, n), passes(rates.scoring), passes(rates.gradient)
    measuring = rollout(graded_answers, 1) if graded_answers else 0.0
    measuring += teacher_cost * rollout(teacher_answers, 1) if teacher_answers else 0.0
    return StepTime(sampled, scored, learned, steps * (sampled + scored + learned) + measuring)


def time_result(found: StepTime, *, steps: int) -> Result:
    """Information: no time is too long."""
    measured = (
        f"about {duration(found.step)} a step (rollout {duration(found.rollout)}, scoring {duration(found.scoring)}, "
        f"gradient {duration(found.gradient)}), {duration(found.run)} for {steps:,} steps and the measurements"
    )
    return Result("time", "ok", measured)


def duration(seconds: float) -> str:
    """Seconds for people."""
    if seconds < 120:
        return f"{seconds:.1f} s" if seconds >= 0.95 else f"{seconds:.2f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _sample(student: VisionLanguageModel, prompts: Sequence[Prompt], n: int, tokens: int) -> list[Rollout]:
    return student.engine(rows_at_once=n * len(prompts)).generate(prompts, n=n, max_new_tokens=tokens, seed=0)


def _score(student: VisionLanguageModel, teacher: Teacher, rollouts: Sequence[Rollout], scored_again: bool) -> None:
    from reopold_vl.score import score_tokens

    teacher.score(rollouts)
    if scored_again:
        score_tokens(student, rollouts, rows_at_once=len(rollouts))


def _gradient(student: VisionLanguageModel, rollouts: Sequence[Rollout]) -> None:
    policy = student.policy
    batch = collate_rollouts(rollouts, pad_id=student.pad_id).to(policy.device)
    policy(batch, batch.host.mask).logprobs.sum().backward()
    policy.zero_grad(set_to_none=True)


def _seconds(work: Callable[[], object]) -> float:
    """Wall-clock seconds, the better of two; the GPU's queue is emptied before and after."""
    best = math.inf
    for _ in range(2):
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        begun = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - begun)
    return best
