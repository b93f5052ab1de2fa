"""Samples with less to see: what a model still says of the same tokens tells how much of an answer the picture gave."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from PIL.Image import Image, Resampling

from reopold_vl.images import load_image
from reopold_vl.types import IMAGE_MARKER, VisualSample

Blind = Literal["pixelated", "removed"]
PIXELATED_TO = 0.1  # of each side, as VA-OPD has it (arXiv 2605.21924)


def degraded(sample: VisualSample, kind: Blind, *, allow_url: bool = False) -> VisualSample:
    """The sample with its pictures pixelated (same size, so the same number of tokens) or without them.

    Raises ImageError for a picture that cannot be loaded.
    """
    if kind == "removed":
        return without_images(sample)
    return replace(sample, images=tuple(pixelated(load_image(image, allow_url=allow_url)) for image in sample.images))


def pixelated(image: Image, share: float = PIXELATED_TO) -> Image:
    """The picture as `share` of its pixels a side would show it, at least one, in its own size again."""
    width, height = (max(1, round(side * share)) for side in image.size)
    return image.resize((width, height), Resampling.BOX).resize(image.size, Resampling.NEAREST)


def without_images(sample: VisualSample) -> VisualSample:
    """The sample's text alone."""
    return replace(sample, images=(), question=sample.question.replace(IMAGE_MARKER, " "))
