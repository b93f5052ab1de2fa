"""The general question-answering benchmarks: rows in the Hub's schema (own content), and real ones where available."""

from __future__ import annotations

import base64
import json
import random
from pathlib import Path

import pytest
from vqa_rows import MAKERS, ROWS, accuracy, graded, png, read, rows_of, said, scienceqa_row

from eval.benches import ai2d, chartqa, clevr_count, find_bench, scienceqa, tabmwp
from eval.benchmark import BenchmarkError
from eval.load import load_problems
from eval.types import Problem, Scorer
from reopold_vl.images import load_image
from reopold_vl.types import IMAGE_MARKER


@pytest.mark.parametrize("scorer", ["strict", "official"])
@pytest.mark.parametrize("name", MAKERS)
def test_gold_is_right_and_shuffled_gold_near_chance(name: str, scorer: Scorer) -> None:
    bench = find_bench(name)
    problems = [bench.read(row) for row in rows_of(name)]
    assert len({problem.id for problem in problems}) == ROWS
    golds = [said(problem) for problem in problems]
    assert accuracy(bench, scorer, problems, golds) == 1.0
    shuffled = random.Random(1).sample(golds, ROWS)
    # Yes/no has a chance of 0.5, four options one of 0.25; everything else less.
    assert accuracy(bench, scorer, problems, shuffled) <= (0.7 if name == "hallusionbench" else 0.5)
    refusals = ["Sorry, I can't help with that."] * ROWS
    assert accuracy(bench, "strict", problems, refusals) == 0.0


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
@pytest.mark.parametrize("name", MAKERS)
def test_rows_load_from_files_with_their_images(name: str, suffix: str, tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    rows, file = rows_of(name, 6), tmp_path / f"rows{suffix}"
    if suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    else:
        uri = {"path": "data:image/png;base64," + base64.b64encode(png()).decode()}
        for row in rows:
            row |= {key: uri for key, cell in row.items() if isinstance(cell, dict)}
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    loaded = load_problems(find_bench(name), data_path=file)
    assert loaded.failed == () and len(loaded.problems) == 6
    for problem in loaded.problems:
        assert [load_image(image).size for image in problem.images] == [(32, 32)]
        for prompt in find_bench(name).prompts.values():
            assert prompt(problem).count(IMAGE_MARKER) in (0, len(problem.images))
        json.dumps([problem.extra, problem.tags])


@pytest.mark.parametrize("name", ["tabmwp", "clevr_count"])
def test_real_samples(name: str, shared_dir: Path) -> None:
    bench = find_bench(name)
    loaded = load_problems(bench, data_path=shared_dir / "samples" / name / "data.parquet")
    problems, golds = list(loaded.problems), [problem.answer or "" for problem in loaded.problems]
    assert loaded.failed == () and len(problems) == {"tabmwp": 80, "clevr_count": 40}[name]
    assert all(len(problem.images) == 1 for problem in problems)
    assert len({problem.id for problem in problems}) == len(problems)
    for scorer in ("strict", "official"):
        assert accuracy(bench, scorer, problems, golds) == 1.0
        assert accuracy(bench, scorer, problems, random.Random(0).sample(golds, len(golds))) < 0.4


def test_tabmwp_wording_and_breakdowns() -> None:
    row = {"pid": "7", "question": "Which day?", "choices": ["Mon", "Tue"], "unit": None, "answer": "Tue", "grade": 8}
    row |= {"ques_type": "multi_choice", "ans_type": "extractive_text", "table": "a | b", "table_title": "Sales"}
    problem = tabmwp.BENCH.read(row)
    query = "Question: Which day?\nOptions: (A) Mon (B) Tue\nSolve the problem step by step and end with "
    assert tabmwp.BENCH.prompts["query"](problem) == query + '"The answer is" and the final answer.'
    assert tabmwp.BENCH.prompts["table"](problem).startswith("Table: Sales\na | b\nQuestion: Which day?")
    assert problem.tags["grades"] == ("7-8",) and problem.images == ()
    money = read(tabmwp.BENCH, row, choices=None, unit="$", answer="3.30", ans_type="decimal_number")
    assert "Which day? (Unit: $)\nSolve" in tabmwp.BENCH.prompts["query"](money)
    assert tabmwp.BENCH.graders["strict"](money, "The total cost is $3.30. The answer is $3.30.").correct


def chart(answer: str) -> Problem:
    return chartqa.BENCH.read({"type": "human_test", "question": "How much?", "answer": answer})


@pytest.mark.parametrize(
    ("gold", "response", "strict", "official"),
    [
        ("42", "43", True, True),
        ("42", "45", False, False),
        ("42", "The answer is 43.", True, False),
        ("2018", "2017", False, True),
        ("2018", "2018", True, True),
        ("12", "12%", True, False),
        ("0.12", "12%", True, True),
        ("12%", "0.12", True, True),
        ("0", "0", True, True),
        ("0", "0.01", False, False),
        ("Yes", "yes", True, True),
        ("Blue", "blue", True, True),
        ("Blue", "green", False, False),
        ("-5", "5", False, False),
        ("1200", "1,210", True, False),
    ],
)
def test_chartqa_tolerance(gold: str, response: str, strict: bool, official: bool) -> None:
    problem = chart(gold)
    assert chartqa.BENCH.graders["strict"](problem, response).correct == strict
    assert chartqa.BENCH.graders["official"](problem, response).correct == official


def test_chartqa_reads_both_copies_and_averages_them() -> None:
    other = chartqa.BENCH.read({"query": "How much?", "label": ["42"], "human_or_machine": 1, "image": None})
    assert (other.question, other.answer, other.tags["source"]) == ("How much?", "42", ("augmented",))
    human = [graded(chart(str(value)), value < 40) for value in (10, 20, 30, 40)]
    assert chartqa.metrics(human) == {"human": 0.75}
    assert chartqa.metrics([*human, graded(other, False)]) == {"human": 0.75, "augmented": 0.0, "average": 0.375}


def test_ai2d_index_answers_and_letters_as_options() -> None:
    row = {"question": "Which label?", "options": ["D", "A", "B", "C"], "answer": "0"}
    problem = ai2d.BENCH.read(row)
    assert problem.answer == "A"
    for grader in ai2d.BENCH.graders.values():
        assert grader(problem, "A").correct and grader(problem, "A. D").correct
        assert not grader(problem, "B").correct and not grader(problem, "D").correct
    assert ai2d.BENCH.prompts["query"](problem) == (
        "Which label?\nA. D\nB. A\nC. B\nD. C\nAnswer with the option's letter from the given choices directly."
    )
    with pytest.raises(BenchmarkError, match=r"answer '4' must be the number of an option, 0 to 3"):
        read(ai2d.BENCH, row, answer="4")
    same = read(ai2d.BENCH, row, image={"bytes": png(), "path": None})
    assert same.id != problem.id != read(ai2d.BENCH, row, question="What label?").id


def test_scienceqa_integer_answers_context_and_official_forms() -> None:
    row = scienceqa_row(0, random.Random(0)) | {"answer": 1, "choices": ["plum", "pear"], "lecture": "It is pear."}
    problem = scienceqa.BENCH.read(row)
    assert problem.answer == "B" and problem.tags["grades"] == ("1-6",)
    assert scienceqa.BENCH.prompts["query"](problem) == (
        "Context: Look.\nWhich of these 0?\nA. plum\nB. pear\n"
        "Answer with the option's letter from the given choices directly."
    )
    assert not any("It is pear" in prompt(problem) for prompt in scienceqa.BENCH.prompts.values())
    grade = scienceqa.BENCH.graders["official"]
    assert grade(problem, "B").correct and grade(problem, "B. pear").correct
    assert grade(problem, "Thus. The answer is B.").correct
    assert grade(problem, "It is (B)").status == "unparsed"
    assert scienceqa.BENCH.graders["strict"](problem, "It is (B)").correct


def test_clevr_count_gold_out_of_its_tag() -> None:
    problem = clevr_count.BENCH.read({"problem": "<image>How many?", "solution": "<answer> 3 </answer>"})
    assert (problem.question, problem.answer, problem.kind) == ("How many?", "3", "integer")
    tags = "Output the thinking process in <think> </think> and final answer (number) in <answer> </answer> tags."
    assert clevr_count.BENCH.prompts["query"](problem) == f"How many? {tags}"
    grade = clevr_count.BENCH.graders["official"]
    assert grade(problem, "<think>2 and 1</think><answer> 3 </answer>").correct and grade(problem, "3").correct
    assert not grade(problem, "<answer>three</answer>").correct
    assert grade(problem, "There are three.").status == "unparsed"
    assert clevr_count.BENCH.graders["strict"](problem, "There are three.").correct
    with pytest.raises(BenchmarkError, match="must be a whole number, not 'many'"):
        clevr_count.BENCH.read({"problem": "How many?", "solution": "many"})
