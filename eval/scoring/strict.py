"""The judge-free scorer: an answer counts when it is stated, never by luck."""

from __future__ import annotations

from eval.scoring.compare import agrees
from eval.scoring.extract import extract
from eval.types import Problem, Verdict


def grade(problem: Problem, response: str) -> Verdict:
    """Whether `response` states the gold answer of `problem`, by `kind`, `choices`, `question`, `unit`, `precision`.

    Rules only: no model, no `eval`, time linear in a capped length, no exception for any text. Where nothing is
    stated the verdict is "unparsed" or "refusal", and wrong. Raises ValueError for a problem without gold answer.
    """
    if problem.answer is None:
        raise ValueError(f"problem {problem.id!r} has no answer, so responses to it cannot be scored")
    found = extract(problem, response)
    if found.status != "answered":
        return Verdict(found.text, found.rule, False, found.status)
    return Verdict(found.text, found.rule, agrees(problem, found))
