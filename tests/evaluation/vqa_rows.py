"""Rows in the schema of the question-answering benchmarks, of our own content, and what their tests share."""

from __future__ import annotations

import random
from collections.abc import Callable
from io import BytesIO
from typing import Any

from PIL import Image

from eval.benches import mmmu, mmstar
from eval.benchmark import Benchmark, Row
from eval.types import Graded, Problem, Response, Scorer, Verdict

FRUIT = ("apple", "pear", "plum", "fig", "quince", "lime", "cherry", "peach", "melon", "grape")
ROWS = 40


def png(colour: str = "red") -> bytes:
    file = BytesIO()
    Image.new("RGB", (32, 32), colour).save(file, "PNG")
    return file.getvalue()


def four(rng: random.Random, count: int = 4) -> list[str]:
    return rng.sample(FRUIT, count)


def mmmu_row(index: int, rng: random.Random) -> dict[str, Any]:
    subject = list(mmmu.DISCIPLINE_OF)[index % 30]
    if index % 5 == 4:
        kind, options, answer = "open", "[]", f"['{index * 3 + 1}.25', 'about{index}']"
    else:
        kind, options, answer = "multiple-choice", str(four(rng)), rng.choice("ABCD")
    images = {f"image_{number}": {"bytes": png(), "path": None} if number == 1 else None for number in range(1, 8)}
    row = {"id": f"validation_{subject}_{index}", "question": f"What is at mark {index} in <image 1>?", **images}
    return row | {"options": options, "answer": answer, "question_type": kind, "topic_difficulty": "Easy"}


def mmmu_pro_row(index: int, rng: random.Random) -> dict[str, Any]:
    row = mmmu_row(0, rng) | {"id": f"test_History_{index}", "options": str(four(rng, 10)), "subject": "History"}
    return row | {"answer": rng.choice("ABCDEFGHIJ"), "image": {"bytes": png(), "path": None}}


def mmstar_row(index: int, rng: random.Random) -> dict[str, Any]:
    options = ", ".join(f"{letter}: {text}" for letter, text in zip("ABCD", four(rng), strict=True))
    place = {"category": list(mmstar.AXES)[index % 6], "l2_category": f"axis {index % 3}"}
    return {"index": index, "question": f"Which fruit? \nOptions: {options}", "answer": rng.choice("ABCD"), **place}


def chartqa_row(index: int, rng: random.Random) -> dict[str, Any]:
    answer = str(rng.choice([f"{rng.randint(1, 999) / 10}", rng.choice(("Yes", "No")), f"{FRUIT[index % 10]} {index}"]))
    return {"type": rng.choice(("human_test", "augmented_test")), "question": f"Value {index}?", "answer": answer}


def ai2d_row(index: int, rng: random.Random) -> dict[str, Any]:
    return {"question": f"Which part {index}?", "options": four(rng), "answer": str(rng.randrange(4))}


def scienceqa_row(index: int, rng: random.Random) -> dict[str, Any]:
    row = {"question": f"Which of these {index}?", "choices": four(rng), "answer": rng.randrange(4)}
    return row | {"hint": "" if index % 2 else "Look.", "subject": "natural science", "grade": f"grade{index % 12 + 1}"}


def clevr_row(index: int, rng: random.Random) -> dict[str, Any]:
    return {"problem": f"How many items {index}?", "solution": f"<answer> {rng.randint(0, 9)} </answer>"}


def tabmwp_row(index: int, rng: random.Random) -> dict[str, Any]:
    row = {"pid": str(index), "question": f"How many on day {index}?", "unit": None, "grade": index % 8 + 1}
    if index % 2:
        choices = four(rng)
        return row | {"choices": choices, "answer": choices[0], "ques_type": "multi_choice", "ans_type": "other_text"}
    number = {"answer": f"{rng.randint(1, 9999):,}", "ques_type": "free_text", "ans_type": "integer_number"}
    return row | {"choices": None, **number}


def hallusion_row(index: int, rng: random.Random, **given: str) -> dict[str, Any]:
    place = {"category": "VD", "subcategory": "map", "visual_input": "1", "set_id": str(index // 4)}
    place |= {"figure_id": str(index % 4 // 2), "question_id": str(index % 2)}
    return place | {"question": f"Is {index} red?", "gt_answer": rng.choice("01"), "filename": "x.png", **given}


MAKERS: dict[str, Callable[[int, random.Random], dict[str, Any]]] = {
    "mmmu": mmmu_row,
    "mmmu_pro": mmmu_pro_row,
    "mmmu_pro_4": mmmu_pro_row,
    "mmmu_pro_vision": mmmu_pro_row,
    "mmstar": mmstar_row,
    "chartqa": chartqa_row,
    "ai2d": ai2d_row,
    "scienceqa": scienceqa_row,
    "clevr_count": clevr_row,
    "tabmwp": tabmwp_row,
    "hallusionbench": hallusion_row,
}


def rows_of(name: str, count: int = ROWS) -> list[dict[str, Any]]:
    rng = random.Random(name)
    return [{"image": {"bytes": png(), "path": None}} | MAKERS[name](index, rng) for index in range(count)]


def said(problem: Problem) -> str:
    """A response that states the gold answer: the first one of several."""
    return mmmu.alternatives(problem.answer or "")[0]


def accuracy(bench: Benchmark, scorer: Scorer, problems: list[Problem], responses: list[str]) -> float:
    grader = bench.graders[scorer]
    return sum(grader(*pair).correct for pair in zip(problems, responses, strict=True)) / len(problems)


def graded(problem: Problem, correct: bool | None, status: Any = "answered") -> Graded:
    response = Response("x", "m", problem, 0, "", "", "", "stop" if correct is not None else "failed")
    return Graded(response, None if correct is None else Verdict("x", "rule", correct, status))


def read(bench: Benchmark, row: Row, **changed: Any) -> Problem:
    return bench.read({**row, **changed})
