"""The published rules, quirks included, and their parity with published verdicts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from eval.benches.mathvista import BENCH
from eval.scoring import official
from eval.types import Problem

CHOICES = ("0.14", "0.48", "0.50", "0.96")


def test_mathvista_never_abstains() -> None:
    asked = Problem("1", "Find cos A.", "0.14", "choice", CHOICES)
    verdict = official.mathvista(asked, "I cannot see the image.")
    assert (verdict.extraction, verdict.correct, verdict.status) == ("0.14", True, "refusal")
    assert official.mathvista(asked, "").extraction == "0.14"
    assert official.mathvista(asked, "The answer is (D).").extraction == "0.96"
    assert official.mathvista(asked, "The answer is 0.97").extraction == "0.96"


@pytest.mark.parametrize(
    ("kind", "gold", "precision", "response", "prediction"),
    [
        ("integer", "7", None, "7.9", "7"),
        ("integer", "7", None, "nothing", None),
        ("float", "0.2", 1, "0.214", "0.2"),
        ("float", "5.0", 1, "5", "5.0"),
        ("list", "[1, 2]", None, "The list is [1, 2].", "[1, 2]"),
    ],
)
def test_mathvista_compares_texts(
    kind, gold: str, precision: int | None, response: str, prediction: str | None
) -> None:
    verdict = official.mathvista(Problem("1", "What?", gold, kind, precision=precision), response)
    assert verdict.extraction == prediction
    assert verdict.correct == (prediction == gold)


@pytest.mark.parametrize(
    ("response", "gold", "choices", "right"),
    [
        ("So the answer is (C).", "C", CHOICES, True),
        ("\\boxed{C}", "C", CHOICES, True),
        ("The answer is \\boxed{0.50}", "C", CHOICES, True),
        ("The answer is \\boxed{\\textbf{(C)}}", "C", CHOICES, False),  # read as "bfc"
        ("(C) $0.50$", "C", CHOICES, False),
        ("\\boxed{8 \\mbox{cm}^2}", "8", (), False),
        ("\\boxed{\\frac{1}{3}}", "0.33", (), True),  # equal at two decimals
        ("\\boxed{(1, 2.001)}", "(1,2)", (), True),
        ("There are 12", "12", (), False),
        ("The total is 12.", "12", (), True),
        ("\\boxed{60^{\\circ}}", "A", ("$60^{\\circ}$", "x", "x", "x", "x"), False),  # its parser knows no degrees
    ],
)
def test_mathvision(response: str, gold: str, choices: tuple[str, ...], right: bool) -> None:
    asked = Problem("1", "What?", gold, "choice" if choices else "expression", choices)
    assert official.mathvision(asked, response).correct is right


def test_logicvista_compares_sets() -> None:
    asked = Problem("1", "Which two? (A) x (B) y (C) z", "A, C", "choices")
    assert official.logicvista(asked, "C and A").correct
    assert not official.logicvista(asked, "A").correct
    assert not official.logicvista(asked, "").correct


@pytest.mark.parametrize(
    ("response", "gold", "choices", "unit", "right"),
    [
        ("The total is $5. The answer is $5.", "5", (), "$", True),
        ("The answer is 7 games per year.", "7", (), "games per year", True),
        ("The answer is 1,234.", "1234", (), "", True),
        ("The answer is 2/3.", "0.667", (), "", True),
        ("The answer is B.", "no", ("yes", "no"), "", True),
        ("(A) yes", "yes", ("yes", "no"), "", True),
        ("", "yes", ("yes", "no"), "", True),  # never abstains: the first option
        ("It happened on a Sunday evening", "Sunday evening", ("Friday", "Sunday evening"), "", True),
        ("1/0", "3", (), "", False),
    ],
)
def test_tabmwp(response: str, gold: str, choices: tuple[str, ...], unit: str, right: bool) -> None:
    assert official.tabmwp(Problem("1", "What?", gold, "text", choices, unit), response).correct is right


@pytest.mark.parametrize(
    ("path", "bar"), [("letter", 0.985), ("paren_letter", 0.985), ("number", 0.985), ("list", 0.985)]
)
def test_mathvista_parity_on_published_extractions(shared_dir: Path, path: str, bar: float) -> None:
    """Fed with the published extraction in place of a response, the rule gives the published verdict."""
    rows = []
    with (shared_dir / "conformance" / "mathvista_dev.jsonl").open(encoding="utf-8") as lines:
        rows += [row for row in map(json.loads, lines) if row["official_path"] == path]
    agreed = sum(
        official.mathvista(BENCH.read(row), row["extraction"]).correct == row["true_false_current"] for row in rows
    )
    assert rows and agreed / len(rows) >= bar
