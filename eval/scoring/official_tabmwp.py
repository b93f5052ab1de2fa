"""TabMWP's published rule (lupantech/PromptPG, `extract_prediction` and `normalize_answer`): patterns, no model."""

from __future__ import annotations

import re

from eval.scoring.text import HEAD_LENGTH, TAIL_LENGTH
from eval.types import Problem, Verdict

_LETTERS = "ABCDEF"
# In the published order: a bare letter, "B. ", "The answer is B", "(B) text", "The answer is (B) text".
_OPTION_PATTERNS = tuple(
    re.compile(pattern)
    for pattern in (
        r"^\(([A-Za-z])\)$",
        r"^([A-Za-z])$",
        r"^([A-Za-z]). ",
        r"[Th]he answer is ([A-Z])",
        r"^\(([A-Za-z])\) [\s\S]+$",
        r"[Th]he answer is \(([A-Za-z])\) [\s\S]+$",
    )
)
_NUMBER_PATTERNS = tuple(
    re.compile(pattern)
    for pattern in (
        r"[Th]he answer is ([\s\S]+)$",
        r"[Th]he table shows that ([\d$.,/:]+) ",
        r" = ([\d$.,/:]+)",
        r"(?<= be| is) ([-\d$.,/:]{0,20}\d+)",
        r"(?<= are| was) ([-\d$.,/:]{0,20}\d+)",
        r"(?<= were) ([-\d$.,/:]{0,20}\d+)",
        r" ([\d$.,/:]+ [AP]\.M\.)",
        r"([-\d$.,/:]{0,20}\d+)",
    )
)
_FRACTION = re.compile(r"\$?\\frac\{([\d.,/-]{1,40})\}\{([\d.,]{1,40})\}\$?")


def tabmwp(problem: Problem, response: str) -> Verdict:
    """TabMWP's rule: fixed patterns find the answer; numbers are compared at three decimals, words as lower case.

    With options the rule never abstains: without a letter it takes the option that shares most words with the
    response, the first one where none does. One deviation: where the letter found is past the last option, the
    publication draws an option at random, ours goes on to the shared words.
    """
    text = response if len(response) <= HEAD_LENGTH + TAIL_LENGTH else response[:HEAD_LENGTH] + response[-TAIL_LENGTH:]
    text = _FRACTION.sub(r"\1/\2", text)
    text = re.sub(r"(?<![AP]\.M)\.$", "", text)
    text = re.sub(r"(?<=\d)=(?=[-$\d])", " = ", text).replace("\u2212", "-")
    prediction, rule = _option(text, problem.choices) if problem.choices else _free(text)
    correct = _normal(prediction, problem.unit).lower() == _normal(problem.answer or "", problem.unit).lower()
    return Verdict(prediction, rule, correct, "answered" if rule != "none" else "unparsed")


def _option(text: str, choices: tuple[str, ...]) -> tuple[str, str]:
    for pattern in _OPTION_PATTERNS:
        if found := pattern.search(text):
            letter = found[1].upper()
            if letter in _LETTERS[: len(choices)]:
                return choices[_LETTERS.index(letter)], "letter"
    scores = [_similarity(choice, text) for choice in choices]
    return choices[scores.index(max(scores))], "shared words" if max(scores) else "none"


def _similarity(one: str, other: str) -> float:
    if one == other:
        return 2.0
    if " " not in one and " " not in other:
        return 0.0
    left, right = one.split(" "), other.split(" ")
    return len(set(left) & set(right)) / max(len(left), len(right))


def _free(text: str) -> tuple[str, str]:
    for number, pattern in enumerate(_NUMBER_PATTERNS):
        if found := pattern.findall(text):
            answer = found[-1].strip()
            answer = answer[:-1] if answer.endswith(".") and ".M." not in answer else answer
            return answer, "the answer is" if number == 0 else "number"
    return text, "none"


def _normal(text: str, unit: str) -> str:
    text = re.sub(r"[,./]$", "", text.removeprefix("$"))
    if not re.fullmatch(r"[-+]?[\d,./]+", text):
        return text.replace(unit, "").strip() if unit else text
    digits = text.replace(",", "")
    try:
        if re.fullmatch(r"[-+]?\d+", digits):
            return str(int(digits)) if len(digits) < 400 else digits
        above, _, below = digits.partition("/")
        number = round(float(above) / float(below.partition("/")[0]) if below else float(digits), 3)
    except (ValueError, ZeroDivisionError, OverflowError):
        return "0"  # as published: what cannot be normalised counts as "0"
    return re.sub(r"\.0+$", "", str(number))
