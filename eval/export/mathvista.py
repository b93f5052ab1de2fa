"""MathVista's output file: {pid: the problem, with response, extraction, prediction and true_false}.

Read by the repository's extract_answer.py and calculate_score.py (github.com/lupantech/MathVista), and what the
leaderboard takes. calculate_score.py works from `extraction` and writes `prediction` and `true_false` anew.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence

from eval.export.base import Exporter, Row, answer_text, json_text
from eval.scoring.levenshtein import nearest
from eval.scoring.numbers import parse_number
from eval.types import Graded, Problem

_OWN = ("response", "extraction", "prediction", "true_false")


def row(item: Graded) -> Row:
    """One entry. `prediction` is what the official rule makes of `extraction`; `true_false` is our scorer's verdict."""
    problem = item.response.problem
    extraction, prediction = normalised(problem, answer_text(item), item.correct)
    kinds = {"integer": "integer", "float": "float", "list": "list"}
    return {
        "pid": problem.id,
        "question": problem.question,
        "image": problem.extra.get("image", ""),
        "choices": list(problem.choices) or None,
        "unit": problem.unit or None,
        # The official program rounds to it, which takes a whole number.
        "precision": problem.precision,
        "answer": problem.answer,
        "question_type": problem.extra.get("question_type") or ("multi_choice" if problem.choices else "free_form"),
        "answer_type": problem.extra.get("answer_type") or kinds.get(problem.kind, "text"),
        "metadata": dict(problem.extra.get("metadata", {})),
        "query": problem.extra.get("query") or item.response.prompt,
        "response": item.response.text,
        "extraction": extraction,
        "prediction": prediction,
        "true_false": item.correct,
    }


def normalised(problem: Problem, extraction: str, correct: bool) -> tuple[str, str | None]:
    """(extraction in the official spelling, prediction): the letter and text of an option, a bare number, or a text.

    The official rule: a letter stands for the option at its place, other words for the option with the smallest edit
    distance, whole numbers are truncated and floats rounded to `precision` decimals.
    """
    if problem.choices:
        index = _option(problem, extraction, correct)
        if index is None:
            return extraction, problem.choices[nearest(extraction.strip(), problem.choices)]
        return chr(ord("A") + index), problem.choices[index]
    if problem.kind in ("integer", "float", "number"):
        number = parse_number(extraction) if extraction else None
        if number is None or not math.isfinite(number):
            return extraction, None
        plain = str(int(number)) if number == int(number) and problem.kind != "float" else repr(number)
        if problem.kind == "integer":
            return plain, str(int(number))
        return plain, str(round(number, problem.precision)) if problem.precision is not None else plain
    return extraction, extraction


def _option(problem: Problem, extraction: str, correct: bool) -> int | None:
    """The option meant, by its letter or its very text.

    Options may be letters in another order ("C", "A", "B"): then the verdict tells which of the two was meant.
    """
    letter = re.search(r"\(([a-zA-Z])\)", extraction) or re.fullmatch(r"\s*([A-Z])\s*", extraction)
    places = [ord(letter[1].upper()) - ord("A")] if letter else []
    places += [index for index, choice in enumerate(problem.choices) if choice == extraction]
    found = [index for index in places if index < len(problem.choices)]
    return next(
        (index for index in found if (problem.choices[index] == problem.answer) == correct), next(iter(found), None)
    )


def encode(rows: Sequence[Row]) -> str:
    """{pid: row}."""
    return json_text({row["pid"]: row for row in rows})


def decode(text: str) -> list[Row]:
    """The rows, each with its pid; raises ValueError where one lacks a response."""
    content = json.loads(text)
    if not isinstance(content, dict):
        raise ValueError("expected an object with a row for each pid")
    for pid, entry in content.items():
        missing = [name for name in _OWN if name not in entry]
        if missing:
            raise ValueError(f"pid {pid} has no {', '.join(missing)}")
    return [{"pid": pid, **entry} for pid, entry in content.items()]


EXPORTER = Exporter(
    name="mathvista",
    benches=("mathvista",),
    file_name="output_{bench}.json",
    row=row,
    encode=encode,
    decode=decode,
    disagrees=lambda row: (row["prediction"] == row["answer"]) != row["true_false"],
)
