"""A picture of random rows with question and answer, to look at before spending GPU-hours."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFont import FreeTypeFont

COLUMNS, ROWS = 4, 3
WIDTH, PICTURE, TEXT, MARGIN = 360, 260, 190, 14  # of a tile, in pixels
INK, GREY, BLUE, LINE = (20, 24, 31), (107, 114, 128), (0, 90, 170), (214, 218, 224)


def draw_sheet(shards: Sequence[Path], path: Path, *, seed: int, title: str) -> None:
    """Draw up to 12 random rows of parquet shards into a PNG."""
    rows = random_rows(shards, COLUMNS * ROWS, seed)
    draw_rows(rows, path, title)


def random_rows(shards: Sequence[Path], count: int, seed: int) -> list[dict[str, Any]]:
    """Rows drawn without replacement, in their order; only the row groups that hold one are read."""
    import pyarrow.parquet as parquet

    totals = list(itertools.accumulate(parquet.read_metadata(shard).num_rows for shard in shards))
    total = totals[-1] if totals else 0
    chosen = sorted(Random(f"contact sheet/{seed}").sample(range(total), min(count, total)))
    rows = []
    for number in chosen:
        place = bisect.bisect_right(totals, number)
        rows.append(_row(shards[place], number - (totals[place - 1] if place else 0)))
    return rows


def _row(shard: Path, number: int) -> dict[str, Any]:
    import pyarrow.parquet as parquet

    with parquet.ParquetFile(shard) as file:
        for group in range(file.num_row_groups):
            size = file.metadata.row_group(group).num_rows
            if number < size:
                return file.read_row_group(group).slice(number, 1).to_pylist()[0]
            number -= size
    raise AssertionError("the metadata counts rows that no row group holds")


def draw_rows(rows: Sequence[Mapping[str, Any]], path: Path, title: str) -> None:
    """Draw rows (images, question, answer, choices, source) as tiles, four in a line."""
    from PIL import Image, ImageDraw

    lines = max(1, -(-len(rows) // COLUMNS))
    head, tile = 52, PICTURE + TEXT + MARGIN
    sheet = Image.new("RGB", (COLUMNS * (WIDTH + MARGIN) + MARGIN, head + lines * (tile + MARGIN)), "white")
    pen = ImageDraw.Draw(sheet)
    pen.text((MARGIN, 16), f"{title}: {len(rows)} random rows", fill=INK, font=_font(20))
    for number, row in enumerate(rows):
        left = MARGIN + (number % COLUMNS) * (WIDTH + MARGIN)
        top = head + (number // COLUMNS) * (tile + MARGIN)
        pen.rectangle((left, top, left + WIDTH, top + tile), outline=LINE)
        _picture(sheet, row, left, top)
        _words(pen, row, left + 10, top + PICTURE + 8)
    sheet.save(path, "PNG", optimize=True)


def _picture(sheet: Image, row: Mapping[str, Any], left: int, top: int) -> None:
    from PIL import Image as pillow

    from reopold_vl.images import load_image

    held = row["images"] or []
    shown = [load_image(image) for image in held[:4]]
    if not shown:
        return
    room = (WIDTH - 20) // len(shown)
    for place, image in enumerate(shown):
        scale = min((room - 6) / image.width, (PICTURE - 20) / image.height, 4)
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        small = image.resize(size, pillow.Resampling.LANCZOS if scale < 1 else pillow.Resampling.NEAREST)
        sheet.paste(small, (left + 10 + place * room + (room - size[0]) // 2, top + (PICTURE - size[1]) // 2))


def _words(pen: Any, row: Mapping[str, Any], left: int, top: int) -> None:
    """Question, choices, answer and where the row is from, in as many lines as fit."""
    font, small = _font(14), _font(12)
    bottom = top + TEXT - 8
    answer = _wrap(f"Answer: {row['answer']}", font, WIDTH - 20)[:3]
    choices = " | ".join(f"{chr(65 + place)}. {choice}" for place, choice in enumerate(row["choices"] or ()))
    asked = _wrap(row["question"], font, WIDTH - 20)
    asked += _wrap(choices, font, WIDTH - 20) if choices else []
    room = (bottom - top - 18 * len(answer) - 18) // 18
    asked = asked if len(asked) <= room else [*asked[: room - 1], asked[room - 1] + " ..."]
    for line in asked:
        pen.text((left, top), line, fill=INK, font=font)
        top += 18
    for line in answer:
        pen.text((left, top + 2), line, fill=BLUE, font=font)
        top += 18
    place = "  |  ".join(filter(None, (row["source"], row["id"], row["answer_type"])))
    pen.text((left, bottom - 12), _wrap(place, small, WIDTH - 20)[0], fill=GREY, font=small)


def _wrap(text: str, font: FreeTypeFont, width: int) -> list[str]:
    """Lines no wider than `width` pixels; words longer than a line are broken."""
    lines, line = [], ""
    for word in " ".join(str(text).split())[:1500].split(" "):
        wider = f"{line} {word}".strip()
        if font.getlength(wider) <= width:
            line = wider
            continue
        if line:
            lines.append(line)
        while font.getlength(word) > width:
            fits = next(end for end in range(len(word), 0, -1) if font.getlength(word[:end]) <= width or end == 1)
            lines.append(word[:fits])
            word = word[fits:]
        line = word
    return [*lines, line]


def _font(size: int) -> FreeTypeFont:
    """DejaVu, which comes with matplotlib: it has the signs of mathematics and most alphabets."""
    import matplotlib
    from PIL import ImageFont

    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size)
