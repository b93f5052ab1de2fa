"""MMMU, MMMU-Pro and MMStar: options and images inside texts, official rules, macro figures."""

from __future__ import annotations

import random

import pytest
from vqa_rows import FRUIT, graded, mmmu_row, mmstar_row, read, rows_of

from eval.benches import mmmu, mmmu_pro, mmmu_rules, mmstar
from eval.benchmark import BenchmarkError
from eval.types import Problem
from reopold_vl.types import IMAGE_MARKER


def test_mmmu_options_and_images_interleave() -> None:
    cells = {f"image_{number}": {"bytes": bytes([number]), "path": None} for number in (1, 2, 3, 4)}
    row = {"id": "validation_Art_Theory_3", "question": "From <image 3> to <image 1>?", "answer": "B", **cells}
    row |= {"options": "['<image 2>', '<image 3>', 'it\\'s, \"neither\"']", "question_type": "multiple-choice"}
    problem = mmmu.BENCH.read(row)
    assert [cell["bytes"][0] for cell in problem.images] == [4, 3, 1, 2, 3]  # no tag names image 4: it comes first
    assert problem.choices == ("<image 2>", "<image 3>", 'it\'s, "neither"')
    assert problem.tags["discipline"] == ("Art and Design",) and problem.tags["subject"] == ("Art_Theory",)
    assert mmmu.BENCH.prompts["query"](problem) == (
        '<image>From <image> to <image>?\n(A) <image>\n(B) <image>\n(C) it\'s, "neither"\n\n'
        "Answer with the option's letter from the given choices directly."
    )
    for prompt in mmmu.BENCH.prompts.values():
        assert prompt(problem).count(IMAGE_MARKER) == 5
    with pytest.raises(BenchmarkError, match="<image 3> has no image in column image_3"):
        read(mmmu.BENCH, row, image_3=None)
    stored = read(mmmu.BENCH, row, **dict.fromkeys(cells))
    assert stored.images == () and mmmu.BENCH.prompts["cot"](stored).count(IMAGE_MARKER) == 4


@pytest.mark.parametrize("options", ["['a', __import__('os')]", "[" * 5000, "['a'", "{'a': 1}x["])
def test_mmmu_options_are_literals_only(options: str) -> None:
    row = mmmu_row(0, random.Random(0)) | {"options": options}
    with pytest.raises(BenchmarkError, match=r"options must hold a list|answer .* must be the letter"):
        mmmu.BENCH.read(row)


def test_mmmu_open_questions_accept_any_of_the_listed_answers() -> None:
    row = mmmu_row(4, random.Random(0)) | {"answer": "['0.95', '95 percent']"}
    problem = mmmu.BENCH.read(row)
    assert problem.kind == "number" and problem.choices == ()
    assert mmmu.BENCH.prompts["query"](problem).endswith("?\n\nAnswer the question using a single word or phrase.")
    for grader in mmmu.BENCH.graders.values():
        assert grader(problem, "The answer is 0.95.").correct
        assert grader(problem, "So the answer is 95 percent").correct
        assert not grader(problem, "The answer is 0.5.").correct
    assert mmmu.BENCH.graders["official"](problem, "The answer is 0.9512.").correct  # rounded to 2 decimals
    assert not mmmu.BENCH.graders["strict"](problem, "The answer is 0.96.").correct
    hidden = read(mmmu.BENCH, row, answer="?")
    assert hidden.answer is None


@pytest.mark.parametrize(
    ("response", "letter", "rule"),
    [
        ("(A) is wrong, so (C)", "C", "bracketed letter"),
        ("The answer is B", "B", "letter"),
        ("B.", "B", "letter"),
        ("I take D.\nIt fits", "D", "letter with dot"),
        ("I think that it must be the Plum or pear", "B", "option text"),
        ("", None, "drawn at random"),
    ],
)
def test_mmmu_official_order_of_rules(response: str, letter: str | None, rule: str) -> None:
    problem = Problem("1", "q", "B", "choice", ("plum", "pear", "fig", "lime"))
    verdict = mmmu_rules.choose(problem, response)
    assert verdict.extraction == letter and verdict.rule.startswith(rule)
    assert verdict == mmmu_rules.choose(problem, response)


