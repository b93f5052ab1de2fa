"""MMMU: college-level questions with images, 30 subjects of 6 disciplines; 900 for validation.

Source: https://huggingface.co/datasets/lmms-lab/MMMU (one configuration), https://huggingface.co/datasets/MMMU/MMMU (a
configuration for each subject). Paper: Yue et al. 2024, arXiv:2311.16502. Licence: Apache-2.0.

Traps: `options` is a Python list written out as a text; options and questions refer to their images by `<image k>`, in
any order and more than once, and the images are shown where the tags stand (those without a tag come first). The gold
answer of an open question may be a list of which any is right. The official rule guesses where it finds nothing: see
mmmu_rules. The test split's answers are hidden.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from eval.benches import common, mmmu_rules, vqa
from eval.benchmark import Benchmark, BenchmarkError, Row, Source
from eval.scoring import strict
from eval.types import Graded, Problem, Verdict
from reopold_vl.types import IMAGE_MARKER

DISCIPLINES = {
    "Art and Design": ("Art", "Art_Theory", "Design", "Music"),
    "Business": ("Accounting", "Economics", "Finance", "Manage", "Marketing"),
    "Science": ("Biology", "Chemistry", "Geography", "Math", "Physics"),
    "Health and Medicine": (
        "Basic_Medical_Science",
        "Clinical_Medicine",
        "Diagnostics_and_Laboratory_Medicine",
        "Pharmacy",
        "Public_Health",
    ),
    "Humanities and Social Science": ("History", "Literature", "Sociology", "Psychology"),
    "Tech and Engineering": (
        "Agriculture",
        "Architecture_and_Engineering",
        "Computer_Science",
        "Electronics",
        "Energy_and_Power",
        "Materials",
        "Mechanical_Engineering",
    ),
}
DISCIPLINE_OF = {subject: name for name, subjects in DISCIPLINES.items() for subject in subjects}
COT_LETTER = (
    "Answer the preceding multiple choice question. The last line of your response should be of the following format: "
    "'Answer: $LETTER' (without quotes) where LETTER is one of options. Think step by step before answering."
)
COT_WORD = (
    "Answer the preceding question. The last line of your response should be of the following format: "
    "'Answer: $ANSWER' (without quotes) where ANSWER is a number, word or phrase. Think step by step before answering."
)
MAX_IMAGES = 7
_TAG = re.compile(r"<image ?([1-7])>")


def read(row: Row) -> Problem:
    """One row of the data set."""
    question, options = common.required(row, "question"), vqa.literal_list(row, "options")
    answer = common.text(row, "answer")
    open_question = common.text(row, "question_type") == "open" or not options
    answer = (
        "" if answer == "?" else answer if open_question or not answer else vqa.checked_letter(answer, len(options))
    )
    choices = () if open_question else options
    images, loose = interleaved(row, question, choices)
    return Problem(
        id=common.required(row, "id"),
        question=question,
        answer=answer or None,
        kind=vqa.infer_kind(alternatives(answer)[0]) if open_question else "choice",
        choices=choices,
        tags=subject_tags(row) | common.tags(question_type="open" if open_question else "multiple-choice"),
        extra={"loose_images": loose, **common.extra(row, "subfield", "img_type")},
        images=images,
    )


def subject_tags(row: Row) -> dict[str, tuple[str, ...]]:
    """Discipline, subject (its column, or what stands in the id "validation_Art_Theory_3") and difficulty."""
    inside = re.fullmatch(r"[a-z]+_(.+)_\d+", common.text(row, "id"))
    subject = common.text(row, "subject") or (inside[1] if inside else "")
    difficulty = common.text(row, "topic_difficulty")
    return common.tags(discipline=DISCIPLINE_OF.get(subject, ""), subject=subject, difficulty=difficulty)


def interleaved(row: Row, question: str, choices: Sequence[str]) -> tuple[tuple[Any, ...], int]:
    """The images in the order in which they are shown, and how many of them come first because no tag names them.

    Raises BenchmarkError for a tag whose image the row lacks, unless it has no images at all.
    """
    cells = {number: common.images(row, f"image_{number}") for number in range(1, MAX_IMAGES + 1)}
    held = {str(number): cell[0] for number, cell in cells.items() if cell}
    named = _TAG.findall("\n".join([question, *choices]))
    if not held:
        return (), 0
    if missing := sorted(set(named) - set(held)):
        raise BenchmarkError(f"<image {missing[0]}> has no image in column image_{missing[0]}")
    loose = [cell for number, cell in held.items() if number not in named]
    # Without any tag the images come first anyway, and no marker is needed.
    return (*loose, *(held[number] for number in named)), len(loose) if named else 0


def shown(text: str, problem: Problem) -> str:
    """A prompt's text with a marker for each image: where its tag stands, at the beginning for those without one."""
    return IMAGE_MARKER * int(problem.extra.get("loose_images", 0)) + _TAG.sub(IMAGE_MARKER, text)


