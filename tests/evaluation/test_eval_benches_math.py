"""MathVista, MathVerse, MATH-Vision, We-Math, Geometry3K, LogicVista, DynaMath: rows, prompts, gold scored right."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from eval.benches import BENCHES, common
from eval.benchmark import BenchmarkError
from eval.load import LoadedProblems, load_problems
from eval.types import Problem, Scorer
from reopold_vl.answers import normalise

ROWS = {
    "mathvista": 5,
    "mathverse": 84,
    "mathvision": 112,
    "wemath": 60,
    "geometry3k": 10,
    "geometry3k_choices": 10,
    "logicvista": 29,
    "dynamath": 57,
}
CHANCE_BOUND = {("mathvista", "official"): 0.2}  # one of five is multiple choice, where the rule never abstains

MATHVISTA: dict[str, Any] = {
    "pid": "9",
    "question": "How heavy is it?",
    "choices": None,
    "unit": "g",
    "precision": 2.0,
    "answer": "1.25",
    "question_type": "free_form",
    "answer_type": "float",
    "metadata": {"skills": ["arithmetic reasoning"], "task": "math word problem", "img_width": "30"},
}
WEMATH: dict[str, Any] = {
    "ID": "2steps_7",
    "key": "2steps_multi",
    "knowledge concept": "Area;Angles",
    "question": "How large is it?",
    "option": "A. 4 B. 3, 5 C. 2 ;D. 1;E. No correct answer",
    "answer": "B",
}
DYNAMATH: dict[str, Any] = {
    "id": "3",
    "question": "Is it a tree? choice: (A) Yes (B) No",
    "ground_truth": "A",
    "answer_type": "multiple choice",
    "subject": "graph theory",
    "knowledge_level": "high school",
}


@pytest.fixture(scope="module", params=ROWS)
def loaded(request: pytest.FixtureRequest, shared_dir: Path) -> tuple[str, LoadedProblems]:
    file = shared_dir / "samples" / request.param.removesuffix("_choices") / "data.parquet"
    return request.param, load_problems(BENCHES[request.param], data_path=file)


def say(name: str, scorer: Scorer, answer: str) -> str:
    """An answer in the form that the benchmark's official rule reads; for `strict` as it is."""
    answer = ", ".join(answer.split("\n"))
    if scorer == "official":
        forms = {
            "wemath": f"<Thought process>: <<see above>> <Answer>: <<{answer}>>",
            "dynamath": json.dumps({"solution": "see above", "short answer": answer}),
            "geometry3k": f"\\boxed{{{answer}}}",
        }
        return forms.get(name, answer)
    return answer


def test_every_real_row_is_read(loaded: tuple[str, LoadedProblems]) -> None:
    name, problems = loaded[0], loaded[1].problems
    assert len(problems) == ROWS[name] and not loaded[1].failed and not loaded[1].notes
    assert loaded[1].without_image == (14 if name == "mathverse" else 0)  # its text-only version
    for problem in problems:
        assert problem.tags or name.startswith("geometry3k")
        assert "<image>" not in problem.question and problem.images in ((), problem.images[:1])
        stored = asdict(replace(problem, images=()))
        assert json.loads(json.dumps(stored)) is not None
        if problem.kind == "choice" and problem.choices and len(problem.answer or "") == 1:
            assert ord(problem.answer or "") - ord("A") < len(problem.choices)
        assert all(prompt(problem).strip() for prompt in BENCHES[name].prompts.values())


@pytest.mark.parametrize("scorer", ["strict", "official"])
def test_gold_answers_are_right_and_those_of_other_rows_near_chance(
    loaded: tuple[str, LoadedProblems], scorer: Scorer
) -> None:
    name, problems = loaded[0], loaded[1].problems
    grade = BENCHES[name].graders[scorer]
    wrong = [(p.id, p.answer) for p in problems if not grade(p, say(name, scorer, p.answer or "")).correct]
    assert not wrong
    right = same = rows = 0
    for shift in range(1, min(len(problems), 11)):
        for problem, other in zip(problems, [*problems[shift:], *problems[:shift]], strict=True):
            right += grade(problem, say(name, scorer, other.answer or "")).correct
            same += normalise(other.answer or "") == normalise(problem.answer or "")
            rows += 1
    assert abs(right - same) / rows <= CHANCE_BOUND.get((name, scorer), 0.01)


