"""HallusionBench: rows with and without image, the rule on words, figures over groups."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path

import pytest
from vqa_rows import accuracy, graded, hallusion_row

from eval.benches import hallusionbench


def test_hallusionbench_rows_without_image_and_real_answers(shared_dir: Path) -> None:
    file = shared_dir / "conformance" / "hallusionbench_sample.jsonl"
    with file.open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    problems = [hallusionbench.BENCH.read(row) for row in rows]
    assert len({problem.id for problem in problems}) == 254 and not any(problem.images for problem in problems)
    assert Counter(problem.tags["figure"] for problem in problems)[("none",)] == 43
    responses = [row["response"] for row in rows]
    strict, official = (accuracy(hallusionbench.BENCH, name, problems, responses) for name in ("strict", "official"))
    assert abs(strict - official) < 0.1 and 0.4 < strict < 0.9
    groups = hallusionbench.group_accuracies([graded(problem, True) for problem in problems])
    assert groups == {"qAcc": 1.0, "fAcc": 1.0, "hard": 1.0}


def test_hallusionbench_figures_by_hand() -> None:
    rng = random.Random(0)
    problems = [hallusionbench.BENCH.read(hallusion_row(index, rng)) for index in range(8)]
    right = [True, True, True, False, True, True, True, True]
    answers = [graded(problem, correct) for problem, correct in zip(problems, right, strict=True)]
    # Set 0: question 1 wrong on figure 1. Set 1: all right.
    assert hallusionbench.group_accuracies(answers) == {"qAcc": 3 / 4, "fAcc": 3 / 4, "hard": 3 / 4}
    figures = hallusionbench.metrics(answers)
    assert figures["aAcc"] == 7 / 8 and figures["easy"] == 1.0
    assert "qAcc" not in figures  # eight rows cannot be known to be whole groups
    failed = [*answers[:7], graded(problems[7], None)]
    assert hallusionbench.group_accuracies(failed) == {"qAcc": 2 / 3, "fAcc": 2 / 3, "hard": 2 / 3}
    assert hallusionbench.metrics(failed)["aAcc"] == 6 / 7
    wrong_yes = problems[3].answer == "no"
    assert figures["false_positive_ratio"] == float(wrong_yes)
    assert figures["yes_difference"] == pytest.approx((1 if wrong_yes else -1) / 8)


def test_hallusionbench_whole_runs_report_groups_and_unseen_figures_count_in_no_fAcc() -> None:
    rng = random.Random(0)
    rows = [hallusion_row(index, rng, category="VS") for index in range(951)]
    answers = [graded(hallusionbench.BENCH.read(row), index != 948) for index, row in enumerate(rows)]
    figures = hallusionbench.metrics(answers)
    assert figures["qAcc"] == 1 - 1 / 476  # 238 sets of two questions each
    assert figures["fAcc"] == figures["hard"] == 1.0  # row 948 is about figure 0, asked without a picture
    assert not {"qAcc", "fAcc", "hard"} & set(hallusionbench.metrics(answers[:-1]))


@pytest.mark.parametrize(
    ("response", "answer"), [("No.", "no"), ("Yes, it is", "yes"), ("Yes and no", None), ("It is nowhere", None)]
)
def test_hallusionbench_official_words(response: str, answer: str | None) -> None:
    problem = hallusionbench.BENCH.read(hallusion_row(0, random.Random(0), gt_answer="0"))
    verdict = hallusionbench.BENCH.graders["official"](problem, response)
    assert verdict.extraction == answer and verdict.correct == (answer == "no")
