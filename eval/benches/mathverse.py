"""MathVerse: 788 problems on diagrams, each in 5 versions that move text into the picture (3,940), and text only.

Source: https://huggingface.co/datasets/AI4Math/MathVerse (a split and a configuration `testmini`, another of each
`testmini_text_only`), https://github.com/ZrrSkywalker/MathVerse. Paper: Zhang et al. 2024, arXiv:2403.14624.
Licence: MIT (source pictures from GeoQA, Geometry3K, GEOS and the web).

The figure that papers quote is the mean of the five versions' accuracies, without text only (`mean_of_versions`).
Published scores use GPT-4 to extract and to judge; `official` here extracts by our rules and then compares as the
repository's --quick_match does, by equality, on one spelling of both answers, and lets 0.5 m equal 50 cm as the
judge's instructions do. Leaderboards mix prompts: query_wo ("direct"), query_cot ("cot", our default, as reasoning
models use it).

Traps: Vision Only rows have no question text (judges are given `question_for_eval`); options stand inside the
question as "A:40"; gold may be several letters ("C\\nD"), carry units and bearings, equations, intervals, "$r=5$",
or a degree sign that was decoded wrongly.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction

from eval.benches import common
from eval.benchmark import Benchmark, Row, Source
from eval.scoring import strict
from eval.scoring.extract import extract
from eval.scoring.numbers import parse_number
from eval.types import AnswerKind, Graded, Problem, Verdict
from reopold_vl.answers import normalise

OPTION = r"(?m)^([A-Z]):"
VERSIONS = ("Text Dominant", "Text Lite", "Vision Intensive", "Vision Dominant", "Vision Only")

IN_IMAGE = "According to the question shown in the image, please"
DIRECT = "directly answer the question and provide {}."
COT = "first conduct reasoning, and then answer the question and provide {}, at the end."
WANTED = {True: "the correct option letter, e.g., A, B, C, D", False: "the final value, e.g., 1, 2.5, 300"}

_METRES = {"mm": Fraction(1, 1000), "cm": Fraction(1, 100), "m": Fraction(1), "km": Fraction(1000)}
_LENGTH = re.compile(r"(-?\d{1,18}(?:\.\d{1,18})?)(mm|cm|km|m|met(?:re|er)s?)")


def read(row: Row) -> Problem:
    """One row of either configuration, or of the lmms-eval copy (which adds `question_for_eval`)."""
    metadata, version = common.struct(row, "metadata"), common.required(row, "problem_version")
    answer = common.text(row, "answer") or None
    multiple = common.text(row, "question_type").replace("-", "_") == "multi_choice"
    question, whole = common.text(row, "question"), common.text(row, "question_for_eval", "question")
    return Problem(
        id=common.text(row, "sample_index") or f"{common.required(row, 'problem_index')}-{version}",
        question=question,
        answer=answer,
        kind=_kind(answer or "", multiple),
        choices=common.inline_options(whole, OPTION) if multiple else (),
        tags=common.tags(
            version=version,
            subject=common.text(metadata, "subject"),
            subfield=common.text(metadata, "subfield"),
            question_type=common.text(row, "question_type"),
        ),
        extra={
            **common.extra(row, "sample_index", "problem_index", "problem_version", "question_for_eval"),
            **common.extra(row, "question_type", "metadata", "query_wo", "query_cot"),
        },
        images=() if version == "Text Only" else common.images(row, "image"),
    )


def _kind(answer: str, multiple: bool) -> AnswerKind:
    if multiple:
        return "choices" if len(_letters(answer)) > 1 else "choice"
    return common.free_kind(answer)


def _letters(answer: str) -> set[str]:
    return set(re.findall(r"\b[A-Z]\b", answer))


def prompt_cot(problem: Problem) -> str:
    """The column `query_cot`, made anew in the same words where a row has none."""
    return str(problem.extra.get("query_cot") or _prompt(problem, COT))


def prompt_direct(problem: Problem) -> str:
    """The column `query_wo`, made anew in the same words where a row has none."""
    return str(problem.extra.get("query_wo") or _prompt(problem, DIRECT))


def _prompt(problem: Problem, order: str) -> str:
    order = order.format(WANTED[problem.kind in ("choice", "choices")])
    return f"Please {order}\nQuestion: {problem.question}" if problem.question else f"{IN_IMAGE} {order}"


def prompt_think(problem: Problem) -> str:
    """For models trained on the <think> </think> <answer> </answer> format; options are never added to the text."""
    return f"{problem.question or 'Answer the question shown in the image.'}\n{common.THINK_TAGS}"


def grade_official(problem: Problem, response: str) -> Verdict:
    """Our extraction; options as `strict` compares them; other answers by equality of one spelling, of the number, or
    of the length in metres."""
    verdict, found = strict.grade(problem, response), extract(problem, response)
    if problem.kind in ("choice", "choices") or found.status != "answered":
        return verdict
    gold = problem.answer or ""
    same = _same(found.text or "", gold) or (found.number is not None and found.number == parse_number(gold))
    return replace(verdict, rule=f"quick_match of {found.rule}", correct=same)


def _same(answer: str, gold: str) -> bool:
    answer, gold = normalise(answer), normalise(gold)
    lengths = [_LENGTH.fullmatch(text) for text in (answer, gold)]
    metres = [Fraction(match[1]) * _METRES.get(match[2], 1) for match in lengths if match]
    return answer == gold or (len(metres) == 2 and metres[0] == metres[1])


def metrics(graded: Sequence[Graded]) -> Mapping[str, float]:
    """`mean_of_versions`: the mean of the five versions' accuracies, where there are answers to all five."""
    groups = common.grouped(common.scored(graded), lambda problem: problem.tags["version"][0])
    if not all(version in groups for version in VERSIONS):
        return {}
    return {"mean_of_versions": sum(common.share(groups[version]) for version in VERSIONS) / len(VERSIONS)}


BENCH = Benchmark(
    name="mathverse",
    title="MathVerse",
    licence="MIT",
    citation="Zhang et al. 2024, arXiv:2403.14624",
    sources=(Source("AI4Math/MathVerse", "{split}"), Source("CaraJ/MathVerse-lmmseval", "{split}")),
    splits=("testmini", "testmini_text_only"),
    columns=(("sample_index", "problem_index"), ("problem_version",), ("question",), ("answer",), ("question_type",)),
    read=read,
    prompts={"cot": prompt_cot, "direct": prompt_direct, "think": prompt_think},
    graders={"strict": strict.grade, "official": grade_official},
    metrics=metrics,
    headline="mean_of_versions",
)
