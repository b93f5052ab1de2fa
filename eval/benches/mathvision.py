r"""MATH-Vision: 3,040 competition problems with pictures, 16 subjects, 5 levels; testmini is a subset of 304.

Source: https://huggingface.co/datasets/MathLLMs/MathVision, https://github.com/mathllm/MATH-V (official rules).
Paper: Wang et al. 2024, arXiv:2402.14804. Licence: MIT (pictures from Kangaroo, AMC, AIME and others).

Traps: tags such as <image1> in the questions are part of the text: all pictures of a problem are drawn in one image.
The five options are often just the letters A to E, drawn in the image. Gold answers hold form feeds where "\f" of
"\frac" was unescaped, dollar signs, boxes, "69{degrees}", trailing blanks; a few free-form ones are option letters.
"""

from __future__ import annotations

import re

from eval.benches import common
from eval.benchmark import Benchmark, Row, Source
from eval.scoring import official, strict
from eval.types import AnswerKind, Problem

BOXED = (
    'Please solve the problem{how} and put your answer in one "\\boxed{{}}". '
    'If it is a multiple choice question, only one letter is allowed in the "\\boxed{{}}".'
)


def read(row: Row) -> Problem:
    """One row of the data set, or of its published outputs."""
    choices, answer = common.texts(row, "options"), common.text(row, "answer") or None
    return Problem(
        id=common.required(row, "id"),
        question=common.required(row, "question"),
        answer=answer,
        kind="choice" if choices else _kind(answer or ""),
        choices=choices,
        tags=common.tags(subject=common.text(row, "subject"), level=common.text(row, "level")),
        extra=common.extra(row, "id", "level", "subject"),
        images=common.images(row, "decoded_image", "image"),
    )


def _kind(answer: str) -> AnswerKind:
    return "choice" if re.fullmatch(r"\s*[A-E]\s*", answer) else common.free_kind(answer)


def prompt_official(problem: Problem) -> str:
    """The prompt of the published runs; options that are only the letters A to E are not repeated."""
    return BOXED.format(how="") + f"\n{problem.question}\n{_options(problem)}"


def prompt_official_cot(problem: Problem) -> str:
    """The official prompt with "step by step"."""
    return BOXED.format(how=" step by step") + f"\n{problem.question}\n{_options(problem)}"


def _options(problem: Problem) -> str:
    if not problem.choices or list(problem.choices) == common.letters(len(problem.choices)):
        return ""
    return common.lettered(problem.choices, "({letter}) {choice}") + "\n"


BENCH = Benchmark(
    name="mathvision",
    title="MATH-Vision",
    licence="MIT",
    citation="Wang et al. 2024, arXiv:2402.14804",
    sources=(Source("MathLLMs/MathVision"), Source("mathvision/mathvision"), Source("MathLLMs/mathvision")),
    splits=("test", "testmini"),
    columns=(("id",), ("question",), ("options",), ("decoded_image", "image"), ("answer",)),
    read=read,
    prompts={
        "official": prompt_official,
        "official_cot": prompt_official_cot,
        "cot": common.prompt_cot,
        "direct": common.prompt_direct,
        "think": common.prompt_think,
    },
    graders={"strict": strict.grade, "official": official.mathvision},
    max_new_tokens=2048,
)
