"""How many kinds of models word their answers: chat models, short captions, tagged reasoning, JSON, refusals."""

from __future__ import annotations

import pytest

from eval.scoring.strict import grade
from eval.types import Problem

ANGLE = Problem("angle", "As shown, angle BAC = 32.0, then angle BOC is ()", "64", "choice", ("58", "32", "64", "29"))
FROGS = Problem("frogs", "What happens to frogs?", "decreases", "choice", ("increases", "decreases", "stays the same"))
PARITY = Problem("parity", "The function is", "an odd function", "choice", ("an odd function", "an even function"))
COLOUR = Problem("colour", "Which is largest?", "Web Maroon", "choice", ("Orchid", "Web Maroon", "Dark Orange"))
MARKET = Problem("market", "Is there a shortage or a surplus?", "surplus", "choice", ("shortage", "surplus"))
SHAPE = Problem("shape", "Which shape is missing?", "Circle", "choice", ("Square", "Circle", "Triangle"))
TIME = Problem("time", "When?", "7:15 P.M.", "choice", ("6:15 P.M.", "7:15 P.M.", "8:15 P.M."))
GRAPH = Problem("graph", "The graph", "Is not a function", "choice", ("Is a function", "Is not a function"))
FISH = Problem("fish", "What happens?", "The fish will die", "choice", ("The fish will die", "The weed grows"))
RATIO = Problem("ratio", "Does the table show a proportional relationship?", "no", "choice", ("yes", "no"))
DRAWN = Problem("drawn", "What is next? The options are A, B, C, D.", "C", "choice")
BARS = Problem("bars", "How many bars are larger than 30?", "2", "integer")
CARS = Problem("cars", "How many cars are left of the tree?", "5", "integer")
YEAR = Problem("year", "In which year was the gap the largest?", "2013", "integer")
CHANCE = Problem("chance", "What is the probability?", "0.6", "float", precision=1)
AREA = Problem("area", "Find the area.", "36", "number")
VERTEX = Problem("vertex", "Find the vertex.", "(-3, 4)", "expression")
DISC = Problem("disc", "Find the area.", "8\\pi", "expression")
POLAR = Problem("polar", "Is the left circle larger than the right one?", "no", "yes_no")
DOCTOR = Problem("doctor", "Who won?", "Dr. Smith", "choice", ("Mr. Jones", "Dr. Smith", "Mrs. Lee"))
CLOCK = Problem("clock", "At what time?", "7:15 P.M.", "text")


