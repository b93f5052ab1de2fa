"""Rows out of one file from any row on, with its columns and count: parquet, JSON, csv; image folders too."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_recipes import json_rows
from data_recipes.types import RecipeError, RowError

PEEK = 1000  # rows looked at for the columns of a file that has no schema
BATCH = 16  # rows of a parquet file in memory at once
BUFFER, REMOTE_BUFFER = 2**20, 8 * 2**20  # bytes read at once of each column
MAX_CELL = 2**28  # characters of a csv cell (an image as a data URI may be one)


@dataclass(frozen=True)
class RowFile:
    """A file of rows: its columns as far as they are known, and its row count where it costs nothing to know."""

    file: Path | str
    columns: tuple[str, ...]
    total: int | None


def open_file(file: Path | str) -> RowFile:
    """Look at a file (or a parquet file at an hf:// address) without reading its rows.

    Raises RecipeError for one that is unreadable.
    """
    if isinstance(file, str):
        return _open_parquet(file)
    try:
        if file.suffix.lower() == ".parquet":
            return _open_parquet(file)
        first = itertools.islice(rows_from(file, 0), PEEK)
        columns = dict.fromkeys(key for row in first if isinstance(row, dict) for key in row)
        lines = file.suffix.lower() not in (".csv", ".tsv") and json_rows.is_lines(file)
        return RowFile(file, tuple(columns), json_rows.count_lines(file) if lines else None)
    except OSError as error:
        raise RecipeError(f"{file}: {error.strerror or error}") from error


def rows_from(file: Path | str, skip: int) -> Iterator[dict[str, Any] | RowError]:
    """The rows from number `skip` on; a row that cannot be read is a RowError in its place.

    Rows before `skip` are not decoded. Raises RecipeError where the file itself is damaged.
    """
    if isinstance(file, str):
        return map(_name_images, _parquet_rows(file, skip))
    suffix = file.suffix.lower()
    if suffix == ".parquet":
        rows = _parquet_rows(file, skip)
    elif suffix in (".csv", ".tsv"):
        rows = _csv_rows(file, skip)
    elif skip and json_rows.is_lines(file):
        rows = json_rows.skip_lines(file, skip)
    else:
        rows = itertools.islice(json_rows.read_rows(file), skip, None)
    return map(_name_images, rows)


def _open_parquet(file: Path | str) -> RowFile:
    with _parquet(file) as handle:
        return RowFile(file, tuple(handle.schema_arrow.names), handle.metadata.num_rows)


def _parquet_rows(file: Path | str, skip: int) -> Iterator[dict[str, Any]]:
    """Straight from pyarrow: `datasets` has no way into the middle of a file. Encoded images stay as they are."""
    with _parquet(file) as handle:
        groups = list(range(handle.num_row_groups))
        while groups and skip >= (rows := handle.metadata.row_group(groups[0]).num_rows):
            skip -= rows
            groups.pop(0)
        for batch in handle.iter_batches(BATCH, row_groups=groups) if groups else ():
            if skip < len(batch):
                yield from batch.slice(skip).to_pylist()
            skip = max(0, skip - len(batch))


@contextmanager
def _parquet(file: Path | str) -> Iterator[Any]:
    """A parquet file opened such that memory stays flat: what has been read is let go, columns come in pieces."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from huggingface_hub import HfFileSystem, errors

    try:
        with ExitStack() as stack:
            source = stack.enter_context(HfFileSystem().open(file, "rb")) if isinstance(file, str) else file
            buffer_size = REMOTE_BUFFER if isinstance(file, str) else BUFFER
            yield stack.enter_context(pq.ParquetFile(source, buffer_size=buffer_size, pre_buffer=False))
    except (pa.ArrowException, OSError, ValueError, errors.HTTPError) as error:
        if isinstance(error, RecipeError | RowError):
            raise
        raise RecipeError(f"{file}: unreadable parquet, {' '.join(str(error).split())}") from error


def _csv_rows(file: Path, skip: int) -> Iterator[dict[str, Any] | RowError]:
    """Cells stay text ("3.50"), empty ones are missing; a row with too many or too few cells is a RowError."""
    csv.field_size_limit(MAX_CELL)
    delimiter = "\t" if file.suffix.lower() == ".tsv" else ","
    with file.open(encoding="utf-8-sig", newline="") as handle:
        try:
            reader = csv.reader(handle, delimiter=delimiter)
            header = next(reader, [])
            for number, cells in enumerate(cells for cells in reader if cells):
                if number < skip:
                    continue
                if len(cells) != len(header):
                    yield RowError(f"{len(cells)} cells under {len(header)} column names")
                else:
                    yield {name: cell or None for name, cell in zip(header, cells, strict=True)}
        except (csv.Error, UnicodeDecodeError) as error:
            raise RecipeError(f"{file}: not readable as csv, {error}") from error


def _name_images(row: dict[str, Any] | RowError) -> dict[str, Any] | RowError:
    """The image-folder layout of `datasets`: `file_name` names the image, `x_file_name` the image of column x."""
    if isinstance(row, RowError):
        return row
    named = {
        key: ("image" if key == "file_name" else "images" if key == "file_names" else key.rpartition("_file_name")[0])
        for key in row
        if key in ("file_name", "file_names") or key.endswith(("_file_name", "_file_names"))
    }
    return row | {column: row[key] for key, column in named.items() if row.get(column) is None}
