"""What the benchmark files share: cells of a row as text, options inside a question, breakdowns, prompt variants."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from eval.benchmark import BenchmarkError, Row
from eval.types import AnswerKind, Graded, Problem

STEP_BY_STEP = "Think step by step, then put the final answer in \\boxed{}."
THINK_TAGS = (
    "First reason about the question between <think> and </think>, "
    "then give only the final answer between <answer> and </answer>."
)


def text(row: Row, *names: str) -> str:
    """The first of the named cells that holds something, verbatim as text; "" for a missing, null or NaN cell.

    Raises BenchmarkError for a cell with a list or a struct in it.
    """
    for name in names:
        value = row.get(name)
        if isinstance(value, list | dict | bytes):
            raise BenchmarkError(f"column {name} must hold a text or a number, not {value!r:.60}")
        if value is not None and value == value and str(value).strip():
            return str(value)
    return ""


def required(row: Row, *names: str) -> str:
    """As `text`; raises BenchmarkError where all the cells are empty."""
    if found := text(row, *names):
        return found
    raise BenchmarkError(f"no {' or '.join(names)} in the row")


def texts(row: Row, name: str) -> tuple[str, ...]:
    """A cell with a list of texts (a single text is a list of one, null is none)."""
    value = row.get(name)
    if value is None or value == "":
        return ()
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, list | tuple):
        raise BenchmarkError(f"column {name} must hold a list of texts, not {value!r:.60}")
    return tuple("" if item is None else str(item) for item in value)


def struct(row: Row, name: str) -> dict[str, Any]:
    """A cell with named values; {} where it is missing. Raises BenchmarkError for anything else."""
    value = row.get(name)
    if value is not None and not isinstance(value, dict):
        raise BenchmarkError(f"column {name} must hold named values, not {value!r:.60}")
    return dict(value or {})


def whole(value: Any) -> int | None:
    """A whole number out of an int, a float such as 2.0, or a text such as "2" or "2.0"; None for anything else."""
    match = re.fullmatch(r"\s*(-?\d{1,18})(?:\.0{1,18})?\s*", str(value))
    return int(match[1]) if match else None


def images(row: Row, *names: str) -> tuple[Any, ...]:
    """The image cells of the first named column that has any, as they are (not decoded, not looked at)."""
    for name in names:
        held = row.get(name)
        cells = held if isinstance(held, list | tuple) else [held]
        found = tuple(cell for cell in cells if _holds_image(cell))
        if found:
            return found
    return ()


def _holds_image(cell: Any) -> bool:
    if isinstance(cell, dict):
        return bool(cell.get("bytes") or cell.get("path"))
    return cell is not None and not (isinstance(cell, str | bytes) and not cell.strip())


def extra(row: Row, *names: str) -> dict[str, Any]:
    """The named cells, without empty ones, for `Problem.extra`."""
    return {name: row[name] for name in names if row.get(name) not in (None, "")}


def tags(**values: str | Sequence[str]) -> dict[str, tuple[str, ...]]:
    """`Problem.tags`, without those that have no value."""
    listed = {name: (value,) if isinstance(value, str) else tuple(value) for name, value in values.items()}
    return {name: tuple(filter(None, value)) for name, value in listed.items() if any(value)}


def letters(count: int) -> list[str]:
    """["A", "B", ...], `count` of them."""
    return [chr(ord("A") + index) for index in range(count)]


def lettered(choices: Sequence[str], style: str = "{letter}. {choice}") -> str:
    """The options one a line, each behind its letter."""
    rows = zip(letters(len(choices)), choices, strict=True)
    return "\n".join(style.format(letter=letter, choice=choice) for letter, choice in rows)


def inline_options(question: str, marker: str) -> tuple[str, ...]:
    """The options that a text spells out behind letters: the longest run A, B, C, ... of `marker`; of two, the last.

    `marker` is a pattern whose first group is the letter. () where there is no run of two, or an option is empty (it
    is then drawn in the image).
    """
    found = list(re.finditer(marker, question))
    best: list[re.Match[str]] = []
    for start, first in enumerate(found):
        if first[1] != "A":
            continue
        run = [first]
        for match in found[start + 1 :]:
            if match[1] == chr(ord("A") + len(run)):
                run.append(match)
        best = max(run, best, key=len)
    ends = [match.start() for match in best[1:]] + [len(question)]
    options = tuple(question[match.end() : end].strip(" \t\r\n;,") for match, end in zip(best, ends, strict=bool(best)))
    return options if len(best) > 1 and all(options) else ()


def free_kind(answer: str) -> AnswerKind:
    """The kind of a free-form gold answer: yes or no, one number, words, or else an expression (tuples, intervals)."""
    bare = answer.strip(" \t\r\n$")
    if bare.lower() in ("yes", "no"):
        return "yes_no"
    if re.fullmatch(r"[-+]?(?:\d[\d,]*(?:\.\d+)?|\.\d+)(?:\{degrees\})?", bare):
        return "number"
    return "text" if re.fullmatch(r"[A-Za-z]{2,}(?:[ '-][A-Za-z]+)*[.]?", bare) else "expression"


def prompt_with_options(problem: Problem) -> str:
    """The question, then its options, one a line, where it does not spell them out behind their letters itself."""
    names = letters(len(problem.choices))
    pairs = zip(names, problem.choices, strict=True)
    spelled_out = all(
        re.search(rf"\b{letter}\W{{1,3}}{re.escape(choice)}", problem.question) for letter, choice in pairs
    )
    drawn = list(problem.choices) == names
    listed = [] if spelled_out or drawn else [lettered(problem.choices)]
    return "\n".join(part for part in (problem.question, *listed) if part)


def prompt_cot(problem: Problem) -> str:
    r"""Any question, step by step, the answer in `\boxed{}`."""
    return f"{prompt_with_options(problem)}\n{STEP_BY_STEP}"


def prompt_think(problem: Problem) -> str:
    """Any question, for models trained on the <think> </think> <answer> </answer> format."""
    return f"{prompt_with_options(problem)}\n{THINK_TAGS}"


def prompt_direct(problem: Problem) -> str:
    """Any question, the answer without reasoning."""
    asked = "Answer with a single number, word or phrase."
    if problem.kind in ("choice", "choices"):
        asked = "Answer with the option's letter from the given choices directly."
    return f"{prompt_with_options(problem)}\n{asked}"


def share(graded: Sequence[Graded]) -> float:
    """The share of right answers; the caller sees to it that there are any."""
    return sum(item.correct for item in graded) / len(graded)


def grouped(graded: Sequence[Graded], key: Callable[[Problem], str]) -> Mapping[str, list[Graded]]:
    """The graded answers by a key of their problem, in the order in which the keys come up."""
    groups: dict[str, list[Graded]] = {}
    for item in graded:
        groups.setdefault(key(item.response.problem), []).append(item)
    return groups


def scored(graded: Sequence[Graded]) -> list[Graded]:
    """Those with a verdict: failed inputs count in no figure."""
    return [item for item in graded if item.verdict is not None]
