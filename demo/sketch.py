"""Digits drawn by hand, put into a grid of the embedded benchmark as its own handwriting is: normalised to 8x8."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any

from demo.errors import DemoError

if TYPE_CHECKING:
    from PIL.Image import Image

Stroke = tuple[tuple[float, float], ...]  # points on the whole grid, 0 to 1 in both directions

MAX_POINTS = 20_000
_SIDE = 32  # pixels of the bitmap that is counted down to 8x8, as the data set's makers did
_PEN = 6  # pixels of 32: about the mean stroke of the data set
_WIDEST = 27  # pixels of 32: a digit fills the height, and at most this much of the width


@dataclass(frozen=True)
class Pad:
    """A grid to draw into: a held-out problem whose asked line is left empty, and the question about it."""

    words: tuple[str, ...]
    question: str
    seed: int

    @property
    def image(self) -> Image:
        from reopold_vl.zoo.render import render

        return render(self.words, "test", Random(self.seed))


def new_pad(seed: int) -> Pad:
    """A sum problem of the test split without the three digits that are to be added."""
    from reopold_vl.zoo.task import problem

    drawn = problem("test", seed, kind="sum").question
    axis, number = drawn.text.rstrip("?").split()[-2:]
    line = {3 * (int(number) - 1) + step if axis == "row" else 3 * step + int(number) - 1 for step in range(3)}
    words = tuple("empty" if place in line else word for place, word in enumerate(drawn.grid))
    return Pad(words, drawn.text, seed)


def parse_strokes(text: Any) -> tuple[Stroke, ...]:
    """Strokes from JSON, a list of lists of [x, y]; raises DemoError for anything else and for too much of it."""
    try:
        found = json.loads(text or "[]") if isinstance(text, str) else text
        strokes = tuple(tuple((float(x), float(y)) for x, y in stroke) for stroke in found)
    except (ValueError, TypeError, RecursionError):
        raise DemoError("drawing: allowed is a list of strokes, each a list of [x, y]") from None
    points = [value for stroke in strokes for point in stroke for value in point]
    if len(points) > 2 * MAX_POINTS or not all(math.isfinite(value) and 0 <= value <= 1 for value in points):
        raise DemoError(f"drawing: allowed are up to {MAX_POINTS:,} points, between 0 and 1")
    return tuple(stroke for stroke in strokes if stroke)


def draw_on(pad: Pad, strokes: Sequence[Stroke]) -> Image:
    """The pad's picture with the drawn digits in the cells that their strokes' middles lie in."""
    from PIL import Image as Images

    from reopold_vl.zoo.render import CELL, INK, SIDE, render

    cells: dict[int, list[Stroke]] = {}
    for stroke in strokes:
        column, row = (min(int(SIDE * (min(axis) + max(axis)) / 2), SIDE - 1) for axis in zip(*stroke, strict=True))
        cells.setdefault(SIDE * row + column, []).append(stroke)
    image = pad.image
    bare = render(("empty",) * SIDE**2, "test", Random(0))
    for place, drawn in cells.items():
        left, top = CELL * (place % SIDE), CELL * (place // SIDE)
        image.paste(bare.crop((left, top, left + CELL, top + CELL)), (left, top))
        mask = Images.fromarray(digit_opacity(drawn)).resize((24, 24), Images.Resampling.BILINEAR)
        image.paste(INK, (left + 3, top + 3), mask)
    return image


def digit_opacity(strokes: Sequence[Stroke]) -> Any:
    """One digit as 8x8 opacities (0 to 255): scaled to fill the height, drawn with the usual pen, counted down.

    The preprocessing of E. Alpaydin and C. Kaynak's data set (UCI, 1998): a normalised bitmap of 32x32, of which every
    4x4 block gives one number, 0 to 16.
    """
    import numpy as np
    from PIL import Image as Images
    from PIL import ImageDraw

    xs, ys = zip(*(point for stroke in strokes for point in stroke), strict=True)
    width, height = max(xs) - min(xs), max(ys) - min(ys)
    scale = min((_SIDE - _PEN) / max(height, 1e-3), (_WIDEST - _PEN) / max(width, 1e-3), (_SIDE - _PEN) / 0.02)
    middle_x, middle_y = (max(xs) + min(xs)) / 2, (max(ys) + min(ys)) / 2
    canvas = Images.new("L", (_SIDE, _SIDE), 0)
    pen = ImageDraw.Draw(canvas)
    for stroke in strokes:
        points = [(_SIDE / 2 + (x - middle_x) * scale, _SIDE / 2 + (y - middle_y) * scale) for x, y in stroke]
        pen.line(points, fill=1, width=_PEN)
        for x, y in points:  # round ends and corners
            pen.ellipse((x - _PEN / 2, y - _PEN / 2, x + _PEN / 2, y + _PEN / 2), fill=1)
    counts = np.asarray(canvas).reshape(8, 4, 8, 4).sum((1, 3))
    return np.minimum(counts * 16, 255).astype(np.uint8)