def alternatives(answer: str) -> tuple[str, ...]:
    """The gold answers of an open question: one, or those of a list written out as a text."""
    return vqa.literal_list({"answer": answer}, "answer") or (answer,)


def prompt(style: str, choice: str, other: str) -> Callable[[Problem], str]:
    """A prompt that lists the options in `style` and ends in the request for a `choice`, or in `other`."""

    def ask(problem: Problem) -> str:
        options = common.lettered(problem.choices, style)
        parts = [problem.question, options, choice if problem.choices else other]
        return shown("\n".join(filter(None, parts)), problem)

    return ask


def prompt_query(problem: Problem) -> str:
    """The official wording: "(A) option" lines, an empty line, the request for a letter or for a word."""
    options = common.lettered(problem.choices, "({letter}) {choice}")
    asked = f"{options}\n\n{vqa.DIRECT_LETTER}" if options else f"\n{vqa.DIRECT_WORD}"
    return shown(f"{problem.question}\n{asked}", problem)


def grade_strict(problem: Problem, response: str) -> Verdict:
    """As eval.scoring.strict; of an open question's gold answers any will do."""
    if problem.kind == "choice":
        return vqa.grade_letter(problem, response)
    golds = alternatives(problem.answer or "")
    verdicts = [strict.grade(replace(problem, answer=gold, kind=vqa.infer_kind(gold)), response) for gold in golds]
    return next((verdict for verdict in verdicts if verdict.correct), verdicts[0])


def grade_official(problem: Problem, response: str) -> Verdict:
    """The repository's parsing and comparison; see mmmu_rules."""
    if problem.kind == "choice":
        return mmmu_rules.choose(problem, response)
    return mmmu_rules.answer_open(alternatives(problem.answer or ""), response)


def metrics(graded: Sequence[Graded]) -> Mapping[str, float]:
    """Means over the 6 disciplines and the 30 subjects, where all of them have answers; plain accuracy is micro."""
    figures = {}
    for name, wanted in (("discipline", len(DISCIPLINES)), ("subject", len(DISCIPLINE_OF))):
        groups = common.grouped(common.scored(graded), lambda problem, name=name: "".join(problem.tags.get(name, ())))
        groups = {key: group for key, group in groups.items() if key in DISCIPLINES or key in DISCIPLINE_OF}
        if len(groups) == wanted:
            figures[f"mean of {name}s"] = sum(map(common.share, groups.values())) / wanted
    return figures


BENCH = Benchmark(
    name="mmmu",
    title="MMMU",
    licence="Apache-2.0",
    citation="Yue et al. 2024, arXiv:2311.16502",
    sources=(Source("lmms-lab-encoder/MMMU"), Source("lmms-lab/MMMU"), Source("MMMU/MMMU", "*")),
    splits=("validation", "dev"),
    hidden_splits=("test",),
    columns=(("id",), ("question",), ("options",), ("answer",), ("question_type",), ("image_1",)),
    read=read,
    prompts={
        "query": prompt_query,
        "cot": prompt("{letter}. {choice}", COT_LETTER, COT_WORD),
        "think": prompt("{letter}. {choice}", common.THINK_TAGS, common.THINK_TAGS),
    },
    graders={"strict": grade_strict, "official": grade_official},
    metrics=metrics,
)
