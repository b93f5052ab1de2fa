"""What the question-answering benchmarks share: ids for rows without one, kinds of gold answers, letter rules."""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from eval.benches import common
from eval.benchmark import BenchmarkError, Row
from eval.scoring import official, strict
from eval.types import AnswerKind, Problem, Verdict

MAX_LITERAL = 20_000
DIRECT_LETTER = "Answer with the option's letter from the given choices directly."
DIRECT_WORD = "Answer the question using a single word or phrase."

_NUMBER = re.compile(
    r"[-+]?[$\u20ac\u00a3]?\s?(?:\d{1,20}(?:,\d{3}){0,6}(?:\.\d{0,20})?|\.\d{1,20})(?:/\d{1,20})?\s?%?"
)
_FORMULA = re.compile(r"[\\^=]|\d\s*[*/+]\s*\w|\bsqrt\b|\u221a|\u03c0")


def content_id(question: str, images: Sequence[Any] = (), *more: str) -> str:
    """An id made of what is asked and shown: the same row has it wherever it stands. Pictures in files count by name.

    For data without an id column; rows that agree in everything get the same one.
    """
    digest = hashlib.blake2b(digest_size=8)
    for part in (question, *more):
        digest.update(part.encode("utf-8", "surrogatepass") + b"\0")
    for cell in images:
        digest.update(_identity(cell) + b"\0")
    return digest.hexdigest()


def _identity(cell: Any) -> bytes:
    if isinstance(cell, dict):
        cell = cell.get("bytes") or cell.get("path") or b""
    if isinstance(cell, str | Path):
        return (cell if isinstance(cell, str) and cell.startswith("data:") else Path(cell).name).encode()
    if isinstance(cell, bytes | bytearray | memoryview):
        return bytes(cell)
    return repr(cell.size).encode() + cell.tobytes()  # a decoded picture


def literal_list(row: Row, name: str) -> tuple[str, ...]:
    """A cell with a list of texts, also one written out as Python ("['a', 'b']"), as MMMU stores options.

    Only literals are read, nothing is evaluated. Raises BenchmarkError for anything else.
    """
    value = row.get(name)
    if not isinstance(value, str) or not value.strip().startswith("["):
        return common.texts(row, name)
    try:
        held = ast.literal_eval(value.strip()) if len(value) <= MAX_LITERAL else None
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        held = None
    if not isinstance(held, list):
        raise BenchmarkError(f"column {name} must hold a list, not {value!r:.60}")
    return common.texts({name: held}, name)


def letter_of_index(value: object, count: int) -> str:
    """The letter of an option counted from 0, as AI2D ("2") and ScienceQA (2) store it.

    Raises BenchmarkError where it is not the number of one of the `count` options.
    """
    index = common.whole(value)
    if index is None or not 0 <= index < count:
        raise BenchmarkError(f"answer {value!r:.40} must be the number of an option, 0 to {count - 1}")
    return common.letters(count)[index]


def checked_letter(answer: str, count: int) -> str:
    """`answer` as one capital letter; raises BenchmarkError where that is none of `count` options."""
    letter = answer.strip().strip("()").upper()
    if letter not in common.letters(count):
        raise BenchmarkError(f"answer {answer!r:.40} must be the letter of an option, A to {common.letters(count)[-1]}")
    return letter


def infer_kind(answer: str, choices: Sequence[str] = ()) -> AnswerKind:
    """What a gold answer looks like, where the data do not say: choice, yes_no, number, expression or text."""
    answer = answer.strip()
    if choices:
        return "choice"
    if answer.lower() in ("yes", "no"):
        return "yes_no"
    if _NUMBER.fullmatch(answer):
        return "number"
    return "expression" if len(answer) <= 200 and _FORMULA.search(answer) else "text"


def grade_letter(problem: Problem, response: str) -> Verdict:
    """As eval.scoring.strict where gold is a letter and the prompt asks for one.

    Options may be letters themselves, those of labels in a diagram ("D", "A", "B"): a letter in the response then
    means the place in the list and never such an option's text.
    """
    names = common.letters(len(problem.choices))
    texts = [re.fullmatch(r"\W{0,2}([A-Z])\W{0,2}", choice.strip()) for choice in problem.choices]
    if any(found and found[1] in names and found[1] != name for found, name in zip(texts, names, strict=True)):
        problem = replace(problem, choices=tuple(f"\u00a7{name}" for name in names))
    return strict.grade(problem, response)


def grade_mathvista_style(problem: Problem, response: str) -> Verdict:
    """MathVista's official rule for rows of any origin: numbers by gold's own decimals, words verbatim."""
    gold = (problem.answer or "").strip()
    if problem.kind in ("choice", "list", "integer", "float"):
        return official.mathvista(problem, response)
    if problem.kind == "number" and (plain := re.fullmatch(r"[-+]?\d+(?:\.(\d+))?", gold)):
        decimals = len(plain[1] or "")
        kind: AnswerKind = "float" if decimals else "integer"
        return official.mathvista(replace(problem, kind=kind, precision=decimals or None), response)
    verdict = strict.grade(problem, response)
    if problem.kind == "yes_no":
        return verdict
    return replace(verdict, correct=verdict.extraction is not None and verdict.extraction.strip() == gold)


def letter_verdict(problem: Problem, letter: str | None, rule: str) -> Verdict:
    """The verdict over one letter found (None: none found) where gold is a letter."""
    if letter is None:
        return Verdict(None, "none", False, "unparsed")
    return Verdict(letter, rule, letter == problem.answer)
