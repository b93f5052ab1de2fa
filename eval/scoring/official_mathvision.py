r"""MathVision's published rule (mathllm/MATH-V, evaluation/): string steps to the answer, equality at two decimals."""

from __future__ import annotations

import re

from eval.scoring import formula
from eval.scoring.text import HEAD_LENGTH, TAIL_LENGTH
from eval.types import Problem, Verdict

_FLAGS = ("the final answer is", "the answer is", "the correct answer is", "the answer should be")
_DROPPED = (
    *("\\left", "\\right", "^{\\circ}", "^\\circ", "{m}^3", "m^3", "{units}", "units", "{km}", "km"),
    *("\\!", "\\$", "$", "\\%"),
)


def mathvision(problem: Problem, response: str) -> Verdict:
    r"""MathVision's rule: a trailing letter, "is <number>", the text after "the answer is" or the last `\boxed{}`.

    The answer, cleaned as published (its misreadings of `\textbf{(B)}` or units included), must equal the gold letter
    or the gold option as text, as a tuple, or in value at two decimals. The publication computes values with
    latex2sympy and `eval`; here a small evaluator does, so rare LaTeX that only the former knows may differ.
    """
    text = response if len(response) <= HEAD_LENGTH + TAIL_LENGTH else response[:HEAD_LENGTH] + response[-TAIL_LENGTH:]
    answer = _found(text.strip())
    gold = problem.answer or ""
    place = ord(gold) - ord("A") if len(gold) == 1 else -1
    option = problem.choices[place] if 0 <= place < len(problem.choices) else ""
    correct = _equal(gold, answer) or _equal(option, answer)
    return Verdict(answer or None, "published", correct, "answered" if answer else "unparsed")


def _found(answer: str) -> str:
    for letter in "ABCDE":
        ends = answer.endswith((f" {letter}.", f" ({letter})."))
        if ends or answer.startswith((f"{letter}\n", f"({letter})\n", f"({letter}) {letter}\n")):
            answer = letter
    number = answer.split("is ")[-1].rstrip(".")
    if _float(number) is not None:
        answer = number
    if "oxed{" not in answer:
        for flag in _FLAGS:
            for form in (flag, flag.replace("the", "The")):
                if form in answer:
                    answer = answer.split(form)[-1].strip().split("\n")[0].split(". ")[0]
                else:
                    answer = answer.strip()
    elif answer.count("oxed{") > 1:
        answer = "\\boxed{" + answer.split("oxed{")[-1]
    answer = _cleaned(answer)
    for letter in "abcde":
        answer = answer.replace(f"({letter})", letter)
    for letter in "abcde":
        answer = answer.replace(f"{{{letter}}}", letter)
    return answer.rstrip(".").lstrip(":").strip()


def _float(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _cleaned(text: str) -> str:
    text = text.lower().replace("{}", "")
    start, end = text.find("oxed{"), text.rfind("}")
    answer = text[start + 5 : end] if 0 <= start < end - 4 else text
    closing, opening = answer.find("}"), answer.find("{")
    if closing != -1 and (opening == -1 or closing < opening):
        answer = answer[:closing]
    answer = answer.split("=")[-1].split("\\approx")[-1]
    answer = answer.replace(" ", "").replace("\\,", "").replace("\u221e", "\\infty").replace("+\\infty", "\\infty")
    answer = answer.replace("\\\\", "\\").replace("\n", "").replace("\\text", "").replace("\\mbox", "")
    answer = answer.replace("bmatrix", "pmatrix").replace("tfrac", "frac").replace("dfrac", "frac")
    for dropped in _DROPPED:
        answer = answer.replace(dropped, "")
    answer = answer.replace("{.", "{0.")
    answer = "0" + answer if answer.startswith(".") else answer
    if "sqrt" in answer:
        answer = re.sub(r"\\sqrt([^{])", r"\\sqrt{\1}", answer)
        answer = re.sub(r"\\frac([^{])([^{])", r"\\frac{\1}{\2}", answer)
    if answer == "0.5":
        return "\\frac{1}{2}"
    return re.sub(r"^(-?(?:0|[1-9]\d*))/(-?(?:0|[1-9]\d*))$", r"\\frac{\1}{\2}", answer)


def _equal(one: str, other: str) -> bool:
    one, other = one.lower(), other.lower()
    if not one.strip() or not other.strip():
        return False
    if one.strip() == other.strip() or _tuple(one) == _tuple(other):
        return True
    left, right = _value(one), _value(other)
    return left is not None and right is not None and round(left, 2) == round(right, 2)


def _tuple(text: str) -> str:
    parts = text[1:-1].split(",")
    if len(parts) < 2 or (text[0], text[-1]) not in (("(", ")"), ("[", "]")):
        return text
    shown = [part if "infty" in part or part in ("a", "-a") else _value(part) for part in parts]
    if None in shown:
        return text
    return text[0] + ",".join(part if isinstance(part, str) else str(round(part or 0, 2)) for part in shown) + text[-1]


def _value(text: str) -> float | None:
    depth = 0
    for place, character in enumerate(text):  # what follows an unbalanced brace is not read
        depth += (character == "{") - (character == "}")
        if depth < 0:
            text = text[:place]
            break
    return None if "circ" in text else formula.value(text)  # the published parser knows no degrees
