"""ScienceQA-IMG: the 2,017 test questions of ScienceQA that have an image, multiple choice, grades 1 to 12.

Source: https://huggingface.co/datasets/lmms-lab/ScienceQA (configuration ScienceQA-IMG), https://scienceqa.github.io.
Paper: Lu et al. 2022, arXiv:2209.09513. Licence: CC BY-NC-SA 4.0.

Traps: gold is the option's number from 0 as an integer; two to five options; `hint` is context that the question needs
and may be empty; `lecture` and `solution` give the answer away and are never shown. Rows have no id: they are named by
their content. `official` takes a bare letter, a response that begins with "B. ", or exactly one "The answer is B.".
"""

from __future__ import annotations

import re

from eval.benches import common, vqa
from eval.benchmark import Benchmark, Row, Source
from eval.types import Problem, Verdict


def read(row: Row) -> Problem:
    """One row of the data set."""
    question, choices = common.required(row, "question"), common.texts(row, "choices")
    hint, images = common.text(row, "hint"), common.images(row, "image")
    grade = common.text(row, "grade")
    number = common.whole(grade.removeprefix("grade"))
    return Problem(
        id=common.text(row, "id", "index") or vqa.content_id(question, images, hint, *choices),
        question=question,
        answer=vqa.letter_of_index(common.required(row, "answer"), len(choices)),
        kind="choice",
        choices=choices,
        tags=common.tags(
            subject=common.text(row, "subject"),
            topic=common.text(row, "topic"),
            grade=grade,
            grades="" if number is None else "1-6" if number <= 6 else "7-12",
            context="image and text" if hint else "image",
        ),
        extra=common.extra(row, "hint", "category", "skill"),
        images=images,
    )


def asked(problem: Problem) -> str:
    """Context (where there is any), question, options behind letters."""
    context = f"Context: {problem.extra['hint']}\n" if problem.extra.get("hint") else ""
    return f"{context}{problem.question}\n{common.lettered(problem.choices)}"


def prompt_query(problem: Problem) -> str:
    """Context, question, options and the request for the bare letter that published results use."""
    return f"{asked(problem)}\n{vqa.DIRECT_LETTER}"


def prompt_cot(problem: Problem) -> str:
    r"""Context, question and options; step by step, the answer in `\boxed{}`."""
    return f"{asked(problem)}\n{common.STEP_BY_STEP}"


def prompt_think(problem: Problem) -> str:
    """Context, question and options, for models trained on the <think> </think> <answer> </answer> format."""
    return f"{asked(problem)}\n{common.THINK_TAGS}"


def grade_official(problem: Problem, response: str) -> Verdict:
    """A bare letter, a response that begins with "B. ", or exactly one "The answer is B."."""
    text, letters = response.strip(), common.letters(len(problem.choices))
    cued = re.findall(r"The answer is ([A-Z])\.", text)
    if text in letters:
        found, rule = text, "bare letter"
    elif text[:1] in letters and text[1:3] == ". ":
        found, rule = text[0], "first letter"
    else:
        found, rule = (cued[0] if len(cued) == 1 else None), "cue"
    return vqa.letter_verdict(problem, found, rule)


BENCH = Benchmark(
    name="scienceqa",
    title="ScienceQA-IMG",
    licence="CC BY-NC-SA 4.0",
    citation="Lu et al. 2022, arXiv:2209.09513",
    sources=(
        Source("lmms-lab-encoder/ScienceQA", "ScienceQA-IMG"),
        Source("lmms-lab/ScienceQA", "ScienceQA-IMG"),
        Source("lmms-lab/ScienceQA-IMG"),
    ),
    splits=("test", "validation"),
    columns=(("question",), ("choices",), ("answer",), ("hint",), ("image",)),
    read=read,
    prompts={"query": prompt_query, "cot": prompt_cot, "think": prompt_think},
    graders={"strict": vqa.grade_letter, "official": grade_official},
    max_new_tokens=512,
)
