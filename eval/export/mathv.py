"""MATH-V's answer file: one JSON object a line with id, response, model_answer and correct.

Read by the repository's evaluation/evaluate.py (github.com/mathllm/MATH-V), which looks problems up by id and, run as
it is published, makes `model_answer` and `correct` anew from `response`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from eval.export.base import Exporter, Row, answer_text
from eval.types import Graded

_COLUMNS = ("id", "model", "response", "model_answer", "correct")


def row(item: Graded) -> Row:
    """One line."""
    values = item.response.problem.id, item.response.model, item.response.text, answer_text(item), item.correct
    return dict(zip(_COLUMNS, values, strict=True))


def encode(rows: Sequence[Row]) -> str:
    """JSON lines. Only "\\n" ends a line: U+2028 and its like stay inside."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def decode(text: str) -> list[Row]:
    """The lines; raises ValueError naming the first that is no answer."""
    rows = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        entry = json.loads(line)
        missing = [name for name in _COLUMNS if name not in entry]
        if missing:
            raise ValueError(f"line {number} has no {', '.join(missing)}")
        rows.append(entry)
    return rows


EXPORTER = Exporter(
    name="mathv",
    benches=("mathvision",),
    file_name="{bench}.jsonl",
    row=row,
    encode=encode,
    decode=decode,
)
