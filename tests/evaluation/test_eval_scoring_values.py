"""Numbers, lists, formulas, words and yes/no as models write them, and gold answers with the faults of real files."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.scoring import formula
from eval.scoring.strict import grade
from eval.types import AnswerKind, Problem, Verdict


def judged(kind: AnswerKind, gold: str, response: str, question: str = "What is it?", **more: int | str) -> Verdict:
    return grade(Problem("1", question, gold, kind, **more), response)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("question", "gold", "response"),
    [
        ("How many cats are there?", "3", "There are three cats."),
        ("How many cats are there?", "3", "**3**"),
        ("How many guests went more than 2 times?", "3", "3 guests went more than 2 times."),
        ("How many methods score higher than 20.0 on A-847?", "2", "Two methods score higher than 20.0 on A-847."),
        ("How many?", "1234", "The answer is 1,234."),
        ("How many are left?", "12", "After removing 5 of them, 17 - 5 = 12 remain."),
        ("Find x.", "2", "x = 0, so the final value is 2."),
        ("How many objects are left?", "0", "There are no objects left."),
        ("What is the rate?", "-7", "The rate is -7 shells per day."),
        ("What is the rate?", "-7", "\u22127"),
        ("In which year was it highest?", "2020", "It was highest in 2020, with a value of 21.4%."),
        ("What percentage is it?", "64", "So it is 89 - 25 = **64%**."),
        ("How many?", "6", "<think>5, or 7?</think><answer>6</answer>"),
        ("How many?", "6", "<think>5?</think>So we add.<answer>2 + 4 = 6. The answer is 6</answer>"),
        ("How many?", "6", "\u7b54\u6848\u662f6"),
        ("How many?", "6", "So the final answer is:\n\n6"),
        ("How many?", "5", "The answer is 5 apples out of 12."),
        ("How many?", "7", "#### 7"),
        ("What is the value of y at x = -2.5?", "3", "The value of y at x = -2.5 is 3."),
        ("How many dots are in each group?", "2", "The model has 4 dots in 2 groups. There are 2 dots in each group."),
    ],
)
def test_whole_numbers(question: str, gold: str, response: str) -> None:
    verdict = judged("integer", gold, response, question)
    assert verdict.correct, verdict


@pytest.mark.parametrize(
    ("gold", "precision", "response", "right"),
    [
        ("0.21", 2, "The field is 0.214 N/C.", True),
        ("0.21", 2, "The field is 0.22 N/C.", False),
        ("0.8", 1, "4/5", True),
        ("10.4", 1, "$10.40", True),
        ("0.5", 1, "\\boxed{\\frac{1}{2}}", True),
        ("7", 0, "7.9", False),
    ],
)
def test_decimals_are_rounded_and_not_truncated(gold: str, precision: int, response: str, right: bool) -> None:
    assert judged("float", gold, response, precision=precision).correct is right
    assert not judged("integer", "7", "7.9").correct


@pytest.mark.parametrize(
    ("gold", "response"),
    [
        ("4+\\sqrt{6}", "\\boxed{4+\\sqrt{6}}"),
        ("4+\\sqrt{6}", "\\boxed{\\sqrt{6}+4}"),
        ("2 \\sqrt { 221 }", "The answer is $2\\sqrt{221}$."),
        ("=\\frac{7}{4}", "1.75"),
        ("\x0crac{36}{13}", "\\boxed{\\frac{36}{13}}"),
        ("2191.7 metres", "2191.7"),
        ("2191.7 metres", "\\boxed{2191.7 \\text{ m}}"),
        ("50 cm", "0.5 m"),
        ("118\u63b3T", "118\u00b0"),
        ("69{degrees}", "69"),
        ("$\\boxed{5}$", "5"),
        ("11 ", "11"),
        ("1:2", "1:2"),
        ("(1, 2)", "The point is \\boxed{(1,2)}"),
        ("y = 2x+1", "\\boxed{y=1+2x}"),
        ("[0, 2)", "[0,2)"),
        ("50\\%", "50%"),
        ("8\\pi", "8\u03c0 cm"),
        ("10", "\\boxed{10 \\text{ square units}}"),
        ("8", "\\boxed{8\\,\\mbox{cm}^2}"),
        ("S 23.5 ^\\circ W", "S 23.5\u00b0 W"),
    ],
)
def test_formulas_units_and_faulty_gold(gold: str, response: str) -> None:
    verdict = judged("expression", gold, response)
    assert verdict.correct, verdict


@pytest.mark.parametrize(
    ("gold", "response"),
    [
        ("6", "\\boxed{4+\\sqrt{6}}"),
        ("(1, 2)", "(2, 1)"),
        ("[0,2]", "[0,2)"),
        ("2", "\\boxed{12}"),
        ("5 cm", "5 km"),
        ("x", "\\boxed{y}"),
        ("5", "I cannot determine it."),
    ],
)
def test_what_only_looks_like_gold_is_wrong(gold: str, response: str) -> None:
    assert not judged("expression", gold, response).correct


def test_lists_and_words() -> None:
    assert judged("list", "[2014, 2016]", "Between 2014 and 2016.").correct
    assert judged("list", "[1, 2]", "So the list is [1.0, 2].").correct
    assert not judged("list", "[1, 2]", "[2, 1]").correct
    assert judged("text", "Sunday", "The answer is Sunday.").correct
    assert not judged("text", "Sunday", "The answer is Monday.").correct
    assert judged("text", "Sunday", "").status == "unparsed"


def test_a_problem_without_gold_is_refused() -> None:
    with pytest.raises(ValueError, match="problem '7' has no answer"):
        grade(Problem("7", "What?", None, "integer"), "3")


def test_cut_off_and_repeating_texts_are_no_answers() -> None:
    cut_off = "There are 5 groups of 4 objects in the picture, and we look at each of them. " * 8 + "The next group of"
    assert judged("integer", "4", cut_off, "How many objects?").status == "unparsed"
    assert judged("integer", "3", "We see 3 cats and then a dog. " * 40, "How many cats?").status == "unparsed"


@given(
    st.integers(-(10**9), 10**9), st.sampled_from(("{}", "**{}**", "\\boxed{{{}}}", "The answer is {}.", "It is {}."))
)
def test_gold_integers_are_right(number: int, wrapping: str) -> None:
    assert judged("integer", str(number), wrapping.format(number)).correct
    assert judged("integer", str(number), wrapping.format(f"{number:,}")).correct
    assert not judged("integer", str(number + 1), wrapping.format(number)).correct


@given(st.integers(-999, 999), st.integers(1, 999), st.integers(1, 99))
def test_formulas_have_their_values(a: int, b: int, c: int) -> None:
    assert formula.value(f"\\frac{{{a}}}{{{b}}}+\\sqrt{{{c}}}") == pytest.approx(a / b + math.sqrt(c))
    assert formula.value(f"{c}\\pi-({a})") == pytest.approx(c * math.pi - a)
    assert judged("expression", f"\\frac{{{a}}}{{{b}}}", f"\\boxed{{{a}/{b}}}").correct


@given(st.lists(st.integers(-99, 99), min_size=2, max_size=4))
def test_gold_lists_are_right(numbers: list[int]) -> None:
    assert judged("list", str(numbers), f"The answer is {numbers}.").correct
