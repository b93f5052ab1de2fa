"""MathVerse's output file: a list of the problems, each with model_answer, extraction and judgement (0 or 1).

Read by the repository's extract_answer_s1.py and score_answer_s2.py (github.com/ZrrSkywalker/MathVerse), which have
GPT-4 make `extraction` and `judgement` anew unless they run with --cache.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from eval.export.base import Exporter, Row, answer_text, json_text, rows_of
from eval.types import Graded

_COLUMNS = ("sample_index", "problem_index", "problem_version", "question", "answer", "question_type", "metadata")


def row(item: Graded) -> Row:
    """The problem's columns under their own names, then the model's."""
    problem = item.response.problem
    whole = {**problem.extra, "question": problem.question, "answer": problem.answer}
    whole.setdefault("sample_index", problem.id)
    whole.setdefault("question_type", "multi-choice" if problem.choices else "free-form")
    known = {name: whole.pop(name) for name in _COLUMNS if name in whole}
    return {
        **known,
        **whole,
        "model_answer": item.response.text,
        "extraction": answer_text(item),
        "judgement": int(item.correct),
    }


def encode(rows: Sequence[Row]) -> str:
    """A list."""
    return json_text(list(rows))


def decode(text: str) -> list[Row]:
    """The list; raises ValueError where an entry has no answer."""
    rows = rows_of(json.loads(text))
    lacking = [index for index, row in enumerate(rows) if "model_answer" not in row]
    if lacking:
        raise ValueError(f"entry {lacking[0]} has no model_answer")
    return rows


EXPORTER = Exporter(
    name="mathverse",
    benches=("mathverse",),
    file_name="output_{bench}.json",
    row=row,
    encode=encode,
    decode=decode,
)
