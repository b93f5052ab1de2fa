"""No text makes the scorers raise, guess at length, or take long."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.benchmark import Grader
from eval.scoring import official
from eval.scoring.levenshtein import distance, nearest
from eval.scoring.strict import grade
from eval.types import Problem

PROBLEMS = (
    Problem("1", "Is A more than B? (A) 1 (B) 2", "1", "choice", ("1", "\\frac{9}{5}", "a polynomial", "2\u221a3")),
    Problem("2", "Is it the most?", "Yes", "choice", ("Yes", "No")),
    Problem("3", "Is it the most?", "yes", "yes_no"),
    Problem("4", "How many cats?", "3", "integer", unit="$"),
    Problem("5", "How long?", "1.2", "float", precision=1),
    Problem("6", "Which years?", "[1, 2]", "list"),
    Problem("7", "What is it?", "4+\\sqrt{6}", "expression"),
    Problem("8", "Which? (A) x (B) y (C) z", "A, C", "choices"),
    Problem("9", "Which colour?", "red", "text"),
    Problem("10", "How much?", "1/3", "number"),
)
GRADERS = (grade, official.mathvista, official.mathvision, official.logicvista, official.tabmwp)

PIECES = (
    *(
        "a",
        "1",
        "(",
        "{",
        "\\frac{ ",
        "\\boxed{",
        "<answer>",
        "<think>",
        "</think>",
        "the answer is ",
        "answer ",
        "final ",
    ),
    *(
        "correct ",
        " ",
        "\n",
        "1,111,",
        ".",
        "-",
        "\u221a",
        "\\text{",
        "**",
        "(A) ",
        "A, ",
        "if ",
        "not ",
        "can't x",
        "it x",
    ),
    *(
        "without ",
        "1 / ",
        "1.",
        "\\sqrt",
        "|",
        "^",
        "!",
        "%",
        "\u7b54\u6848",
        "\u9009",
        "' ",
        "- ",
        "= ",
        "is ",
        "option A ",
    ),
    *(
        "A or ",
        "A and B ",
        "A\n",
        "\\boxed{A}",
        '"answer": "',
        "so, A ",
        "7 P.M",
        "\u2028",
        "\f",
        "\\n",
        "x^",
        "sin",
        "1e",
        "two ",
        "twenty-",
        "\uff08",
        '"',
        "[1,",
        "(1,2)",
        "$",
    ),
)
SECONDS = 2.0
"""CPU time for one text of 20 kB; it takes a tenth of it, and a quadratic rule takes minutes."""


@pytest.mark.parametrize("piece", PIECES)
def test_long_texts_of_one_piece_take_bounded_time(piece: str) -> None:
    text = (piece * 20_000)[:20_000]
    for place, problem in enumerate(PROBLEMS):
        for grader in (grade, GRADERS[1 + place % 4]):
            start = time.process_time()
            grader(problem, text)
            assert time.process_time() - start < SECONDS, (problem.kind, grader)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(PROBLEMS),
    st.sampled_from(GRADERS),
    st.one_of(st.text(max_size=300), st.lists(st.sampled_from(PIECES), max_size=30).map("".join)),
)
def test_no_text_raises(problem: Problem, grader: Grader, text: str) -> None:
    verdict = grader(problem, text)
    assert verdict.status in ("answered", "unparsed", "refusal")
    if grader is grade and verdict.correct:
        assert verdict.status == "answered"


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(PROBLEMS), st.text(max_size=40), st.text(max_size=40))
def test_no_gold_or_question_raises(problem: Problem, gold: str, question: str) -> None:
    odd = Problem("1", question, gold, problem.kind, (gold, question) if problem.choices else ())
    for grader in GRADERS:
        grader(odd, f"The answer is {gold}")


@given(st.text(max_size=12), st.text(max_size=12), st.text(max_size=12))
def test_edit_distance_is_a_metric(one: str, other: str, third: str) -> None:
    assert distance(one, one) == 0
    assert distance(one, other) == distance(other, one) >= abs(len(one) - len(other))
    assert distance(one, third) <= distance(one, other) + distance(other, third)


def test_edit_distance_by_hand() -> None:
    assert distance("kitten", "sitting") == 3
    assert nearest("N/A", ("Yes", "No")) == 1
    assert nearest("same", ("sane", "sale")) == 0  # the first of several
