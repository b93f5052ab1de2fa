"""Several teachers, each for its kind of sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

from reopold_vl.collate import pad_right
from reopold_vl.teachers import SampleView, Teacher
from reopold_vl.types import Answer, Prompt, Rollout, TeacherScores, VisualSample

Value = TypeVar("Value")


@dataclass(frozen=True)
class RoutedTeacher:
    """Asks the teacher that a sample's `source` names in `routes`, and `other` for all other sources.

    What is asked of a teacher as a whole (vocabulary, end tokens) is None where the teachers differ: `parties` gives
    each of them for a check of its own.
    """

    other: Teacher
    routes: Mapping[str, Teacher]

    @property
    def name(self) -> str:
        return ", ".join([*(f"{source}: {teacher.name}" for source, teacher in self.routes.items()), self.other.name])

    @property
    def num_parameters(self) -> int | None:
        return _common([teacher.num_parameters for teacher in self.teachers])

    @property
    def eos_ids(self) -> tuple[int, ...] | None:
        return _common([teacher.eos_ids for teacher in self.teachers])

    @property
    def image_factor(self) -> int | None:
        return _common([teacher.image_factor for teacher in self.teachers])

    @property
    def teachers(self) -> list[Teacher]:
        """Each teacher once, the one for all other sources last."""
        return list({id(teacher): teacher for teacher in [*self.routes.values(), self.other]}.values())

    def of(self, sample: VisualSample) -> Teacher:
        return self.routes.get(sample.source, self.other)

    def vocabulary(self) -> Mapping[str, int] | None:
        return _common([teacher.vocabulary() for teacher in self.teachers])

    def view(self, sample: VisualSample) -> SampleView | None:
        """See `Teacher.view`."""
        return self.of(sample).view(sample)

    def same_prompt(self, prompt: Prompt) -> bool:
        """See `Teacher.same_prompt`."""
        return self.of(prompt.sample).same_prompt(prompt)

    def score(self, rollouts: Sequence[Rollout]) -> TeacherScores:
        """See `Teacher.score`; each teacher scores its own rollouts in one call."""
        pieces: list[tuple[list[int], TeacherScores]] = []
        for teacher in self.teachers:
            rows = [row for row, rollout in enumerate(rollouts) if self.of(rollout.prompt.sample) is teacher]
            if rows:
                pieces.append((rows, teacher.score([rollouts[row] for row in rows])))
        return joined_scores(pieces)

    def answer(
        self, samples: Sequence[VisualSample], *, max_new_tokens: int, rows_at_once: int
    ) -> tuple[list[Answer | None], list[str]]:
        """See `Answerer.answer`."""
        answers: dict[int, Answer | None] = {}
        reasons: list[str] = []
        for teacher in self.teachers:
            rows = [row for row, sample in enumerate(samples) if self.of(sample) is teacher]
            own = [samples[row] for row in rows]
            found, why_not = teacher.answer(own, max_new_tokens=max_new_tokens, rows_at_once=rows_at_once)
            answers.update(zip(rows, found, strict=True))
            reasons += why_not
        return [answers[row] for row in range(len(samples))], reasons


def _common(values: Sequence[Value]) -> Value | None:
    return values[0] if all(value == values[0] for value in values) else None


def joined_scores(pieces: Sequence[tuple[Sequence[int], TeacherScores]]) -> TeacherScores:
    """One of all rows from pieces (rows, their scores) that have each row once between them."""
    logprobs: dict[int, torch.Tensor] = {}
    spans: dict[int, torch.Tensor] = {}
    for rows, scores in pieces:
        logprobs.update(zip(rows, scores.logprobs, strict=True))
        if scores.spans is not None:
            spans.update(zip(rows, scores.spans, strict=True))
    joined = pad_right([logprobs[row] for row in range(len(logprobs))], 0.0)
    if not spans:
        return TeacherScores(joined)
    # A teacher of the student's tokens has a span for each.
    each = torch.arange(joined.shape[1])
    return TeacherScores(joined, pad_right([spans.get(row, each) for row in range(len(logprobs))], -1))


def parties(teacher: Teacher, samples: Sequence[VisualSample]) -> list[tuple[Teacher, Sequence[VisualSample]]]:
    """Each single teacher with the samples that it will see, for a check of each."""
    if not isinstance(teacher, RoutedTeacher):
        return [(teacher, samples)]
    return [(one, [sample for sample in samples if teacher.of(sample) is one]) for one in teacher.teachers]
