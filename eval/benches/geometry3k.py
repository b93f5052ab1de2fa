r"""Geometry3K: plane geometry from textbooks, 2,101 / 300 / 601 problems; as free-form questions and with four options.

`geometry3k` is https://huggingface.co/datasets/hiyouga/geometry3k (images, problem, answer in LaTeX);
`geometry3k_choices` is https://huggingface.co/datasets/Yang130/geometry3k_4choices_mixed (images, problem, choices,
ground_truth letter). They are the same problems and not the same task, so never each other's stand-in.
Paper: Lu et al. 2021 (Inter-GPS), arXiv:2105.04165; https://github.com/lupantech/InterGPS. Licence: MIT.

Official rules: with options, the original takes the choice nearest to a numeric solution (and a random one where
there is none, which is wrong here); free-form, the format reward of verl compares the last \boxed{} with gold, here
by our own equality of formulas.

Traps: rows of the free-form set have no id (the row number serves); answers such as "2 \sqrt { 221 }"; the article
"a" is not option A.
"""

from __future__ import annotations

from dataclasses import replace

from eval.benches import common
from eval.benchmark import Benchmark, BenchmarkError, Row, Source
from eval.scoring import formula, strict
from eval.scoring.extract import extract
from eval.types import Problem, Verdict
from reopold_vl.types import IMAGE_MARKER

VERL = (
    "You FIRST think about the reasoning process as an internal monologue and then provide the final answer. "
    "The reasoning process MUST BE enclosed within <think> </think> tags. "
    "The final answer MUST BE put in \\boxed{}."
)


def read(row: Row) -> Problem:
    """One row with a free-form answer."""
    answer = common.text(row, "answer")
    return Problem(
        id=_id(row),
        question=_question(row),
        answer=answer or None,
        kind=common.free_kind(answer),
        extra=common.extra(row, "id", "problem_text"),
        images=common.images(row, "images", "image"),
    )


def read_choices(row: Row) -> Problem:
    """One row with options and the letter of the right one."""
    choices, letter = common.texts(row, "choices"), common.text(row, "ground_truth").strip()
    if len(choices) < 2:
        raise BenchmarkError(f"{len(choices)} choices, there must be two or more")
    if letter and letter not in common.letters(len(choices)):
        raise BenchmarkError(f"ground_truth {letter!r:.40} must be a letter from A to {chr(ord('@') + len(choices))}")
    values = common.texts(row, "precise_value")
    return Problem(
        id=_id(row),
        question=_question(row),
        answer=letter or None,
        kind="choice",
        choices=choices,
        extra=common.extra(row, "id", "problem_text") | ({"precise_value": list(values)} if values else {}),
        images=common.images(row, "images", "image"),
    )


def _id(row: Row) -> str:
    return (
        common.text(row, "id", "problem_id") or f"{common.text(row, '_split') or 'row'}-{common.required(row, '_row')}"
    )


def _question(row: Row) -> str:
    """Without the marker in front: a single image comes first by itself."""
    return common.required(row, "problem", "question").replace(IMAGE_MARKER, "").strip()


def prompt_verl(problem: Problem) -> str:
    r"""The prompt of verl's and EasyR1's recipes: <think> tags and \boxed{}."""
    return f"{common.prompt_with_options(problem)} {VERL}"


def grade_boxed(problem: Problem, response: str) -> Verdict:
    r"""Only the last \boxed{} counts; compared as `strict` compares."""
    if "\\boxed" not in response:
        return Verdict(None, "no box", False, "unparsed")
    return strict.grade(problem, response)


def grade_nearest(problem: Problem, response: str) -> Verdict:
    """The option that is stated, or else the one nearest to the number that is."""
    found = strict.grade(problem, response)
    if found.status == "refusal" or extract(problem, response).indices:
        return found
    number = extract(replace(problem, kind="number", choices=()), response).number
    values = [formula.value(text) for text in problem.extra.get("precise_value") or problem.choices]
    distances = [abs(number - value) for value in values if value is not None and number is not None]
    if len(distances) < len(problem.choices):
        return found
    letter = common.letters(len(distances))[distances.index(min(distances))]
    return Verdict(letter, "nearest choice", letter == problem.answer)


BENCH = Benchmark(
    name="geometry3k",
    title="Geometry3K (free-form)",
    licence="MIT",
    citation="Lu et al. 2021, arXiv:2105.04165",
    sources=(Source("hiyouga/geometry3k"),),
    splits=("test", "validation", "train"),
    columns=(("images", "image"), ("problem", "question"), ("answer",)),
    read=read,
    prompts={
        "verl": prompt_verl,
        "cot": common.prompt_cot,
        "direct": common.prompt_direct,
        "think": common.prompt_think,
    },
    graders={"strict": strict.grade, "official": grade_boxed},
    max_new_tokens=2048,
)

BENCH_CHOICES = replace(
    BENCH,
    name="geometry3k_choices",
    title="Geometry3K (four options)",
    sources=(Source("Yang130/geometry3k_4choices_mixed"),),
    splits=("test",),
    columns=(("images", "image"), ("problem", "question"), ("choices",), ("ground_truth",)),
    read=read_choices,
    graders={"strict": strict.grade, "official": grade_nearest},
)