def test_mmmu_official_guess_is_fair_and_says_so() -> None:
    problems = [Problem(str(index), "q", "B", "choice", ("plum", "pear", "fig", "lime")) for index in range(400)]
    verdicts = [mmmu_rules.choose(problem, "?") for problem in problems]
    assert {verdict.status for verdict in verdicts} == {"unparsed"}
    assert 60 < sum(verdict.correct for verdict in verdicts) < 140


def test_mmmu_pro_reads_the_answer_line_first() -> None:
    problem = Problem("1", "q", "J", "choice", FRUIT)
    response = "(A) looks good. (B) too.\nAnswer: J"
    assert mmmu_pro.BENCH.graders["official"](problem, response).correct
    assert not mmmu_rules.choose(problem, response).correct


def test_mmmu_pro_vision_shows_the_image_alone() -> None:
    problem = mmmu_pro.VISION.read(rows_of("mmmu_pro_vision", 1)[0])
    assert problem.question == "" and len(problem.images) == 1 and len(problem.choices) == 10
    assert mmmu_pro.VISION.prompts["cot"](problem).startswith("Write out the multiple-choice question in the image")
    assert mmmu_pro.VISION.graders["strict"](problem, f"Long thoughts.\nAnswer: {problem.answer}").correct


def test_mmmu_means_need_all_subjects() -> None:
    rng = random.Random(0)
    problems = [mmmu.BENCH.read(mmmu_row(index, rng)) for index in range(60)]
    answers = [graded(problem, problem.tags["discipline"] == ("Business",)) for problem in problems]
    figures = mmmu.metrics(answers)
    assert figures["mean of disciplines"] == pytest.approx(1 / 6)
    assert figures["mean of subjects"] == pytest.approx(5 / 30)
    assert mmmu.metrics(answers[:20]) == {} or "mean of subjects" not in mmmu.metrics(answers[:20])


def test_mmstar_options_and_average() -> None:
    problem = mmstar.BENCH.read(mmstar_row(0, random.Random(0)))
    assert len(problem.choices) == 4 and set(problem.choices) <= set(FRUIT)
    assert mmstar.BENCH.prompts["query"](problem) == (
        problem.question + "\nAnswer with the option's letter from the given choices directly."
    )
    drawn = read(mmstar.BENCH, mmstar_row(0, random.Random(0)), question="Which? Options: A: , B: , C: , D: ")
    assert drawn.choices == ("A", "B", "C", "D")
    rows = [mmstar_row(index, random.Random(index)) | {"l2_category": f"axis {index // 6}"} for index in range(18)]
    math = [graded(mmstar.BENCH.read(row), row["category"] == "math") for row in rows]
    # A second question of one axis weighs its axis, not the benchmark: 2 axes of 1, one of 1/2.
    math += [graded(math[5].response.problem, False)]
    figures = mmstar.metrics(math)
    assert figures["math (mean of axes)"] == pytest.approx(2.5 / 3)
    assert figures["average"] == pytest.approx(2.5 / 18)
    assert "average" not in mmstar.metrics(math[:17])


def test_mmstar_official_looks_at_the_beginning_only() -> None:
    problem = Problem("1", "q", "B", "choice", ("plum", "pear", "fig", "lime"))
    grade = mmstar.BENCH.graders["official"]
    for response in ("B", "b: pear", "(B) pear", "Option B", "The answer is B."):
        assert grade(problem, response).correct, response
    assert not grade(problem, "I think that it is B").correct
    assert grade(problem, "A pear.").extraction == "A"  # the published rule's weakness, kept
    assert mmstar.BENCH.graders["strict"](problem, "I think that it is B").correct
