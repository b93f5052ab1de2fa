"""HallusionBench: 1,129 yes/no questions, 951 with an image and 178 without, on language hallucination and illusions.

Source: https://huggingface.co/datasets/lmms-lab/HallusionBench, https://github.com/tianyi-lab/HallusionBench.
Paper: Guan et al. 2024, arXiv:2310.14566. Licence: BSD-3-Clause.

Traps: the benchmark is both splits together ("all"); some harnesses drop the questions without an image.
Gold is "1" or "0" and becomes yes or no here. The official judge is GPT-4 on prose; `official` is the rule without a
judge that others use: exactly one of the words yes and no occurs in the response, anything else is wrong. Question and
figure accuracies need whole groups, so a run over fewer than all questions (or all with an image) reports none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from eval.benches import common
from eval.benchmark import Benchmark, BenchmarkError, Row, Source
from eval.scoring import strict
from eval.types import Graded, Problem, Verdict

GOLD = {"1": "yes", "0": "no"}
WHOLE = {1129: "all questions", 951: "those with an image"}
PLACE = ("category", "subcategory", "visual_input", "set_id", "figure_id", "question_id")


def read(row: Row) -> Problem:
    """One row of either split; `visual_input` 0 means without an image."""
    place = {name: common.required(row, name) for name in PLACE}
    gold = common.required(row, "gt_answer").strip()
    if gold not in GOLD:
        raise BenchmarkError(f"gt_answer {gold!r:.40} must be '0' (no) or '1' (yes)")
    return Problem(
        id="_".join(place[name] for name in PLACE if name != "visual_input"),
        question=common.required(row, "question"),
        answer=GOLD[gold],
        kind="yes_no",
        tags=common.tags(
            category=place["category"],
            subcategory=f"{place['category']} {place['subcategory']}",
            figure="none" if _unseen(place) else "original" if place["figure_id"] == "0" else "edited",
        ),
        extra={**place, **common.extra(row, "gt_answer", "gt_answer_details", "filename")},
        images=() if place["visual_input"] == "0" else common.images(row, "image"),
    )


def prompt_query(problem: Problem) -> str:
    """The question as it is, as the official runs ask it."""
    return problem.question


def prompt_direct(problem: Problem) -> str:
    """What harnesses without a judge ask for."""
    return f"{problem.question}\nPlease answer yes or no."


def grade_official(problem: Problem, response: str) -> Verdict:
    """Exactly one of the words yes and no, anywhere in the response; both or none is unknown and wrong."""
    found = set(re.findall(r"\b(yes|no)\b", response.lower()))
    if len(found) != 1:
        return Verdict(None, "both words" if found else "none", False, "unparsed")
    answer = found.pop()
    return Verdict(answer, "word", answer == problem.answer)


def metrics(graded: Sequence[Graded]) -> Mapping[str, float]:
    """aAcc per question; easy per question on original figures; the official group figures where all groups are whole.

    `yes_difference` is the share of yes among the answers minus that in the gold (0 is best), `false_positive_ratio`
    the share of yes among the wrong answers (0.5 is best); unparsed responses are neither.
    """
    seen = common.scored(graded)
    figures = {"aAcc": common.share(seen)} if seen else {}
    if easy := [item for item in seen if _place(item)["figure_id"] == "0"]:
        figures["easy"] = common.share(easy)
    if len(graded) in WHOLE:
        figures |= group_accuracies(graded)
    return figures | _bias(seen)


def group_accuracies(graded: Sequence[Graded]) -> dict[str, float]:
    """qAcc: one question right on all figures of its set; fAcc: one figure's questions all right; hard: edited figures.

    A group with a failed input is left out. Only for whole groups: one that lacks a member would look too good.
    """
    figures = [item for item in graded if not _unseen(_place(item))]
    edited = [item for item in graded if _place(item)["figure_id"] != "0"]
    groups = {
        "qAcc": _all_right(graded, "question_id"),
        "fAcc": _all_right(figures, "figure_id"),
        "hard": _all_right(edited, "question_id"),
    }
    return {name: sum(right) / len(right) for name, right in groups.items() if right}


def _all_right(graded: Sequence[Graded], member: str) -> list[bool]:
    def key(problem: Problem) -> str:
        return "_".join(problem.extra[name] for name in ("category", "subcategory", "set_id", member))

    groups = common.grouped(graded, key).values()
    whole = [group for group in groups if all(item.verdict is not None for item in group)]
    return [all(item.correct for item in group) for group in whole]


def _bias(seen: Sequence[Graded]) -> dict[str, float]:
    answered = [item for item in seen if item.verdict is not None and item.verdict.status == "answered"]
    if not answered:
        return {}
    gold = [item.response.problem.answer == "yes" for item in answered]
    # With two answers, a wrong one is the other one: no need to look at the words.
    said = [yes if item.correct else not yes for item, yes in zip(answered, gold, strict=True)]
    wrong = [yes for item, yes in zip(answered, said, strict=True) if not item.correct]
    ratio = {"false_positive_ratio": sum(wrong) / len(wrong)} if wrong else {}
    return {"yes_difference": (sum(said) - sum(gold)) / len(answered), **ratio}


def _place(item: Graded) -> Mapping[str, str]:
    return item.response.problem.extra


def _unseen(place: Mapping[str, str]) -> bool:
    """Asked without a figure: the first "figure" of a visual-supplement set."""
    return place["category"] == "VS" and place["figure_id"] == "0"


BENCH = Benchmark(
    name="hallusionbench",
    title="HallusionBench",
    licence="BSD-3-Clause",
    citation="Guan et al. 2024, arXiv:2310.14566",
    sources=(Source("lmms-lab-encoder/HallusionBench"), Source("lmms-lab/HallusionBench")),
    splits=("all", "image", "non_image"),
    columns=tuple((name,) for name in (*PLACE, "question", "gt_answer")),
    read=read,
    prompts={
        "query": prompt_query,
        "direct": prompt_direct,
        "cot": common.prompt_cot,
        "think": common.prompt_think,
    },
    graders={"strict": strict.grade, "official": grade_official},
    metrics=metrics,
    headline="aAcc",
    max_new_tokens=512,
)
