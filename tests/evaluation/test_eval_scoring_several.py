"""Sets of options, as models write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.scoring import official
from eval.scoring.strict import grade
from eval.types import Problem

DRAWN = Problem("1", "Which two? A. x B. y C. z D. w", "A, C", "choices")
TWO_LINES = Problem("2", "Which?\nChoices:\nA:40\u00b0\nB:60\u00b0\nC:80\u00b0\nD:90\u00b0", "C\nD", "choices")

BOTH = (
    "A and C",
    "A, C",
    "a, c",
    "A & C",
    "A; C",
    "AC",
    "A\nC",
    "- A\n- C",
    "(A), (C)",
    "{A, C}",
    "['A', 'C']",
    "\\boxed{A, C}",
    "\\boxed{AC}",
    "\\boxed{A\nC}",
    "\\boxed{\\text{A, C}}",
    "\\boxed{A} and \\boxed{C}",
    "<answer>A C</answer>",
    "Answer: A,C",
    "The answer is AC.",
    "The answer is A and C.",
    "The correct answers are A and C.",
    "Options A and C are correct.",
    "Both A and C are correct.",
    "The correct choices are:\n\nA and C",
    "The correct answers are:\n- A\n- C",
    "The correct answers are:\nA. x\nC. z",
    "A. x\nC. z",
    "At first B, but no. The correct options are C and A.",
    "\u6545\u9009AC",
)


@pytest.mark.parametrize("response", BOTH)
def test_many_ways_to_say_a_and_c(response: str) -> None:
    verdict = grade(DRAWN, response)
    assert verdict.correct and set(verdict.extraction.split(", ") if verdict.extraction else ()) == {"A", "C"}, verdict
    assert official.logicvista(DRAWN, response).correct


@pytest.mark.parametrize(
    "response", ["C\nD", "\\boxed{C\nD}", "The correct choices are:\n\nC and D", "C, D", "C. 80\n\nD. 90"]
)
def test_gold_on_two_lines(response: str) -> None:
    assert grade(TWO_LINES, response).correct


@pytest.mark.parametrize(
    ("response", "status"),
    [
        ("A", "answered"),
        ("The answer is A.", "answered"),
        ("A, B, and C", "answered"),
        ("The correct options are A and D.", "answered"),
        ("A or C", "unparsed"),
        ("A. x\nB. y\nC. z\nD. w", "unparsed"),
        ("", "unparsed"),
        ("I cannot see the image.", "refusal"),
    ],
)
def test_other_sets_and_no_sets_are_wrong(response: str, status: str) -> None:
    verdict = grade(DRAWN, response)
    assert (verdict.correct, verdict.status) == (False, status), verdict


@given(
    st.sets(st.sampled_from("ABCDE"), min_size=2, max_size=4), st.sampled_from((", ", " and ", "\n", "; ", " & ", ""))
)
def test_gold_sets_are_right_however_they_are_joined(letters: set[str], glue: str) -> None:
    gold = sorted(letters)
    asked = Problem("1", "Which? A. v B. w C. x D. y E. z", ", ".join(gold), "choices")
    if not (glue == "\n" and gold == list("ABCDE")[: len(gold)]):
        assert grade(asked, f"\\boxed{{{glue.join(gold)}}}").correct
    assert not grade(asked, f"\\boxed{{{glue.join(gold[:1])}}}").correct