def test_files_of_names_read_as_files_of_pictures(shared_dir: Path) -> None:
    for name in ROWS:
        folder = shared_dir / "samples" / name.removesuffix("_choices")
        one, other = (load_problems(BENCHES[name], data_path=folder / file) for file in ("data.parquet", "items.jsonl"))
        assert [problem.id for problem in one.problems] == [problem.id for problem in other.problems]
        assert [problem.tags for problem in one.problems] == [problem.tags for problem in other.problems]


@pytest.mark.parametrize("name", ["mathvista", "mathvista_reasoning", "mathvision", "logicvista"])
def test_published_outputs_read_as_rows(shared_dir: Path, name: str) -> None:
    bench = BENCHES[name.removesuffix("_reasoning")]
    with (shared_dir / "conformance" / f"{name}_dev.jsonl").open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    problems = [bench.read(row) for row in rows]
    assert len({problem.id for problem in problems}) > 100
    assert sum(problem.answer is None for problem in problems) == (2 if name == "logicvista" else 0)
    if "mathvista" in name:
        assert not any(problem.images for problem in problems)  # they have the picture's name, not the picture


def test_prompts_made_anew_equal_the_published_columns(shared_dir: Path) -> None:
    vista, verse = BENCHES["mathvista"], BENCHES["mathverse"]
    with (shared_dir / "conformance" / "mathvista_dev.jsonl").open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    for row in rows:
        without = {name: cell for name, cell in row.items() if name != "query"}
        assert vista.prompts["query"](vista.read(without)) == row["query"] == vista.prompts["query"](vista.read(row))
    rows = [json.loads(line) for line in (shared_dir / "samples/mathverse/items.jsonl").open(encoding="utf-8")]
    for row in rows:
        without = verse.read({name: cell for name, cell in row.items() if not name.startswith("query_")})
        assert (verse.prompts["cot"](without), verse.prompts["direct"](without)) == (row["query_cot"], row["query_wo"])
        assert (row["problem_version"] == "Vision Only") == (without.question == "")


def test_mathvista_cells() -> None:
    problem = BENCHES["mathvista"].read(MATHVISTA)
    assert (problem.kind, problem.precision, problem.unit, problem.images) == ("float", 2, "g", ())
    assert problem.tags["skills"] == ("arithmetic reasoning",) and problem.extra["metadata"]["img_width"] == 30
    assert BENCHES["mathvista"].prompts["query"](problem) == (
        "Hint: Please answer the question requiring a floating-point number with two decimal places and provide the "
        "final value, e.g., 1.23, 1.34, 1.45, at the end.\nQuestion: How heavy is it? (Unit: g)"
    )
    direct = BENCHES["mathvista"].prompts["direct"](problem)
    assert direct.startswith("Question: How heavy is it? (Unit: g)\nHint: ") and direct.endswith(
        "1.34, 1.45, and nothing else."
    )
    hidden = BENCHES["mathvista"].read(MATHVISTA | {"answer": "", "precision": None})
    assert hidden.answer is None and hidden.precision is None
    with pytest.raises(BenchmarkError, match="no question"):
        BENCHES["mathvista"].read(MATHVISTA | {"question": None})
    with pytest.raises(BenchmarkError, match="column choices must hold a list"):
        BENCHES["mathvista"].read(MATHVISTA | {"choices": 3})


def test_mathvision_prompt_and_kinds() -> None:
    bench = BENCHES["mathvision"]
    row = {"id": "1", "question": "Which?\n<image1>", "options": list("ABCDE"), "answer": "C", "level": 2}
    drawn, spelled = bench.read(row), bench.read(row | {"options": ["1", "2"]})
    start = (
        'Please solve the problem and put your answer in one "\\boxed{}". '
        'If it is a multiple choice question, only one letter is allowed in the "\\boxed{}".\nWhich?\n<image1>\n'
    )
    assert bench.prompts["official"](drawn) == start
    assert bench.prompts["official"](spelled) == start + "(A) 1\n(B) 2\n"
    answers = {
        "12": "number",
        "69{degrees}": "number",
        "C": "choice",
        "\x0crac{3}{4}": "expression",
        "1:2": "expression",
    }
    assert {gold: bench.read(row | {"options": [], "answer": gold}).kind for gold in answers} == answers


