"""A benchmark of two columns and a picture, and files of rows for it."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
from PIL import Image

from eval.benchmark import Benchmark, BenchmarkError, Source
from eval.load import LoadedProblems
from eval.types import Problem, Verdict


def png(colour: str = "red") -> bytes:
    file = BytesIO()
    Image.new("RGB", (40, 30), colour).save(file, "PNG")
    return file.getvalue()


def row(name: str, **changes: Any) -> dict[str, Any]:
    return {"id": name, "question": f"{name}?", "image": {"bytes": png(), "path": None}, "answer": "4"} | changes


def read(cells: Any) -> Problem:
    if cells["question"] is None:
        raise BenchmarkError("no question in the row")
    image = (cells["image"],) if cells["image"] else ()
    where = {name: cells[name] for name in ("_split", "_config", "_row")}
    return Problem(str(cells["id"]), cells["question"], cells["answer"] or None, "number", extra=where, images=image)


BENCH = Benchmark(
    name="toy",
    title="Toy",
    licence="none",
    citation="none",
    sources=(Source("new/toy"), Source("old/toy")),
    splits=("testmini", "dev"),
    hidden_splits=("test",),
    columns=(("id", "pid"), ("question",), ("image",), ("answer",)),
    read=read,
    prompts={"question": lambda problem: problem.question},
    graders={"strict": lambda problem, response: Verdict(response, "whole", response == problem.answer)},
)


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def ids(loaded: LoadedProblems) -> list[str]:
    return [problem.id for problem in loaded.problems]
