"""Small streams of drawn pictures, and builds of them."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

from PIL import Image, ImageDraw

from data_recipes.builder import Tools, build
from data_recipes.config import BuildConfig
from data_recipes.recipes.reading import EXTRA, ORIGIN, Origin
from data_recipes.stream import Stream
from data_recipes.types import Recipe, Row, RowError
from reopold_vl.types import VisualSample


def picture(number: int, side: int = 64) -> Image.Image:
    """A picture of coloured blobs that no other number draws."""
    random, image = Random(number), Image.new("RGB", (side, side), (240, 240, 235))
    pen = ImageDraw.Draw(image)
    for _ in range(6):
        x, y, r = random.randrange(side), random.randrange(side), random.randrange(side // 10, side // 3)
        pen.ellipse((x - r, y - r, x + r, y + r), fill=tuple(random.randrange(256) for _ in range(3)))
    return image


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def read(row: Row) -> VisualSample:
    if row.get("broken"):
        raise RowError("this row is broken")
    return VisualSample(
        id=row["id"],
        question=row["question"],
        answer=row.get("answer"),
        images=tuple(row["images"]),
        choices=row.get("choices"),
        source=row.get("source", "self-made"),
    )


def row(number: int, **changes: Any) -> dict[str, Any]:
    """A row that every filter lets pass, unless changed."""
    cells = {
        "id": f"row-{number}",
        "question": f"How many blobs of kind {number} are there?",
        "answer": str(number),
        "images": [encoded(picture(number))],
        "source": ("shapes", "charts", "tables")[number % 3],
    }
    return cells | changes


def stream_of(rows: Sequence[Mapping[str, Any]] | Callable[[int], Mapping[str, Any]], num: int | None = None) -> Stream:
    """A stream of these rows, or of what a function makes of 0 .. num - 1."""
    total = num if num is not None else len(rows)  # type: ignore[arg-type]

    def rows_from(skip: int) -> Iterator[tuple[int, Row]]:
        for number in range(skip, total):
            cells = rows(number) if callable(rows) else rows[number]
            yield number, {**cells, ORIGIN: Origin("made_up"), EXTRA: {"note": cells.get("note")}}

    recipe = Recipe(
        name="made_up",
        title="Made up",
        licence="MIT",
        citation="nobody, 2026",
        sources=(),
        splits=("train",),
        columns=(),
        read=read,
        extra=("note",),
    )
    return Stream(recipe, "nowhere", "abc", "train", total, rows_from)


def built(rows: Any, output_dir: Path, *, num: int | None = None, tools: Tools | None = None, **settings: Any) -> dict:
    """Build rows without looking for benchmarks, and return the manifest."""
    config = BuildConfig(**{"contamination": tools is not None and tools.index is not None, **settings})
    stream = rows if isinstance(rows, Stream) else stream_of(rows, num)
    return build(stream, config, output_dir, lambda work: tools or Tools())


def files(directory: Path) -> dict[str, bytes]:
    """Every file of a built directory with its content."""
    found = sorted(path for path in directory.rglob("*") if path.is_file())
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in found}


def rejected(directory: Path) -> list[dict[str, Any]]:
    """The lines of rejected/rejected.jsonl."""
    lines = (directory / "rejected" / "rejected.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def kept_rows(directory: Path) -> list[dict[str, Any]]:
    """The rows of data/, as pyarrow reads them."""
    import pyarrow.parquet as parquet

    return [row for shard in sorted((directory / "data").glob("*")) for row in parquet.read_table(shard).to_pylist()]
