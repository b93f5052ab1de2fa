"""Draw a grid of words ("red circle", "7", "empty") as an 84x84 RGB image of 3x3 cells.

A cell is 28x28 pixels: patches of 14 merged 2x2, so exactly one visual token of the Qwen-VL family. The background is
the processor's mean colour (normalised pixels near zero), which lets a tiny vision tower learn shapes quickly; lines
between the cells get lighter from row to row and from column to column, a cue for the position.
"""

from __future__ import annotations

import math
from random import Random

import numpy as np
from PIL import Image, ImageDraw

from reopold_vl.zoo.digits import Split, load, samples_by_label

SIDE = 3
CELL = 28  # pixels
BACKGROUND = (128, 128, 128)
COLOURS = {"red": (220, 40, 40), "green": (40, 180, 60), "blue": (50, 80, 230), "yellow": (240, 220, 40)}
SHAPES = ("circle", "square", "triangle", "star")
INK = (250, 250, 250)
LINE_SHADES = (60, 100, 160)  # of the line above each row, and left of each column
OVERSAMPLE = 4

Grid = tuple[str, ...]  # nine words, row by row: "empty", a digit, or a colour and a shape


def render(grid: Grid, split: Split, rng: Random) -> Image.Image:
    """The image of a grid; handwriting comes from this split's samples only. All chance is drawn from `rng`."""
    image = Image.new("RGB", (SIDE * CELL, SIDE * CELL), BACKGROUND)
    pen = ImageDraw.Draw(image)
    for i, shade in enumerate(LINE_SHADES):
        pen.line([(0, i * CELL), (SIDE * CELL, i * CELL)], fill=(shade,) * 3)
        pen.line([(i * CELL, 0), (i * CELL, SIDE * CELL)], fill=(shade,) * 3)
    for position, word in enumerate(grid):
        if word == "empty":
            continue
        mask, ink = _digit_mask(int(word), split, rng) if word.isdigit() else _shape_mask(word, rng)
        corner = ((position % SIDE) * CELL + 2 + rng.randint(0, 2), (position // SIDE) * CELL + 2 + rng.randint(0, 2))
        image.paste(ink, corner, mask)
    return image


def _digit_mask(label: int, split: Split, rng: Random) -> tuple[Image.Image, tuple[int, int, int]]:
    """A handwritten digit as an opacity mask of 24x24 pixels."""
    pixels, _ = load()
    number = rng.choice(samples_by_label(split)[label])
    opacity = np.minimum(pixels[number].astype(np.uint16) * 16, 255).astype(np.uint8)
    return Image.fromarray(opacity).resize((24, 24), Image.Resampling.BILINEAR), INK


def _shape_mask(word: str, rng: Random) -> tuple[Image.Image, tuple[int, int, int]]:
    """A filled shape of random size and tilt as an opacity mask of 24x24 pixels, drawn larger and scaled down."""
    colour, shape = word.split()
    side = 24 * OVERSAMPLE
    mask = Image.new("L", (side, side), 0)
    radius, tilt = side / 2 * rng.uniform(0.75, 0.98), math.radians(rng.uniform(-12, 12))
    ImageDraw.Draw(mask).polygon(_outline(shape, radius, tilt, side / 2), fill=255)
    return mask.reduce(OVERSAMPLE), COLOURS[colour]


def _outline(shape: str, radius: float, tilt: float, centre: float) -> list[tuple[float, float]]:
    """Corner points of a shape around its centre, in pixels of the mask."""
    corners = {"circle": 24, "square": 4, "triangle": 3, "star": 10}[shape]
    start = tilt + (math.pi / 4 if shape == "square" else -math.pi / 2)
    points = []
    for i in range(corners):
        angle = start + 2 * math.pi * i / corners
        reach = radius * (0.42 if shape == "star" and i % 2 else 0.88 if shape == "circle" else 1.0)
        points.append((centre + reach * math.cos(angle), centre + reach * math.sin(angle)))
    return points
