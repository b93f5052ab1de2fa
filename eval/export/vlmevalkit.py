"""VLMEvalKit's prediction file: tab-separated, the benchmark's columns with `prediction` last, every cell quoted.

Read by github.com/open-compass/VLMEvalKit (vlmeval/smp/file.py) as `pandas.read_csv(path, sep="\\t")`. Quoted cells
hold tabs, line breaks and doubled quotes as they are; NUL, at which that reader ends a cell, is replaced. Texts that
pandas takes for a missing value ("", "NA", "None", "nan") it takes so here as in VLMEvalKit's own files.
"""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Sequence
from typing import Any

from eval.export.base import Exporter, Row
from eval.scoring.compare import gold_indices
from eval.types import Graded, Problem

_OFFICIAL = ("index", "question", "answer", "prediction")


def row(item: Graded) -> Row:
    """index, question, the options under their letters, answer, what else the benchmark has, prediction.

    Python lists stand as text, as VLMEvalKit stores them. `answer` of a multiple choice item is its letter, but for
    MathVista, whose files hold the option's text with the letter in `answer_option`.
    """
    problem = item.response.problem
    letters = {chr(ord("A") + index): choice for index, choice in enumerate(problem.choices[:26])}
    gold, named = problem.answer or "", _gold_letter(problem)
    cells: Row = {"index": problem.id, "question": problem.question, **letters}
    if problem.choices:
        cells |= {"choices": repr(list(problem.choices)), "answer_option": named}
    cells["answer"] = named if named and item.response.bench != "mathvista" else gold
    for name, value in _flat(problem):
        cells.setdefault(name, value)
    cells.pop("prediction", None)
    return {**cells, "prediction": item.response.text}


def _gold_letter(problem: Problem) -> str:
    if not problem.choices or problem.answer is None:
        return ""
    return "".join(chr(ord("A") + index) for index in gold_indices(problem)[:1])


def _flat(problem: Problem) -> list[tuple[str, Any]]:
    """The benchmark's other columns; those inside a struct (MathVista's metadata) under their own names."""
    found: list[tuple[str, Any]] = []
    for name, value in problem.extra.items():
        found += list(value.items()) if isinstance(value, dict) else [(name, value)]
    return found


def encode(rows: Sequence[Row]) -> str:
    """All columns that any row has; `prediction` last."""
    columns = [name for name in dict.fromkeys(name for row in rows for name in row) if name != "prediction"]
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter="\t", quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writerow([*columns, "prediction"])
    for row in rows:
        writer.writerow([_cell(row.get(name)) for name in [*columns, "prediction"]])
    return text.getvalue()


def _cell(value: Any) -> str:
    return ("" if value is None else str(value)).replace("\0", "\ufffd")


def decode(text: str) -> list[Row]:
    """The rows as text; raises ValueError for missing columns or a row of another width."""
    limit = csv.field_size_limit(sys.maxsize)  # of all readers of this process, hence put back
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter="\t", strict=True))
    except csv.Error as error:
        raise ValueError(str(error)) from None
    finally:
        csv.field_size_limit(limit)
    header = rows[0] if rows else []
    missing = [name for name in _OFFICIAL if name not in header]
    if missing:
        raise ValueError(f"column {missing[0]} is missing (found: {', '.join(header)[:200]})")
    for number, cells in enumerate(rows[1:], 1):
        if len(cells) != len(header):
            raise ValueError(f"row {number} has {len(cells)} cells for {len(header)} columns")
    return [dict(zip(header, cells, strict=True)) for cells in rows[1:]]


EXPORTER = Exporter(
    name="vlmevalkit",
    benches=(),
    file_name="{bench}.tsv",
    row=row,
    encode=encode,
    decode=decode,
)
