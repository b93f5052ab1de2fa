"""Files of rows -> rows: what training data and benchmarks are read with. Nothing is interpreted, nothing decoded."""

from __future__ import annotations

import codecs
import difflib
import glob
import itertools
import json
import logging
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

SUFFIXES = (".parquet", ".jsonl", ".json")


class DataError(ValueError):
    """A data set, or a row of it, that cannot be used; one line saying what is wrong and what would be right."""


def find_files(path: Path, prefix: str = "train", *, prefer: str = "") -> list[Path]:
    """The data files behind a path: the file itself, or a directory's (or its data/ folder's) parquet or jsonl files.

    Of a directory only the files whose names start with `prefix` are taken, where there are any, and only those with
    the suffix `prefer`, where both kinds lie in it. Raises DataError for a missing path (naming what is near), another
    kind of file, an empty directory, and one with both kinds in it where none is preferred.
    """
    if path.is_file():
        if path.suffix not in SUFFIXES:
            advice = "; python -m data_recipes.build local converts it" if path.suffix in (".csv", ".tsv") else ""
            raise DataError(f"{path}: files of this kind are not read; allowed: {', '.join(SUFFIXES)}{advice}")
        return [path]
    if not path.is_dir():
        beside = path.parent.iterdir() if path.parent.is_dir() else ()
        near = ", ".join(difflib.get_close_matches(path.name, [entry.name for entry in beside]))
        raise DataError(f"{path}: no such file or directory" + (f"; near it: {near}" if near else ""))
    for folder in (path, path / "data"):
        found = sorted(f for f in folder.glob("*") if f.suffix in (".parquet", ".jsonl") and f.is_file())
        if prefer and any(file.suffix == prefer for file in found):
            found = [file for file in found if file.suffix == prefer]
        if len({file.suffix for file in found}) > 1:
            raise DataError(f"{path}: holds parquet and jsonl files ({', '.join(f.name for f in found[:4])}); name one")
        if found:
            return [file for file in found if file.name.startswith(prefix)] or found
    raise DataError(f"{path}: neither it nor its data/ folder holds a .parquet or .jsonl file")


def not_read(files: Sequence[Path], beside: Iterable[Path]) -> str:
    """A note naming those of the files `beside` that are of another kind than `files`, which are read; or ""."""
    other = sorted(file.name for file in beside if file.suffix.lower() != files[0].suffix.lower())
    return f"not read, since {files[0].name} lies beside: {', '.join(other)}" if other else ""


def read_parquet(file: Path) -> tuple[list[str], Iterator[Any]]:
    """Column names and rows of a parquet file; encoded images stay as they are. Raises DataError while reading."""
    import datasets

    datasets.logging.set_verbosity(logging.CRITICAL)  # it would log an error that is ours to report

    def rows() -> Iterator[Any]:
        try:
            with tempfile.TemporaryDirectory() as cache:  # streaming stores no rows, but lock files even so
                name = glob.escape(str(file.resolve()))
                stream = datasets.load_dataset(
                    "parquet", data_files=[name], split="train", streaming=True, cache_dir=cache
                )
                yield from stream.decode(False)  # encoded images stay bytes
        except (OSError, ValueError, NotImplementedError) as error:
            raise DataError(f"{file}: unreadable parquet, {' '.join(str(error).split())}") from error

    first = next(reader := rows(), {})
    return list(first), itertools.chain([first] if first else [], reader)


def read_json(file: Path) -> tuple[list[str], Iterator[Any]]:
    """Column names and rows of a jsonl file, or of a json file with a list; a line that is not JSON is a DataError.

    Numbers come as text, as written. Not by `datasets`, whose reader turns "2020-01-01" into a time and one bad line
    into no rows at all. Raises DataError where the whole file is not valid JSON.
    """
    decoder = json.JSONDecoder(parse_float=str, parse_int=str, parse_constant=str)  # 3.50 stays 3.50

    def parse(data: bytes) -> Any:
        try:
            return decoder.decode(data.decode("utf-8"))
        except (ValueError, RecursionError) as error:
            return DataError(f"not valid JSON, {error}")

    data = file.read_bytes().removeprefix(codecs.BOM_UTF8)
    whole = data.lstrip().startswith(b"[")
    rows = parse(data) if whole else [parse(line) for line in data.split(b"\n") if line.strip()]
    if isinstance(rows, DataError):
        raise DataError(f"{file}: {rows}")
    return list(dict.fromkeys(key for row in rows if isinstance(row, dict) for key in row)), iter(rows)
