"""LogicVista: 448 multiple-choice questions on logic in pictures, five reasoning skills.

Source: https://huggingface.co/datasets/lscpku/LogicVista, https://github.com/Yijia-Xiao/LogicVista (official rules).
Paper: Xiao et al. 2024, arXiv:2407.04973. Licence: Apache-2.0.

Traps: the options stand inside the question, or only in the picture; gold may be a set of letters ("A, C"), which is
compared as a set; one record has neither question nor answer (published results differ in whether N is 447 or 448),
and one answer is a number ("3").
"""

from __future__ import annotations

import re

from eval.benches import common
from eval.benchmark import Benchmark, Row, Source
from eval.scoring import official, strict
from eval.types import AnswerKind, Problem

OPTION = r"\(([A-Z])\)"


def read(row: Row) -> Problem:
    """One row of the data set, or of its published outputs (where the id is `id`)."""
    question, answer = common.text(row, "question"), common.text(row, "answer") or None
    return Problem(
        id=common.required(row, "index", "id", "imagename"),
        question=question if answer is None else common.required(row, "question"),
        answer=answer,
        kind=_kind(answer or ""),
        choices=common.inline_options(question, OPTION),
        tags=common.tags(
            skill=common.texts(row, "skill"),
            broad_capability=common.texts(row, "broad_capability"),
            specific_capability=common.texts(row, "specific_capability"),
        ),
        extra=common.extra(row, "imagename"),
        images=common.images(row, "image"),
    )


def _kind(answer: str) -> AnswerKind:
    if re.fullmatch(r"\s*[A-Z]\s*(?:,\s*[A-Z]\s*)+", answer):
        return "choices"
    return "integer" if answer.strip().isdecimal() else "choice"


def prompt_question(problem: Problem) -> str:
    """The question as it is: what the published runs show."""
    return problem.question


BENCH = Benchmark(
    name="logicvista",
    title="LogicVista",
    licence="Apache-2.0",
    citation="Xiao et al. 2024, arXiv:2407.04973",
    sources=(Source("lscpku/LogicVista"), Source("Yijia-Xiao/LogicVista")),
    splits=("test",),
    columns=(("index", "id", "imagename"), ("question",), ("image",), ("answer",), ("skill",)),
    read=read,
    prompts={
        "question": prompt_question,
        "cot": common.prompt_cot,
        "direct": common.prompt_direct,
        "think": common.prompt_think,
    },
    graders={"strict": strict.grade, "official": official.logicvista},
)
