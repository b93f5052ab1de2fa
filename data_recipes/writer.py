"""Checked rows -> parquet shards in the Hub's layout, a row group at a time; files appear whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from data_recipes.check import Unreadable
from data_recipes.filters import Judged

GROUP_ROWS, GROUP_BYTES = 100, 32 * 2**20
"""A row group is written when it has this many rows or bytes: what is in memory at once."""

REJECTED_COLUMNS = ("filter", "reason", "hits")


def features(extra: Sequence[str] = (), *, rejected: bool = False) -> Any:
    """The columns of a shard, as `datasets` knows them; `extra` are a recipe's own columns beside the common ones."""
    from datasets import Features, Image, List, Value

    texts, string = List(Value("string")), Value("string")
    columns: dict[str, Any] = {
        "id": string,
        "images": List(Image()),
        "question": string,
        "answer": string,
        "answer_normalised": string,
        "answer_type": string,
        "choices": texts,
        "source": string,
        "system": string,
        "recipe": string,
        "number": Value("int64"),
        "image_sha256": texts,
        "image_phash": texts,
    }
    columns |= {name: Value(_type_of(name)) for name in extra}
    columns |= dict.fromkeys(REJECTED_COLUMNS if rejected else (), string)
    return Features(columns)


def row_of(judged: Judged, extra: Sequence[str]) -> dict[str, Any]:
    """One stored row. Of an unreadable one only what could be read is there."""
    row, rejected = judged.row, judged.rejected
    if isinstance(row, Unreadable):
        stored: dict[str, Any] = {"id": row.rejected.id, "number": row.number, "question": row.text}
        stored["recipe"] = row.recipe
    else:
        sample = row.sample
        names = [f"{row.number:09d}_{place}{_suffix(data)}" for place, data in enumerate(row.image_bytes)]
        stored = {
            "id": sample.id,
            "images": [{"bytes": data, "path": name} for data, name in zip(row.image_bytes, names, strict=True)],
            "question": sample.question,
            "answer": sample.answer,
            "answer_normalised": row.answer_normalised,
            "answer_type": row.answer_type,
            "choices": list(sample.choices) if sample.choices else None,
            "source": sample.source,
            "system": sample.system,
            "recipe": row.extra.get("recipe"),
            "number": row.number,
            "image_sha256": list(row.image_sha256),
            "image_phash": [f"{code:016x}" for code in row.image_phash],
        }
        stored |= {name: _value(row.extra.get(name), _type_of(name)) for name in extra}
    if rejected is not None:
        hits = [{"bench": hit.bench, "id": hit.id, "by": hit.by} for hit in judged.hits]
        stored |= {"filter": rejected.filter, "reason": rejected.reason, "hits": json.dumps(hits) if hits else None}
    return stored


class ShardWriter:
    """One parquet file in the making, as a context: in its place when the block ends well, else nothing is left."""

    def __init__(self, path: Path, columns: Any) -> None:
        import pyarrow.parquet as parquet

        self.path, self.rows, self.bytes = path, 0, 0
        self._temporary = path.with_name(path.name + ".tmp")
        self._schema = columns.arrow_schema
        self._sink = self._temporary.open("wb")
        # Zstandard: smaller than the default on text; images are compressed already.
        self._file = parquet.ParquetWriter(self._sink, self._schema, compression="zstd")
        self._group: list[Mapping[str, Any]] = []
        self._group_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()

    def add(self, row: Mapping[str, Any]) -> None:
        """Append one row."""
        size = 200 + sum(len(image["bytes"]) for image in row.get("images") or ())
        self._group.append(row)
        self._group_bytes, self.rows, self.bytes = self._group_bytes + size, self.rows + 1, self.bytes + size
        if len(self._group) >= GROUP_ROWS or self._group_bytes >= GROUP_BYTES:
            self._flush()

    def close(self) -> None:
        """Write what is left, make sure it is on the disk, and put the file in its place."""
        try:
            self._flush()
            self._file.close()
            self._sink.flush()
            os.fsync(self._sink.fileno())
        except OSError:
            self.discard()
            raise
        self._sink.close()
        os.replace(self._temporary, self.path)

    def discard(self) -> None:
        """Drop the file."""
        self._file.is_open = False  # it would write a footer when it is collected, into a closed file
        self._temporary.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # closing writes what is buffered, and the disk may be full
            self._sink.close()

    def _flush(self) -> None:
        import pyarrow

        if self._group:
            self._file.write_table(pyarrow.Table.from_pylist(self._group, schema=self._schema))
        self._group, self._group_bytes = [], 0


def _type_of(name: str) -> str:
    """The type of a recipe's own column, from its name: counts, rates, or text."""
    lower = name.lower().replace("_", "")
    return "int64" if name.startswith("num_") else "float64" if "passrate" in lower else "string"


def _value(value: Any, kind: str) -> Any:
    if value is None or value != value:
        return None
    if kind != "string":
        try:
            return int(value) if kind == "int64" else float(value)
        except (TypeError, ValueError):
            return None
    return value if isinstance(value, str) else json.dumps(value, default=str)


_MAGIC = {
    b"\x89PNG": ".png",
    b"\xff\xd8\xff": ".jpg",
    b"GIF8": ".gif",
    b"BM": ".bmp",
    b"II*\0": ".tif",
    b"MM\0*": ".tif",
}


def _suffix(data: bytes) -> str:
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return ".webp"
    return next((suffix for magic, suffix in _MAGIC.items() if data.startswith(magic)), "")
