"""The published scoring rules, one grader per benchmark: `(Problem, response) -> Verdict`.

MathVision and TabMWP publish complete rules. MathVista and LogicVista let GPT-4 extract the answer and compare it by
rule: here our own extraction stands in for GPT-4, and the published comparison follows.
"""

from __future__ import annotations

import re

from eval.scoring.compare import gold_indices
from eval.scoring.extract import choices_of, extract
from eval.scoring.finding import Finding
from eval.scoring.levenshtein import nearest
from eval.scoring.official_mathvision import mathvision
from eval.scoring.official_tabmwp import tabmwp
from eval.types import Problem, Verdict

__all__ = ["logicvista", "mathvision", "mathvista", "tabmwp"]

_PAREN_LETTER = re.compile(r"\(([a-zA-Z])\)")


def mathvista(problem: Problem, response: str) -> Verdict:
    """MathVista's rule (lupantech/MathVista, calculate_score.py) over our extraction in place of GPT-4's.

    An option's letter stands for the option; any other text for the option with the smallest Levenshtein distance:
    the rule never abstains, so refusals get an option by luck. Whole numbers are truncated (7.9 is 7), floats rounded
    to `precision` decimals, lists compared as text.
    """
    found = extract(problem, response)
    extraction = found.text if found.status != "unparsed" or found.text else ""
    if problem.kind == "choice":
        prediction = _nearest_option(found, extraction or "", choices_of(problem))
        gold = problem.answer
        if gold not in choices_of(problem):
            right = gold_indices(problem)
            gold = choices_of(problem)[right[0]] if right and right[0] < len(choices_of(problem)) else gold
    else:
        prediction, gold = _as_text(found, problem), problem.answer
    return Verdict(prediction, found.rule, prediction is not None and prediction == gold, found.status)


def _nearest_option(found: Finding, extraction: str, choices: tuple[str, ...]) -> str | None:
    if not choices:
        return None
    if found.indices and found.indices[0] < len(choices):
        return choices[found.indices[0]]
    letter = _PAREN_LETTER.search(extraction)
    extraction = letter[1].upper() if letter else extraction.strip()
    if len(extraction) == 1 and 0 <= ord(extraction) - ord("A") < len(choices):
        return choices[ord(extraction) - ord("A")]
    return choices[nearest(extraction, choices)]


def _as_text(found: Finding, problem: Problem) -> str | None:
    if problem.kind == "list":
        return found.text
    if found.number is None:
        return None
    if problem.kind == "integer":
        return str(int(found.number)) if abs(found.number) < 1e15 else None
    return str(round(found.number, problem.precision if problem.precision is not None else 0))


def logicvista(problem: Problem, response: str) -> Verdict:
    """LogicVista's rule (Yijia-Xiao/LogicVista): the set of letters extracted equals the set of right letters.

    There GPT-4 extracts the letters, and gives all of them or none where it finds no answer; here ours stands in.
    """
    found = extract(problem, response)
    right = set(re.findall(r"[A-Z]|\d+", (problem.answer or "").upper()))
    named = {chr(65 + index) for index in found.indices} or set(re.findall(r"^\W*(\d+)\W*$", response))
    return Verdict(found.text, found.rule, bool(named) and named == right, found.status)
