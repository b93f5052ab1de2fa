"""Figures computed by hand (We-Math's four ways, DynaMath's worst case, MathVerse's mean) and the official graders."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.benches import BENCHES
from eval.types import Graded, Problem, Response, Verdict


def graded(bench: str, problem: Problem, right: bool | None) -> Graded:
    """An answer to `problem` that was right or wrong, or (None) a failed input."""
    response = Response(bench, "model", problem, 0, "key", "prompt", "text", "failed" if right is None else "stop")
    return Graded(response, None if right is None else Verdict("x", "rule", right))


def wemath(group: str, key: str, right: bool | None) -> Graded:
    row = {"ID": group, "key": key, "question": "?", "option": "A. 1; B. 2", "answer": "A"}
    return graded("wemath", BENCHES["wemath"].read(row), right)


def whole_group(group: str, *steps: bool, composed: bool) -> list[Graded]:
    keys = [f"{len(steps)}steps_{step}" for step in range(1, len(steps) + 1)]
    rows = [wemath(group, key, right) for key, right in zip(keys, steps, strict=True)]
    return [*rows, wemath(group, f"{len(steps)}steps_multi", composed)]


def test_wemath_four_ways_by_hand() -> None:
    answers = [
        *whole_group("mastered", True, True, composed=True),
        *whole_group("not generalised", True, True, composed=False),
        *whole_group("half rote", False, True, composed=True),
        *whole_group("rote", False, False, False, composed=True),
        *whole_group("unknown", False, False, composed=False),
        wemath("incomplete", "2steps_1", True),
        wemath("incomplete", "2steps_multi", True),
        wemath("failed", "2steps_1", None),
    ]
    assert BENCHES["wemath"].metrics(answers) == pytest.approx(
        {
            "S1": 6 / 12,
            "S2": 3 / 5,
            "S3": 1.0,
            "groups": 5,
            "IK": 1 / 5,
            "IG": 1 / 5,
            "score_strict": (5 - 0.5 - 2 - 1) / 5,
            "score_loose": (5 - 0.5 - 1 - 1) / 5,
            "CM_strict": 1 / 5,
            "CM_loose": 2 / 5,
            "RM_strict": 2 / 3,
            "RM_loose": 1 / 3,
        }
    )


def test_wemath_needs_complete_groups() -> None:
    answers = [*whole_group("failed step", True, True, composed=True)[1:], wemath("failed step", "2steps_1", None)]
    assert BENCHES["wemath"].metrics(answers) == {"S1": 1.0, "S2": 1.0}
    assert BENCHES["wemath"].metrics([]) == {}
    nothing_right = BENCHES["wemath"].metrics(whole_group("a", False, False, composed=False))
    assert nothing_right["score_strict"] == 0 and "RM_strict" not in nothing_right


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans()), min_size=1, max_size=12))
def test_wemath_shares_add_up(outcomes: list[tuple[bool, bool, bool]]) -> None:
    answers = [
        item
        for number, (one, two, composed) in enumerate(outcomes)
        for item in whole_group(str(number), one, two, composed=composed)
    ]
    found = BENCHES["wemath"].metrics(answers)
    for way in ("strict", "loose"):
        rote = found.get(f"RM_{way}", 0.0) * found["S2"]
        assert found["IK"] + found["IG"] + found[f"CM_{way}"] + rote == pytest.approx(1)
        # The published score: full marks for mastery, half for what is not generalised.
        assert found[f"score_{way}"] == pytest.approx(found[f"CM_{way}"] + 0.5 * found["IG"])
    assert found["score_loose"] >= found["score_strict"]


def dynamath(seed: str, variant: int, right: bool | None) -> Graded:
    row = {"id": seed, "variant": variant, "question": "?", "ground_truth": "4", "answer_type": "float"}
    return graded("dynamath", BENCHES["dynamath"].read(row), right)


def test_dynamath_worst_case_by_hand() -> None:
    answers = [
        *(dynamath("always", variant, True) for variant in range(1, 11)),
        *(dynamath("but one", variant, variant != 4) for variant in range(1, 11)),
        *(dynamath("never", variant, False) for variant in range(1, 11)),
        *(dynamath("three variants", variant, True) for variant in range(1, 4)),
        *(dynamath("one failed", variant, None if variant == 1 else True) for variant in range(1, 11)),
    ]
    assert BENCHES["dynamath"].metrics(answers) == pytest.approx(
        {"worst_case": 1 / 3, "average": 19 / 30, "robustness": 10 / 19, "consistency": 2 / 3, "seeds": 3}
    )
    assert BENCHES["dynamath"].metrics(answers[30:33]) == {}
    assert "robustness" not in BENCHES["dynamath"].metrics(answers[20:30])


def test_mathverse_mean_of_versions_by_hand() -> None:
    outcomes = {
        "Text Dominant": [True, False],
        "Text Lite": [True],
        "Vision Intensive": [False],
        "Vision Dominant": [True, None],
        "Vision Only": [False, False],
        "Text Only": [True, True, True],
    }
    answers = []
    for version, rights in outcomes.items():
        for number, right in enumerate(rights):
            row = {"sample_index": f"{version}{number}", "problem_version": version, "question": "?", "answer": "4"}
            answers.append(graded("mathverse", BENCHES["mathverse"].read(row), right))
    assert BENCHES["mathverse"].metrics(answers) == {"mean_of_versions": pytest.approx((0.5 + 1 + 0 + 1 + 0) / 5)}
    assert BENCHES["mathverse"].metrics(answers[:4]) == {}


@pytest.mark.parametrize(
    ("response", "letter"),
    [
        ("<Thought process>: <<so>> <Answer>: <<B>>", "B"),
        ("Answer: A\nno, Answer: B. 4", "B"),
        ("B", "B"),
        ("The answer is B", None),  # the official rule knows "Answer" alone
        ("Answer: I", None),
        ("", None),
    ],
)
def test_wemath_official_letter(response: str, letter: str | None) -> None:
    problem = Problem("1", "?", "B", "choice", ("1", "4"))
    found = BENCHES["wemath"].graders["official"](problem, response)
    assert (found.extraction, found.correct) == (letter, letter == "B")
    assert found.status == ("answered" if letter else "unparsed")


def short(answer: Any) -> str:
    return json.dumps({"solution": "so", "short answer": answer}, ensure_ascii=False)


@pytest.mark.parametrize(
    ("kind", "gold", "response", "right"),
    [
        ("float", "2.5", short("2.5009"), True),
        ("float", "2.5", short("2.502"), False),
        ("float", "2.5", short("2.5 cm"), True),
        ("float", "6.2832", short("2π"), True),
        ("float", "2.5", short(2.5), True),
        ("float", "2.5", short("about 2.5"), False),
        ("float", "2.5", "```json\n" + short("2.5") + "\n```", True),
        ("float", "2.5", "So we get\n2.5.", True),  # no JSON: the last line but for its last character
        ("float", "2.5", short("nan"), False),
        ("choice", "B", short("B"), True),
        ("choice", "B", short("(B) No"), True),
        ("choice", "B", short("It is B"), False),
        ("text", "Oct", short("in Oct"), True),
        ("text", "Oct", short("O"), False),
        ("text", "Oct", short(""), False),  # an empty answer is never right
        ("text", "Oct", '{"a":' * 50_000 + "}" * 50_000, False),
    ],
)
def test_dynamath_official_rule(kind: Any, gold: str, response: str, right: bool) -> None:
    problem = Problem("1", "?", gold, kind)
    assert BENCHES["dynamath"].graders["official"](problem, response).correct is right


@pytest.mark.parametrize(
    ("kind", "gold", "response", "right"),
    [
        ("expression", "50cm", "The answer is 0.5m.", True),
        ("expression", "5 m", "\\boxed{5 cm}", False),
        ("expression", "$r=5$", "\\boxed{r = 5}", True),
        ("expression", "(-2,1]", "\\boxed{(-2, 1)}", False),
        ("expression", "(-2,1]", "\\boxed{(-2, 1]}", True),
        ("number", "12.5", "The answer is \\boxed{12.5}", True),
        ("choice", "B", "This is not a function", True),
        ("choice", "B", "", False),
    ],
)
def test_mathverse_official_match(kind: Any, gold: str, response: str, right: bool) -> None:
    choices = ("This is a function", "This is not a function") if kind == "choice" else ()
    problem = Problem("1", "?", gold, kind, choices)
    assert BENCHES["mathverse"].graders["official"](problem, response).correct is right


def test_geometry3k_official_rules() -> None:
    free = Problem("1", "Find x.", "2\\sqrt{5}", "expression")
    grade = BENCHES["geometry3k"].graders["official"]
    assert grade(free, "<think> no </think> \\boxed{2 \\sqrt { 5 }}").correct
    assert grade(free, "The answer is 2\\sqrt{5}.").status == "unparsed"  # without a box the format is broken
    options = Problem("1", "Find x.", "D", "choice", ("30", "40", "60", "80"))
    nearest = BENCHES["geometry3k_choices"].graders
    assert nearest["official"](options, "The result is 78.2.").correct
    assert not nearest["strict"](options, "The result is 78.2.").correct
    assert not nearest["official"](options, "The answer is C.").correct
    assert nearest["official"](options, "I cannot answer this question.").status == "refusal"


@pytest.mark.parametrize("name", ["mathverse", "wemath", "geometry3k", "geometry3k_choices", "dynamath"])
@given(response=st.text(max_size=300))
def test_official_graders_take_any_text(name: str, response: str) -> None:
    problem = Problem("1", "Find x.", "B", "choice", ("1", "2", "3"), extra={"seed": "1"})
    assert BENCHES[name].graders["official"](problem, response).extraction != ""
