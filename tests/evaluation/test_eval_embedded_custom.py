"""The embedded benchmark agrees with the training table; rows of one's own are read, asked and scored."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from eval.benches import custom, embedded
from eval.benchmark import BenchmarkError
from eval.load import load_problems
from eval.types import Problem
from reopold_vl.answers import is_correct
from reopold_vl.zoo import task

STRICT, OFFICIAL = custom.BENCH.graders["strict"], custom.BENCH.graders["official"]


def test_embedded_problems_are_those_of_the_zoo() -> None:
    problems = load_problems(embedded.BENCH, limit=22).problems
    samples = task.problems("test", 22)
    assert [problem.id for problem in problems] == [sample.id for sample in samples]
    assert [problem.tags["type"] for problem in problems[:11]] == [(name,) for name in task.TYPES]
    for problem, sample in zip(problems, samples, strict=True):
        assert (problem.question, problem.answer) == (sample.question, sample.answer)
        assert problem.images[0].tobytes() == sample.images[0].tobytes()
        assert embedded.BENCH.prompts["query"](problem) == sample.question
    assert len(embedded.Problems("test")) == 2_200 and len(embedded.Problems("validation")) == 440
    validation = load_problems(embedded.BENCH, split="validation", limit=3).problems
    assert [problem.id for problem in validation] == [sample.id for sample in task.problems("validation", 3)]


def test_embedded_rows_are_drawn_one_by_one() -> None:
    problems = embedded.Problems("test")
    assert problems[-1].id == problems[2_199].id and problems[1:3][1].id == problems[2].id
    with pytest.raises(IndexError):
        problems[2_200]
    with pytest.raises(BenchmarkError, match="split 'train' must be one of test, validation"):
        embedded.Problems("train")


@pytest.mark.parametrize("scorer", ["strict", "official"])
def test_embedded_grader_is_the_training_table_s(scorer: Any) -> None:
    grade, rng = embedded.BENCH.graders[scorer], random.Random(0)
    problems = embedded.Problems("test")[:44]
    steps = [task.problem("test", index).steps for index in range(44)]
    assert all(grade(problem, said).correct for problem, said in zip(problems, steps, strict=True))
    mixed = rng.sample(steps, 44)
    verdicts = [grade(problem, said) for problem, said in zip(problems, mixed, strict=True)]
    expected = [is_correct(said, problem.answer or "") for problem, said in zip(problems, mixed, strict=True)]
    assert [verdict.correct for verdict in verdicts] == expected and sum(expected) < 22
    assert grade(problems[0], "red 010").status == "unparsed"
    assert grade(problems[0], f"Answer: {problems[0].answer}.0").correct  # the number, however it is written


def rows_file(folder: Path, rows: list[dict[str, Any]]) -> Path:
    Image.new("RGB", (40, 30), "blue").save(folder / "a.png")
    file = folder / "mine.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_custom_rows_of_every_kind(tmp_path: Path) -> None:
    rows = [
        {"image": "a.png", "question": "Which?", "answer": "pear", "choices": ["plum", "pear"], "source": "s"},
        {"image": "a.png", "problem": "How many?", "solution": "so 3+4\n\\boxed{7}"},
        {"images": ["a.png", "a.png"], "question": "<image> or <image>?", "answer": "Yes", "id": "own"},
        {"image": "a.png", "query": "Name it.", "ground_truth": "Old Tower"},
        {"image": "a.png", "question": "Solve.", "answer": "x^2 + 1"},
        {"image": "a.png", "question": "List.", "answer": "[1, 2]", "kind": "list"},
        {"image": "a.png", "question": "Is it?", "answer": True},
        {"image": "a.png", "question": "Which?", "answer": "B", "options": "['plum', 'pear']"},
    ]
    loaded = load_problems(custom.BENCH, data_path=rows_file(tmp_path, rows))
    assert loaded.failed == ()
    kinds = [problem.kind for problem in loaded.problems]
    assert kinds == ["choice", "number", "yes_no", "text", "expression", "list", "yes_no", "choice"]
    assert [problem.answer for problem in loaded.problems][1] == "7" and loaded.problems[2].id == "own"
    assert [len(problem.images) for problem in loaded.problems] == [1, 1, 2, 1, 1, 1, 1, 1]
    assert loaded.problems[0].tags == {"source": ("s",)}
    golds = [problem.answer or "" for problem in loaded.problems]
    assert all(
        STRICT(problem, f"The answer is {gold}.").correct for problem, gold in zip(loaded.problems, golds, strict=True)
    )
    assert all(OFFICIAL(problem, gold).correct for problem, gold in zip(loaded.problems, golds, strict=True))
    wrong = ["plum", "8", "No", "New Bridge", "x^3", "[2, 1]", "no", "(A)"]
    assert not any(STRICT(problem, said).correct for problem, said in zip(loaded.problems, wrong, strict=True))
    assert not any(OFFICIAL(problem, said).correct for problem, said in zip(loaded.problems, wrong, strict=True))


def test_custom_wording() -> None:
    problem = custom.BENCH.read({"question": "Which?", "answer": "A", "choices": ["plum", "pear"]})
    asked = 'Which?\nA. plum\nB. pear\nEnd with "Answer: " and the letter of the right option.'
    assert custom.BENCH.prompts["query"](problem) == asked
    assert custom.BENCH.prompts["plain"](problem) == "Which?"
    number = custom.BENCH.read({"question": "How many?", "answer": "7"})
    assert custom.BENCH.prompts["query"](number) == 'How many?\nEnd with "Answer: " and the final answer.'


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answer": "cherry", "choices": ["plum", "pear"]}, "answer 'cherry' names none or several of the options"),
        ({"kind": "word"}, "kind 'word' must be one of choice, choices, integer"),
        ({"question": " "}, "no question or problem or query or prompt in the row"),
        ({"images": ["a.png"], "question": "<image><image>"}, "2 <image> markers for 1 images"),
        ({"answer": ["1", "2"]}, "answer must hold a text or a number"),
        ({"choices": "['a'"}, "choices must hold a list"),
    ],
)
def test_custom_rows_that_cannot_be_used(change: dict[str, Any], message: str) -> None:
    with pytest.raises(BenchmarkError, match=message):
        custom.BENCH.read({"question": "How many?", "answer": "7"} | change)


def test_custom_needs_a_path_and_its_columns(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match="--data-path"):
        load_problems(custom.BENCH)
    file = rows_file(tmp_path, [{"picture": "a.png", "question": "How many?", "answer": 7}])
    with pytest.raises(BenchmarkError, match="no column decoded_image or images or image; found: picture, question"):
        load_problems(custom.BENCH, data_path=file)


def test_custom_rows_without_gold_are_listed(tmp_path: Path) -> None:
    rows = [{"image": "a.png", "question": "A?", "answer": "1"}, {"image": "a.png", "question": "B?", "answer": ""}]
    loaded = load_problems(custom.BENCH, data_path=rows_file(tmp_path, rows))
    assert len(loaded.problems) == 1 and [item.reason for item in loaded.failed] == ["no gold answer"]


@pytest.mark.parametrize(
    ("gold", "response", "right"),
    [("7", "7.9", True), ("7", "8", False), ("1.25", "1.254", True), ("plum", "Plum", False)],
)
def test_official_rule_on_own_rows_is_mathvista_s(gold: str, response: str, right: bool) -> None:
    problem: Problem = custom.BENCH.read({"question": "q", "answer": gold})
    assert OFFICIAL(problem, response).correct == right
