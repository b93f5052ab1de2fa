"""A step's answers, from its questions to both models' log-probs, and what can be done meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from reopold_vl.assemble import Parts
from reopold_vl.config import TrainConfig
from reopold_vl.logprobs import TokenStats
from reopold_vl.needs import prefix_share, teacher_answers
from reopold_vl.progress import Stopwatch
from reopold_vl.rollout import Engine, prompt_batches
from reopold_vl.score import sampled_tokens, score_tokens
from reopold_vl.seeds import derive_seed
from reopold_vl.splits import draw
from reopold_vl.teacher_writes import begin_answers, write_answers
from reopold_vl.teachers.local import LocalTeacher
from reopold_vl.teachers.routed import joined_scores
from reopold_vl.types import Prompt, Rollout, TeacherScores, VisualSample

Scored = tuple[list[int], Future[TeacherScores]]  # rows, and their scores when they are there


@dataclass(frozen=True)
class Asked:
    """This process's answers of a step. `keys` are its prompts' places in `samples`.

    `student` has the log-probs of the weights that drew the answers; `teacher()` waits for the teacher's.
    """

    samples: list[VisualSample]
    keys: list[int]
    rollouts: list[Rollout]
    student: TokenStats
    teacher: Callable[[], TeacherScores]


class Asking:
    """Asks the questions of one step after the other; `rollout.overlap` says what happens while the teacher scores.

    none: nothing. parts: the student samples the next part of the step, and learns nothing before all are scored.
    step: it samples the next step as well, so with the weights from before this step's update, and learns while the
    teacher scores that. One thread asks the teacher, part after part. Parts are the batches that the student would
    sample in anyway: the answers and their log-probs are the same bits.
    """

    def __init__(self, config: TrainConfig, parts: Parts, engine: Engine) -> None:
        self.config, self.parts, self.engine = config, parts, engine
        overlap = config.rollout.overlap
        self._pool = None if overlap == "none" else ThreadPoolExecutor(1, thread_name_prefix="teacher")
        self._drawn: dict[int, list[VisualSample]] = {}  # the very objects that are encoded ahead
        self._begun: dict[int, Asked] = {}

    def close(self) -> None:
        """Nothing that has not begun will be scored."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def step(self, step: int, watch: Stopwatch) -> Asked:
        """The step's answers; with overlap `step` those of the next one have begun. Steps come in order."""
        asked = self._begun.pop(step, None) or self._ask(step, watch)
        if self.config.rollout.overlap == "step" and step + 1 < self.config.steps:
            self._begun[step + 1] = self._ask(step + 1, watch)
        return asked

    def _ask(self, step: int, watch: Stopwatch) -> Asked:
        parts = self.parts
        found: dict[int, list[Rollout]] = {}  # by the prompt's place
        scores: list[Scored] = []
        with watch("rollout"):
            samples = self._drawn.pop(step, None) or drawn(self.config, parts, step)
            keys, prompts = parts.encode(samples)  # of several processes each takes its share
            if parts.ahead is not None and step + 1 < self.config.steps:
                self._drawn[step + 1] = drawn(self.config, parts, step + 1)
                parts.ahead.begin(self._drawn[step + 1])
            for places in self._batches(prompts):
                own = [prompts[place] for place in places]
                rollouts = answers(
                    self.config, parts, self.engine, own, keys=[keys[place] for place in places], step=step
                )
                n = len(rollouts) // max(1, len(own))
                found |= {place: rollouts[n * k : n * (k + 1)] for k, place in enumerate(places)}
                if self._pool is not None:
                    rows = [n * place + k for place in places for k in range(n)]
                    scores.append((rows, self._pool.submit(parts.teacher.score, rollouts)))
        rollouts = [rollout for place in range(len(prompts)) for rollout in found[place]]
        with watch("score"):
            student = self._student_view(rollouts)
        return Asked(samples, keys, rollouts, student, lambda: self._teacher_view(rollouts, scores, watch))

    def _batches(self, prompts: Sequence[Prompt]) -> list[list[int]]:
        """Places of the prompts that are answered together."""
        if self._pool is None:
            return [list(range(len(prompts)))]
        own = self.config.rollout
        # An engine is asked once at least: the processes hand their weights over together.
        return prompt_batches(prompts, max(1, own.rows_at_once // own.n)) or [[]]

    def _student_view(self, rollouts: Sequence[Rollout]) -> TokenStats:
        """What the weights that drew the answers say of them, which an exact engine knows already."""
        if self.engine.exact:
            return sampled_tokens(rollouts)
        return score_tokens(self.parts.student, rollouts, rows_at_once=self.config.optim.rows_at_once)

    def _teacher_view(self, rollouts: Sequence[Rollout], scores: list[Scored], watch: Stopwatch) -> TeacherScores:
        if self._pool is not None:
            return joined_scores([(rows, score.result()) for rows, score in scores])
        with watch.cpu("teacher"):
            return self.parts.teacher.score(rollouts)


def drawn(config: TrainConfig, parts: Parts, step: int) -> list[VisualSample]:
    """The questions of a step: a function of the seed and the step."""
    return draw(parts.splits.train, config.prompts_per_step, seed=config.seed, step=step)


def answers(
    config: TrainConfig, parts: Parts, engine: Engine, prompts: Sequence[Prompt], *, keys: Sequence[int], step: int
) -> list[Rollout]:
    """Answers to the step's prompts: the student's, or what the objective wants of the teacher in their place."""
    own = config.rollout
    asked = {"max_new_tokens": own.max_new_tokens, "seed": derive_seed(config.seed, step, "rollout"), "keys": keys}
    if teacher_answers(config.objective):
        assert isinstance(parts.teacher, LocalTeacher)
        return write_answers(parts.teacher, parts.student, prompts, n=own.n, rows_at_once=own.rows_at_once, **asked)
    share = prefix_share(config.objective, step)
    if share > 0:
        assert isinstance(parts.teacher, LocalTeacher)
        prompts = begin_answers(parts.teacher, prompts, share, rows_at_once=own.rows_at_once, **asked)
    return engine.generate(prompts, n=own.n, **asked)
