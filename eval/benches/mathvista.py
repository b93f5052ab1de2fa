"""MathVista: mathematical reasoning in visual contexts, 31 sources. testmini has 1,000 problems with answers.

Source: https://huggingface.co/datasets/AI4Math/MathVista, https://github.com/lupantech/MathVista (official rules).
Paper: Lu et al. 2024, arXiv:2310.02255. Licence: CC BY-SA 4.0 for the additions, the images keep their sources'; it
is a test set only, training on it is prohibited.

Traps: split `test` has empty answers and cannot be scored. `precision` is a float. The gold answer of a multiple
choice item is the option's text; in 15 items the options are letters themselves, some not in order, and three items
have an option twice. The column `query` puts the hint first, the repository's build_query.py last; the column is what
published results use ("query" here).
"""

from __future__ import annotations

from eval.benches import common
from eval.benchmark import Benchmark, Row, Source
from eval.scoring import official, strict
from eval.types import AnswerKind, Problem

KINDS: dict[str, AnswerKind] = {"integer": "integer", "float": "float", "list": "list", "text": "text"}
BREAKDOWNS = ("task", "skills", "language", "source", "category", "context", "grade")
KEPT = ("pid", "question_type", "answer_type", "unit", "precision", "split", "query")

_VALUE = "Please answer the question requiring {} and provide the final {}, e.g., {}, at the end."
HINTS = {
    "integer": _VALUE.format("an integer answer", "value", "1, 2, 3"),
    "float 1": _VALUE.format("a floating-point number with one decimal place", "value", "1.2, 1.3, 1.4"),
    "float 2": _VALUE.format("a floating-point number with two decimal places", "value", "1.23, 1.34, 1.45"),
    "list": _VALUE.format("a Python list as an answer", "list", "[1, 2, 3], [1.2, 1.3, 1.4]"),
    "choice": "Please answer the question and provide the correct option letter, e.g., A, B, C, D, at the end.",
}


def read(row: Row) -> Problem:
    """One row of the data set (or of its published results, which have no decoded image)."""
    choices, metadata = common.texts(row, "choices"), common.struct(row, "metadata")
    answer_type, precision = common.text(row, "answer_type"), common.whole(row.get("precision"))
    for name in ("img_height", "img_width"):
        if name in metadata:
            metadata[name] = common.whole(metadata[name])
    kept = {name: row.get(name) for name in KEPT if name in row}
    kept |= {"image": common.text(row, "image") if isinstance(row.get("image"), str) else ""}
    kept |= {"precision": None if precision is None else float(precision), "metadata": metadata}
    return Problem(
        id=common.required(row, "pid"),
        question=common.required(row, "question"),
        answer=common.text(row, "answer") or None,
        kind="choice" if choices else KINDS.get(answer_type, "text"),
        choices=choices,
        unit=common.text(row, "unit"),
        precision=precision,
        tags=common.tags(
            question_type=common.text(row, "question_type"),
            answer_type=answer_type,
            **{name: common.texts(metadata, name) for name in BREAKDOWNS},
        ),
        extra=kept,
        images=common.images(row, "decoded_image", "image"),
    )


def hint(problem: Problem) -> str:
    """The official hint on the form of the answer."""
    kind = f"float {problem.precision}" if problem.kind == "float" else problem.kind
    return "Hint: " + HINTS.get(kind, "Please answer the question.")


def prompt_query(problem: Problem) -> str:
    """The column `query`; made anew, in the same words, where a row has none: hint, question with unit, options."""
    if stored := problem.extra.get("query"):
        return str(stored)
    return f"{hint(problem)}\n{_asked(problem)}"


def prompt_hint_last(problem: Problem) -> str:
    """The order of the repository's build_query.py: question, options, hint, "Solution:"."""
    return f"{_asked(problem)}\n{hint(problem)}\nSolution:"


def prompt_cot(problem: Problem) -> str:
    r"""The query, then step by step, the answer in `\boxed{}`."""
    return f"{prompt_query(problem)}\n{common.STEP_BY_STEP}"


def prompt_think(problem: Problem) -> str:
    """The query, for models trained on the <think> </think> <answer> </answer> format."""
    return f"{prompt_query(problem)}\n{common.THINK_TAGS}"


def prompt_direct(problem: Problem) -> str:
    """Question and options with the hint on the form of the answer, which is to come without reasoning."""
    return f"{_asked(problem)}\n{hint(problem).replace(', at the end.', ', and nothing else.')}"


def _asked(problem: Problem) -> str:
    unit = f" (Unit: {problem.unit})" if problem.unit else ""
    options = "\nChoices:\n" + common.lettered(problem.choices, "({letter}) {choice}") if problem.choices else ""
    return f"Question: {problem.question}{unit}{options}"


BENCH = Benchmark(
    name="mathvista",
    title="MathVista",
    licence="CC BY-SA 4.0 (test only: training on it is prohibited)",
    citation="Lu et al. 2024, arXiv:2310.02255",
    sources=(Source("AI4Math/MathVista"),),
    splits=("testmini",),
    hidden_splits=("test",),
    columns=(("pid",), ("question",), ("decoded_image", "image"), ("answer",), ("question_type",), ("answer_type",)),
    read=read,
    prompts={
        "query": prompt_query,
        "hint_last": prompt_hint_last,
        "cot": prompt_cot,
        "direct": prompt_direct,
        "think": prompt_think,
    },
    graders={"strict": strict.grade, "official": official.mathvista},
)