def test_wemath_and_logicvista_options() -> None:
    problem = BENCHES["wemath"].read(WEMATH)
    assert problem.choices == ("4", "3, 5", "2", "1", "No correct answer") and problem.id == "2steps_7/multi"
    assert problem.tags == {"steps": ("S2",)}
    step = BENCHES["wemath"].read(WEMATH | {"key": "2steps_1"})
    assert step.tags == {"steps": ("S1",), "knowledge_concept": ("Area", "Angles")} and step.id == "2steps_7/1"
    assert (
        BENCHES["wemath"]
        .prompts["official"](problem)
        .endswith(
            "final answer(option).\nQuestion: How large is it?\nOption: A. 4 B. 3, 5 C. 2 ;D. 1;E. No correct answer\n"
            "Regarding the format, please answer following the template below, and be sure to include two <> symbols:\n"
            "<Thought process>: <<your thought process>> <Answer>: <<your option>>"
        )
    )
    with pytest.raises(BenchmarkError, match="2steps_1"):
        BENCHES["wemath"].read(WEMATH | {"key": "four"})
    marker = r"\(([A-Z])\)"
    asked = "Select from (A), (B), (C). (A) True (B)False (C) both (A) and (B)"
    assert common.inline_options(asked, marker) == ("True", "False", "both (A) and (B)")
    assert common.inline_options("Which? (A) (B) (C)", marker) == () == common.inline_options("Which?", marker)


@pytest.mark.parametrize(("answer", "kind"), [("B", "choice"), ("A, C", "choices"), ("3", "integer")])
def test_logicvista_kinds(answer: str, kind: str) -> None:
    row = {"index": "v1_1", "question": "Which?", "image": "x.png", "answer": answer, "skill": ["spatial"]}
    assert BENCHES["logicvista"].read(row).kind == kind


def test_geometry3k_has_two_schemas() -> None:
    row: dict[str, Any] = {
        "problem": "<image>Find x.",
        "images": [{"bytes": b"x", "path": None}],
        "answer": "2 \\sqrt { 5 }",
    }
    free = BENCHES["geometry3k"].read(row | {"_split": "test", "_row": 4})
    assert (free.id, free.question, free.kind) == ("test-4", "Find x.", "expression") and len(free.images) == 1
    choice = row | {"id": "8", "choices": ["1", "2"], "ground_truth": "B"}
    assert BENCHES["geometry3k_choices"].read(choice).choices == ("1", "2")
    with pytest.raises(BenchmarkError, match="must be a letter from A to B"):
        BENCHES["geometry3k_choices"].read(choice | {"ground_truth": "C"})


def test_dynamath_variants() -> None:
    bench = BENCHES["dynamath"]
    problem = bench.read(DYNAMATH | {"_split": "sample_variant7", "_row": 0})
    assert (problem.id, problem.choices, problem.extra["seed"]) == ("3-7", ("Yes", "No"), "3")
    assert bench.read(DYNAMATH | {"variant": 2}).id == "3-2"
    number = bench.read(DYNAMATH | {"variant": 1, "answer_type": "float", "ground_truth": "2.5"})
    assert (number.kind, number.precision) == ("float", 3)
    start = "## Question\nIs it a tree? choice: (A) Yes (B) NoPlease answer in a floating-point number.\n## Answer "
    assert bench.prompts["official"](number).startswith(start)
    assert "(B) No Give the answer as a number with three decimals.\n" in bench.prompts["cot"](number)
    assert bench.prompts["official"](problem).endswith('"short answer": "[Concise Answer]"\n}')


def test_variants_of_prompts_list_options_once() -> None:
    problem = Problem("1", "Which of 12?", "1", "choice", ("1", "2"))
    assert common.prompt_direct(problem).split("\n")[:3] == ["Which of 12?", "A. 1", "B. 2"]
    spelled = replace(problem, question="Which? (A) 1 (B) 2")
    assert (
        common.prompt_cot(spelled) == "Which? (A) 1 (B) 2\nThink step by step, then put the final answer in \\boxed{}."
    )
