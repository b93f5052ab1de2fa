"""Whether an extracted answer equals the gold one, by kind of answer."""

from __future__ import annotations

import math
import re

from eval.scoring import formula, options
from eval.scoring.extract import choices_of
from eval.scoring.finding import Finding
from eval.scoring.lists import list_values
from eval.scoring.numbers import numbers_in, parse_number
from eval.scoring.text import clean, with_clock
from eval.scoring.units import scale, split_unit
from eval.scoring.wording import undressed
from eval.types import Problem
from reopold_vl.answers import is_correct, normalise

_BRACED_DEGREES = re.compile(r"\{?\\?degrees?\}|\{degrees?\}", re.IGNORECASE)
_BEARING = re.compile(r"(?<=\u00b0)\s?T$")  # "118 degrees true"
_GOLD_LETTERS = re.compile(r"\s*\(?([A-Z])\)?(?:\s*[,\n;/&]\s*\(?([A-Z])\)?)*\s*")
_TEXT_NOISE = re.compile(r"\b(?:the|a|an)\b|[^\w\s.%/+-]")


def gold_text(answer: str) -> str:
    """A gold answer without boxes, math signs, a leading "=" and the faults known in published files."""
    text = clean(answer)
    boxed = re.fullmatch(r"\$*\s*\\boxed\{(.*)\}\s*\$*", text, re.DOTALL)
    text = (boxed[1] if boxed else text).strip().strip("$").strip().lstrip("=").strip()
    return _BEARING.sub("", _BRACED_DEGREES.sub("", text))


def gold_indices(problem: Problem) -> tuple[int, ...]:
    """The right options as indices: from letters ("C", "A, C", "C\\nD") or an option's text; () where unclear."""
    gold, choices = gold_text(problem.answer or ""), choices_of(problem)
    exact = [index for index, choice in enumerate(choices) if choice == (problem.answer or "")]
    letters = _GOLD_LETTERS.fullmatch(gold)
    if exact and not (letters and all(len(choice) == 1 for choice in choices) and problem.kind == "choices"):
        return tuple(exact)
    if letters:
        return tuple(sorted({ord(letter) - 65 for letter in re.findall(r"[A-Z]", gold)}))
    index = options.by_text(gold, choices)
    return (index,) if index is not None else ()


def agrees(problem: Problem, found: Finding) -> bool:
    """Whether a finding is the gold answer of its problem."""
    gold = gold_text(problem.answer or "")
    if problem.kind in ("choice", "choices"):
        right = gold_indices(problem)
        if (
            problem.kind == "choice"
            and len(found.indices) == 1
            and len(right) > 1
            and len(set(_keys(problem, right))) == 1
        ):
            return found.indices[0] in right  # the same option printed twice
        return bool(right) and tuple(sorted(set(found.indices))) == tuple(sorted(right))
    answer = found.text or ""
    if problem.kind == "yes_no":
        return answer == ("yes" if gold.lower() in ("yes", "true", "1") else "no")
    if problem.kind in ("integer", "float", "number"):
        wanted = parse_number(gold)
        number = found.number if found.number is not None else parse_number(answer)
        if wanted is None or number is None:
            return False
        share = 0 < wanted <= 1 and answer.rstrip().endswith("%")  # a probability told in percent
        return any(same_number(each, wanted, gold, problem.precision) for each in (number, *[number / 100] * share))
    if problem.kind == "list":
        one, other = list_values(answer), list_values(gold)
        return one is not None and one == other
    return same_words(answer, gold) if problem.kind == "text" else same_expression(answer, gold)


def _keys(problem: Problem, indices: tuple[int, ...]) -> list[str]:
    return [choices_of(problem)[index] if index < len(choices_of(problem)) else str(index) for index in indices]


def same_number(number: float, wanted: float, gold: str = "", precision: int | None = None) -> bool:
    """Equal, or equal when rounded to the decimals asked for: `precision`, else those of a decimal gold, at least 2."""
    whole = number.is_integer() and wanted.is_integer()
    if math.isclose(number, wanted, rel_tol=1e-12 if whole else 1e-6, abs_tol=1e-9):
        return True
    decimals = precision
    if decimals is None:
        written = re.search(r"\.(\d{2,})", gold)
        decimals = len(written[1]) if written else None
    if decimals is None:
        return False
    return abs(number - wanted) <= 0.5 * 10.0**-decimals * (1 + 1e-9)


def same_words(answer: str, gold: str) -> bool:
    """Equal words, whatever the case, articles and punctuation; or the gold as whole words in a short answer."""
    plain = (_TEXT_NOISE.sub(" ", with_clock(text).lower()) for text in (answer, gold))
    one, other = (" ".join(text.split()).strip(". ") for text in plain)
    if one == other or is_correct(f"Answer: {answer}", gold):
        return bool(other)
    return bool(other) and len(one.split()) <= len(other.split()) + 8 and f" {other} " in f" {one} "


def same_expression(answer: str, gold: str) -> bool:
    """Equal as text, as a number with or without its unit, as a tuple or interval, as an equation, or as a formula."""
    answer, gold = _BEARING.sub("", answer), _BEARING.sub("", gold)
    return bool(gold.strip()) and _same_expression(answer, gold)


def _same_expression(answer: str, gold: str) -> bool:
    if normalise(answer) == normalise(gold) and normalise(gold):
        return True
    one, other = _tuple(answer), _tuple(gold)
    if one and other:
        same_ends = one[0] == other[0] and one[2] == other[2]
        return same_ends and len(one[1]) == len(other[1]) and all(map(same_expression, one[1], other[1]))
    if is_correct(f"\\boxed{{{answer}}}", gold):
        return True
    one_side, other_side = _side(answer, gold), _side(gold, answer)
    amount, unit, power = split_unit(one_side)
    wanted, gold_unit, gold_power = split_unit(other_side)
    factor = scale(unit, power, gold_unit, gold_power)
    return factor is not None and _same_amount(amount, wanted, factor)


def _same_amount(answer: str, gold: str, factor: float) -> bool:
    values = formula.values(answer), formula.values(gold)
    if values[0] and values[1]:
        scaled = [value * factor for value in values[0]]
        return formula.same_values(scaled, values[1]) or _rounded(scaled[0], values[1][0], gold)
    if values[0] or values[1]:
        number, wanted = _only_number(answer), _only_number(gold)
        return number is not None and wanted is not None and same_number(number * factor, wanted, gold)
    return normalise(answer) == normalise(gold) and bool(normalise(gold)) and factor == 1.0


def _rounded(number: float, wanted: float, gold: str) -> bool:
    return bool(re.fullmatch(r"-?\d*\.\d{2,}\W*", gold.strip())) and same_number(number, wanted, gold)


def _only_number(text: str) -> float | None:
    found = numbers_in(undressed(text))
    direct = formula.value(text)
    return direct if direct is not None else found[0].value if len(found) == 1 else None


def _side(text: str, other: str) -> str:
    """The right side of "x = 3" where the other answer is no equation; equations become left minus right."""
    sides = text.split("=")
    if len(sides) == 1:
        return text
    if "=" in other and len(sides) == 2 and not re.fullmatch(r"\s*\\?[a-zA-Z]\w?\s*", sides[0]):
        return f"({sides[0]})-({sides[1]})"
    return sides[-1]


def _tuple(text: str) -> tuple[str, list[str], str] | None:
    bare = text.strip().strip("$").replace("\\left", "").replace("\\right", "").strip()
    match = re.fullmatch(r"([\[(])([^()\[\]]*,[^()\[\]]*)([\])])", bare)
    return (match[1], [part.strip() for part in match[2].split(",")], match[3]) if match else None