@pytest.mark.parametrize(
    ("problem", "response"),
    [
        (ANGLE, "By the inscribed angle theorem, \u2220BOC = 2\u2220BAC = 64\u00b0."),
        (ANGLE, "2 * 32 = 64\n\nSo the answer is C."),
        (ANGLE, "Ans: C"),
        (ANGLE, "<CONCLUSION>The answer is C.</CONCLUSION>"),
        (ANGLE, "<think>central = 64</think>The size is **64\u00b0**.\n\n**Answer: C**"),
        (ANGLE, "Final Answer: The final answer is $\\boxed{C}$"),
        (ANGLE, "The correct option is \\( \\mathbf{C} \\)."),
        (ANGLE, "\u2234 \u2220BOC = 64\u00b0\n\u6545\u9009\uff1aC"),
        (ANGLE, "I think the answer might be C, but I am not sure."),
        (ANGLE, "Not A, not B, so either C or D; I'd say C."),
        (ANGLE, '{"answer": "C", "explanation": "A central angle is twice B, the inscribed one."}'),
        (FROGS, "decrease"),
        (FROGS, "It would decrease because more of them are eaten."),
        (FROGS, "The frog population would decrease if the number of snakes increases."),
        (FROGS, "If snakes increase, frogs decrease."),
        (PARITY, "odd"),
        (PARITY, "The function is odd."),
        (PARITY, "This is an odd function because f(-x) = -f(x), not an even function."),
        (COLOUR, "Web Maroon has the largest value, followed by Orchid."),
        (COLOUR, "Orchid has 10%, Dark Orange 20% and Web Maroon 70%. So Web Maroon is the largest."),
        (MARKET, "Supply is 200 and demand 100. Thus supply exceeds it: there is a surplus. There is no shortage."),
        (SHAPE, "Circles"),
        (SHAPE, "It's the circle that is missing, since the square and the triangle are there."),
        (TIME, "7:15 pm"),
        (TIME, "The bus arrives at 7:15 PM."),
        (CLOCK, "The bus arrives at 7:15 PM."),
        (GRAPH, "It fails the vertical line test, so it is not a function."),
        (FISH, "The fish will die since it has no food."),
        (RATIO, "The ratios are not constant, so it is not a proportional relationship."),
        (DRAWN, "In option A it is flipped; the sequence needs a rotation, so C."),
        (DRAWN, "The piece that fits is figure C, since each row rotates."),
        (BARS, "The bars above 30 are A (35) and C (44). Therefore, there are 2 bars."),
        (BARS, '{"answer": "2", "explanation": "35 and 44 exceed 30"}'),
        (BARS, '{"solution": "35, 44", "short answer": 2}'),
        (CARS, "The answer is 5, as there are 3 red and 2 blue cars."),
        (CARS, "Of the 9 cars, 4 are on the right, so 5 are on the left."),
        (CARS, "There are 9 cars in total, and 4 of them are right, so 5 cars are left of the tree."),
        (CARS, "5 out of 9 cars are left of the tree."),
        (CARS, "\\boxed{5\\text{ cars}}"),
        (YEAR, "The largest gap occurred in the year 2013, at 1,245."),
        (YEAR, "The year with the largest gap was 2013, followed by 2015."),
        (CHANCE, "60%"),
        (CHANCE, "3/5"),
        (AREA, "\\boxed{36 \\, \\text{cm}^2}"),
        (AREA, "\\boxed{36\\ \\mathrm{cm}^{2}}"),
        (AREA, "The area is 36 cm^2."),
        (VERTEX, "The vertex is (-3, 4)."),
        (VERTEX, "We complete the square.\n\nVertex: (-3,4)"),
        (DISC, "The area is 8\u03c0."),
        (POLAR, "They are equal in size, so no."),
        (DOCTOR, "It was Dr. Smith who won."),
        (DRAWN, "A: wrong. B: wrong. C: right. D: wrong.\nTherefore C."),
    ],
)
def test_right_answers_in_the_words_of_models(problem: Problem, response: str) -> None:
    verdict = grade(problem, response)
    assert verdict.correct, verdict


@pytest.mark.parametrize(
    ("problem", "response", "status"),
    [
        (ANGLE, "The size of angle BOC is 32.0, so the correct option is (B).", "answered"),
        (ANGLE, "It could be C or D.", "unparsed"),
        (ANGLE, "I would need to see the figure to determine the size of angle BOC.", "refusal"),
        (ANGLE, "(A) 58\n(B) 32\n(C) 64\n(D) 29", "unparsed"),
        (FROGS, "It stays the same.", "answered"),
        (GRAPH, "It is a function.", "answered"),
        (BARS, "Bars with values larger than 30 include A and C.", "unparsed"),
        (CARS, "I'm not able to see the image, so I can't count the cars.", "refusal"),
        (CARS, "There are no cars to the left of the tree.", "answered"),
        (AREA, "\\boxed{36\\pi}", "answered"),
        (DRAWN, "The next shape in the sequence is a square.", "unparsed"),
    ],
)
def test_wrong_answers_and_none(problem: Problem, response: str, status: str) -> None:
    verdict = grade(problem, response)
    assert (verdict.correct, verdict.status) == (False, status), verdict


@pytest.mark.parametrize(
    ("response", "extraction"),
    [
        ("There are 2 bars.", "2"),
        ("The answer is \\boxed{2}.", "2"),
        ("2.", "2"),
        ("It is 45%.", "45%"),
        ("\\boxed{\\frac{1}{2}}", "\\frac{1}{2}"),
    ],
)
def test_the_extraction_of_a_number_is_the_number(response: str, extraction: str) -> None:
    """What is stored, voted on and exported is the answer and not the sentence around it."""
    assert grade(BARS, response).extraction == extraction
