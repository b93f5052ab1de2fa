"""The benchmark of the embedded pair: 2,200 questions (test) about 3 x 3 grids of shapes and handwritten digits.

Computed, not read: the problems of a split are a function of their number (`reopold_vl.zoo.task`), and no image is in
two splits. Licence: as this repository. Eleven types of questions take turns.

Both scorers are `reopold_vl.answers.is_correct`, the rule behind the table that training prints, so the two agree; the
models were trained on the bare question, so prompts add nothing to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, overload

from eval.benches import common, vqa
from eval.benchmark import Benchmark, BenchmarkError, Row
from eval.types import Problem, Verdict
from reopold_vl.answers import extract_answer, is_correct

if TYPE_CHECKING:
    from reopold_vl.types import VisualSample

NUM_PROBLEMS = {"test": 2_200, "validation": 440}


class Problems(Sequence[Problem]):
    """The problems of a split, each drawn when it is asked for."""

    def __init__(self, split: str) -> None:
        if split not in NUM_PROBLEMS:
            raise BenchmarkError(f"split {split!r} must be one of {', '.join(NUM_PROBLEMS)}")
        self._split = split

    def __len__(self) -> int:
        return NUM_PROBLEMS[self._split]

    @overload
    def __getitem__(self, index: int) -> Problem: ...
    @overload
    def __getitem__(self, index: slice) -> list[Problem]: ...
    def __getitem__(self, index: int | slice) -> Problem | list[Problem]:
        from reopold_vl.zoo import task

        numbers = range(len(self))[index]
        split = "test" if self._split == "test" else "validation"
        if isinstance(numbers, int):
            return of_sample(task.problem(split, numbers).sample)
        return [of_sample(task.problem(split, number).sample) for number in numbers]


def of_sample(sample: VisualSample) -> Problem:
    """An embedded sample as a problem."""
    answer = sample.answer or ""
    return Problem(
        id=sample.id,
        question=sample.question,
        answer=answer,
        kind="integer" if answer.isdecimal() else vqa.infer_kind(answer),
        tags=common.tags(type=sample.source),
        images=sample.images,
    )


def read(row: Row) -> Problem:
    """A stored problem: `id`, `question`, `answer`, `source` and, where there is one, `image`."""
    from reopold_vl.types import VisualSample

    sample = VisualSample(
        id=common.required(row, "id"),
        question=common.required(row, "question"),
        answer=common.required(row, "answer"),
        images=common.images(row, "image", "images"),
        source=common.text(row, "source", "type"),
    )
    return of_sample(sample)


def prompt_question(problem: Problem) -> str:
    """The question as it is: what the models were trained on."""
    return problem.question


def grade(problem: Problem, response: str) -> Verdict:
    """`reopold_vl.answers`: the answer behind the last cue, compared as a text or as a number."""
    found = extract_answer(response)
    if found is None:
        return Verdict(None, "none", False, "unparsed")
    return Verdict(found, "final answer", is_correct(response, problem.answer or ""))


BENCH = Benchmark(
    name="embedded",
    title="Embedded grids",
    licence="as this repository",
    citation="reopold_vl.zoo",
    sources=(),
    splits=("test", "validation"),
    columns=(("id",), ("question",), ("answer",), ("image", "images")),
    read=read,
    prompts={"query": prompt_question},
    graders={"strict": grade, "official": grade},
    max_new_tokens=56,
    rows=Problems,
)
