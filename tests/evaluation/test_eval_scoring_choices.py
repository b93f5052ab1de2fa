"""Multiple choice as models write it: letters, dress, wording, values, refusals; no guesses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.scoring.strict import grade
from eval.types import Problem

FUNCTIONS = ("a polynomial", "a trigonometric function", "an exponential function", "a logarithmic function")
NUMBERS = ("12", "15", "18", "21")
FORMULAS = ("\\frac{6}{5}", "2\u221a{3}", "[2, 4]", "30\u00b0")
POLAR = ("yes", "no")


def problem(choices: tuple[str, ...], gold: int = 0, question: str = "Which of these is it?") -> Problem:
    return Problem("1", question, choices[gold], "choice", choices)


BRACKETED = ("B", "b", "(B)", "B.", "(b)", "**B**", "B: a trigonometric function", "Option B", "[B]")
DRESSED = (
    "\\boxed{B}",
    "$\\boxed{\\textbf{(B)}}$",
    "\\boxed{\\text{(B) } \\text{a trigonometric function}}",
    "\\boxed{\\mathrm{B}}",
    "The answer is $\\text{(B)}$.",
)
STATED = (
    "Answer: B",
    "**Answer:** B",
    "### Final Answer\n\nB",
    "### Answer:\n**B**",
    "The answer is B.",
    "The answer is b because it repeats.",
    "answer: b",
    "The correct answer is option B.",
    "The correct choice is B: a trigonometric function",
    "So, the correct option letter is B.",
    "Option (B) is the correct answer.",
    "B is the correct answer.",
    "I would go with B, since it repeats.",
    "The graph repeats, so it corresponds to option B.",
    "The piece that fits is B.",
    'The answer to the question "Which of these is it?" is (B).',
    "The curve is periodic.\n\nB",
    "B. It repeats itself.",
)
WORDED = (
    "A trigonometric function",
    "It is a trigonometric function.",
    "The curve repeats. Therefore, it must be a trigonometric function.",
    "This is a trigonometric function, not a polynomial.",
    "The curve is **a trigonometric function**.",
)
THOUGHTS = (
    "<think>Maybe C, or A.</think>B",
    "<think>Maybe C.</think>\n<answer>B</answer>",
    "<think>Maybe C.</think>\n<answer>(B) a trigonometric function</answer>",
    "<think>C?</think> <answer>It repeats every period. So the answer is B</answer>",
    "<think>C?</think> It repeats. <answer>\\boxed{B}</answer>",
)
CHINESE = (
    "\u9009\u9879\u4e3aB",
    "\u6545\u9009\uff1aB",
    "\u6545\u9009B\u3002",
    "\u7b54\u6848\u662f\uff08B\uff09\u3002",
    "\u56e0\u6b64\uff0c\u6b63\u786e\u7b54\u6848\u662f B",
)


@pytest.mark.parametrize("response", (*BRACKETED, *DRESSED, *STATED, *WORDED, *THOUGHTS, *CHINESE))
def test_many_ways_to_say_b(response: str) -> None:
    verdict = grade(problem(FUNCTIONS, 1), response)
    assert (verdict.extraction, verdict.status, verdict.correct) == ("B", "answered", True), verdict
    assert not grade(problem(FUNCTIONS, 2), response).correct


@pytest.mark.parametrize(
    "response",
    [
        "18",
        "The answer is 18.",
        "x = 18",
        "\\boxed{18}",
        "18 cm",
        "$18^\\circ$",
        "18.0",
        "The perimeter is 12 + 6 = 18 units.",
        "PR = \\boxed{12}\n\nThe answer is C.",
        "So x = 18. The closest option is C.",
        "The answer is (C) 18.",
        "The answer is (A). Wait, I made a mistake. The correct answer is (C).",
    ],
)
def test_options_that_are_numbers(response: str) -> None:
    verdict = grade(problem(NUMBERS, 2), response)
    assert verdict.extraction == "C" and verdict.correct, verdict


@pytest.mark.parametrize(
    ("response", "letter"),
    [
        ("The value is 6/5.", "A"),
        ("\\boxed{1.2}", "A"),
        ("The length is 2\u221a3.", "B"),
        ("The range is [2, 4].", "C"),
        ("The angle is 30 degrees.", "D"),
        ("\\boxed{30^{\\circ}}", "D"),
    ],
)
def test_options_that_are_formulas(response: str, letter: str) -> None:
    assert grade(problem(FORMULAS), response).extraction == letter


@pytest.mark.parametrize(
    "response",
    [
        "",
        "   ",
        "A curve is shown in the image.",
        "The options are (A) a polynomial, (B) a trigonometric function, (C) an exponential function, and (D) a "
        "logarithmic function.",
        "If it is periodic, the answer is (B); otherwise, the answer is (C).",
        "The answer is A or B.",
        "<think>It could be B, or rather C, because the curve",
        "The curve rises and falls. " * 60,
    ],
)
def test_nothing_stated_is_unparsed(response: str) -> None:
    verdict = grade(problem(FUNCTIONS), response)
    assert (verdict.status, verdict.correct) == ("unparsed", False), verdict


@pytest.mark.parametrize(
    "response",
    [
        "I'm sorry, but I can't see the image.",
        "N/A",
        "Without the graph, it is not possible to determine the function.",
        "The answer cannot be determined from the given information.",
        "The correct option is not provided.",
        "There is no image provided.",
        "As a text-based AI model, I'm unable to view or interpret images.",
        "\u65e0\u6cd5\u786e\u5b9a",
    ],
)
def test_refusals_are_told_apart(response: str) -> None:
    verdict = grade(problem(FUNCTIONS), response)
    assert (verdict.status, verdict.correct) == ("refusal", False), verdict


def test_cannot_be_determined_may_be_an_option() -> None:
    asked = problem(("3", "5", "It cannot be determined from the information given"), 2)
    assert grade(asked, "There is too little here: the length cannot be determined.").correct


@pytest.mark.parametrize(
    ("question", "response", "right"),
    [
        ("Is Navy Blue the maximum?", "Navy Blue is not the maximum.", "no"),
        ("Is Navy Blue the maximum?", "Based on the chart, Navy Blue is the maximum.", "yes"),
        ("Is Red greater than Olive?", "Red is 30 and Olive is 60. Therefore, Red is less than Olive.", "no"),
        ("Does Indigo have the lowest value?", "Indigo doesn't have the lowest value; Red does.", "no"),
        ("Are there fewer suvs than bikes?", "There are more suvs than bikes.", "no"),
        ("Are there fewer suvs than bikes?", "The number of suvs is equal to the number of bikes.", "no"),
        ("Are there more cars than busses?", "There are no more cars than busses.", "no"),
        ("Is it split in half?", 'The statement "it is split in half" is true.', "yes"),
        ("Is it split in half?", "Yes, it is.", "yes"),
        ("Is it split in half?", "The answer is (B) no.", "no"),
    ],
)
def test_yes_and_no_in_prose(question: str, response: str, right: str) -> None:
    as_option = Problem("1", question, right, "choice", POLAR)
    assert grade(as_option, response).correct
    if "(B)" not in response:
        assert grade(Problem("1", question, right, "yes_no"), response).correct


def test_sets_of_options() -> None:
    asked = Problem("1", "Which two? (A) x (B) y (C) z", "A, C", "choices")
    assert grade(asked, "The answer is A and C.").correct
    assert grade(asked, "\\boxed{C, A}").correct
    assert grade(asked, "a, c").correct
    assert not grade(asked, "The answer is A.").correct
    assert grade(Problem("1", "Which? Choices:\nA:x\nB:y\nC:z\nD:w", "C\nD", "choices"), "C, D").correct


def test_the_article_is_no_option() -> None:
    asked = Problem("1", "Which shape is it?", "A", "choice", ("A", "B", "C", "D"))
    assert grade(asked, "A cube can be made from the net.").status == "unparsed"
    assert grade(asked, "The answer is a cube.").status == "unparsed"
    assert grade(asked, "The answer is A.").correct


WRAPPINGS = (
    "{}",
    " {} ",
    "**{}**",
    "\n{}\n",
    "`{}`",
    "The answer is {}.",
    "\\boxed{{{}}}",
    "<answer>{}</answer>",
    "({})",
)


@given(
    gold=st.integers(0, 4),
    wrapping=st.sampled_from(WRAPPINGS),
    spaces=st.sampled_from(("", " ", "\n\n", "\t")),
    numbers=st.lists(st.integers(-999, 9999), min_size=5, max_size=5, unique=True),
)
def test_gold_letters_in_any_dress_are_right(gold: int, wrapping: str, spaces: str, numbers: list[int]) -> None:
    asked = problem(tuple(map(str, numbers)), gold)
    response = spaces + wrapping.format("ABCDE"[gold]) + spaces
    assert grade(asked, response).correct
    assert not grade(problem(tuple(map(str, numbers)), (gold + 1) % 5), response).correct
