"""MMStar: 1,500 multiple-choice questions that need their image, 6 capabilities of 3 axes each.

Source: https://huggingface.co/datasets/Lin-Chen/MMStar, https://github.com/MMStar-Benchmark/MMStar (official rule).
Paper: Chen et al. 2024, arXiv:2403.20330. Licence: the data set's page names none of its own, images keep theirs.

Traps: the options stand inside the question ("Options: A: x, B: y, ..."). The figure of harnesses is the mean of the 6
capabilities, each the mean of its 3 axes ("average"); the repository's own final score is the plain accuracy, each
capability having 250 questions. `official` looks at where the letter may stand at the very beginning of the response
and nowhere else, so it takes the article "A" for option A and scores reasoning at nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from eval.benches import common, vqa
from eval.benchmark import Benchmark, Row, Source
from eval.types import Graded, Problem, Verdict

AXES = {
    "coarse perception": 3,
    "fine-grained perception": 3,
    "instance reasoning": 3,
    "logical reasoning": 3,
    "science & technology": 3,
    "math": 3,
}
OPTION_STYLES = (r"(?:(?<=\s)|(?<=,)|^)([A-H]):(?=\s)", r"\(([A-H])\)")
BEGINNINGS = ("", "(", "option ", "the answer is ")


def read(row: Row) -> Problem:
    """One row of the data set. Where the options cannot be told apart they are the letters A to D alone."""
    question = common.required(row, "question")
    found = (common.inline_options(question, style) for style in OPTION_STYLES)
    choices = next(filter(None, found), ("A", "B", "C", "D"))
    return Problem(
        id=common.required(row, "index", "id"),
        question=question,
        answer=vqa.checked_letter(common.required(row, "answer"), len(choices)),
        kind="choice",
        choices=choices,
        tags=common.tags(category=common.text(row, "category"), l2_category=common.text(row, "l2_category")),
        extra=common.extra(row, "meta_info"),
        images=common.images(row, "image"),
    )


def prompt_query(problem: Problem) -> str:
    """The question with its options, and the request for the bare letter that published results use."""
    return f"{problem.question}\n{vqa.DIRECT_LETTER}"


def prompt_cot(problem: Problem) -> str:
    r"""The question with its options; step by step, the answer in `\boxed{}`."""
    return f"{problem.question}\n{common.STEP_BY_STEP}"


def prompt_think(problem: Problem) -> str:
    """The question with its options, for models trained on the <think> </think> <answer> </answer> format."""
    return f"{problem.question}\n{common.THINK_TAGS}"


def grade_official(problem: Problem, response: str) -> Verdict:
    """Right where the response, in any case, begins with gold: "b", "(b", "option b" or "the answer is b"."""
    text, gold = response.lower().strip(), (problem.answer or "").lower()
    letters = [letter.lower() for letter in common.letters(len(problem.choices))]
    stated = [text[len(start)] for start in BEGINNINGS if text.startswith(start) and len(text) > len(start)]
    named = [letter.upper() for letter in stated if letter in letters]
    if gold in stated:
        return Verdict(gold.upper(), "first letter", True)
    return Verdict(named[0], "first letter", False) if named else Verdict(None, "none", False, "unparsed")


def metrics(graded: Sequence[Graded]) -> Mapping[str, float]:
    """`average` over the 6 capabilities, each the mean of its 3 axes; left out while an axis has no answer."""
    axes = common.grouped(common.scored(graded), lambda problem: "/".join(map(_first, _place(problem))))
    scores: dict[str, list[float]] = {}
    for name, group in axes.items():
        scores.setdefault(name.partition("/")[0], []).append(common.share(group))
    whole = {name: sum(shares) / len(shares) for name, shares in scores.items() if AXES.get(name) == len(shares)}
    figures = {f"{name} (mean of axes)": value for name, value in whole.items()}
    return {"average": sum(whole.values()) / len(whole), **figures} if len(whole) == len(AXES) else figures


def _place(problem: Problem) -> tuple[tuple[str, ...], ...]:
    return problem.tags.get("category", ()), problem.tags.get("l2_category", ())


def _first(values: tuple[str, ...]) -> str:
    return values[0] if values else ""


BENCH = Benchmark(
    name="mmstar",
    title="MMStar",
    licence="none stated; images keep their sources' licences",
    citation="Chen et al. 2024, arXiv:2403.20330",
    sources=(Source("Lin-Chen/MMStar"),),
    splits=("val",),
    columns=(("index", "id"), ("question",), ("answer",), ("category",), ("l2_category",), ("image",)),
    read=read,
    prompts={"query": prompt_query, "cot": prompt_cot, "think": prompt_think},
    graders={"strict": vqa.grade_letter, "official": grade_official},
    metrics=metrics,
    headline="average",
    max_new_tokens=512,
)
