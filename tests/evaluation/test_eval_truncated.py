"""Answers cut off at the token limit: what had been stated before counts, what is found in the prose does not."""

from __future__ import annotations

import pytest
from stored import response

from eval.benches import find_bench
from eval.score import grade, summarise
from eval.types import FinishReason, Graded, Problem, Scorer

NUMBER = Problem("1", "How many cats are there?", "12", "integer")
OPTION = Problem("2", "Which shape is it?", "circle", "choice", ("square", "circle", "star"))
POLAR = Problem("3", "Is it red?", "yes", "yes_no")
FORMULA = Problem("4", "Find x.", "\\frac{3}{4}", "expression")


def graded(problem: Problem, text: str, finish: FinishReason = "length", scorer: Scorer = "strict") -> Graded:
    bench = find_bench("custom")
    answer = response(1, text, problem=problem, bench="custom", finish_reason=finish)
    (found,) = grade(bench, [answer], scorer)
    return found


COMMITTED = (
    (NUMBER, "The answer is 12. To check this, we count once more from the"),
    (NUMBER, "So it is \\boxed{12}"),
    (NUMBER, "<think>Six and six.</think><answer>12</answer>"),
    (NUMBER, "**Answer:** 12\n\nThe picture shows"),
    (OPTION, "Answer: (B) circle\nThe outline is"),
    (OPTION, "B. circle\n\nIt is round, which means that"),
    (OPTION, "B. Because it is"),
    (POLAR, "Yes, it is red, as one can see from the"),
    (FORMULA, "Hence $x = \\boxed{\\frac{3}{4}}$. As a check, put"),
)


@pytest.mark.parametrize(("problem", "text"), COMMITTED)
def test_what_was_stated_before_the_cut_counts(problem: Problem, text: str) -> None:
    found = graded(problem, text)
    assert found.correct, found.verdict


GATHERED = (
    (NUMBER, "There are 12 cats in the picture, of which the"),
    (NUMBER, "12"),
    (NUMBER, "We count 4 + 8 = 12 of them\n12"),
    (OPTION, "The shape in the picture looks like a circle with a"),
    (OPTION, "circle"),
    (POLAR, "One can see that it is red, and that the other"),
    (FORMULA, "x = \\frac{3}{4}"),
    (NUMBER, "<think>There are 12 cats, so the answer is 12. But wait"),
)


@pytest.mark.parametrize(("problem", "text"), GATHERED)
def test_what_only_stands_in_the_prose_of_a_cut_answer_is_unparsed(problem: Problem, text: str) -> None:
    found = graded(problem, text)
    assert found.verdict is not None
    assert (found.correct, found.verdict.status, found.verdict.extraction) == (False, "unparsed", None), found.verdict


@pytest.mark.parametrize("text", ["The answer is 12", "<answer>12", "\\boxed{12", "Answer: 12."])
def test_a_commitment_that_the_cut_may_have_gone_through_does_not_count(text: str) -> None:
    """The limit may have made 12 of 125, or of 12.5."""
    cut = graded(NUMBER, text)
    assert cut.verdict is not None and (cut.correct, cut.verdict.status) == (False, "unparsed"), cut.verdict


@pytest.mark.parametrize(("problem", "text"), GATHERED[:-1])
def test_whole_answers_and_published_rules_know_no_cut(problem: Problem, text: str) -> None:
    whole = graded(problem, text, "stop").verdict
    assert whole is not None and whole.status == "answered"
    assert graded(problem, text, "length", "official").verdict == graded(problem, text, "stop", "official").verdict


def test_the_summary_counts_cut_answers_as_truncated_and_unparsed() -> None:
    items = [graded(NUMBER, text) for text in ("There are 12 cats in the", "The answer is 12. We")]
    summary = summarise(find_bench("custom"), items, "strict")
    assert (summary.truncated, summary.unparsed) == (2, 1)
