"""Samples with less to see: what a model still says of the same tokens tells how much of an answer the picture gave."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from PIL.Image import Image, Resampling

from reopold_vl.images import ImageError, image_reference, load_image
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


def with_other_pictures(samples: Sequence[VisualSample]) -> list[VisualSample | None]:
    """Each sample with the pictures of another: of the next one of its `source`, the first after the last.

    Passed over are samples with the very same pictures or with another number of them. Where no sample of the source
    is left the next one of any source is taken; None where there is none either, or no picture to swap.
    """
    shown = [tuple(map(_content, sample.images)) for sample in samples]
    lots: dict[tuple[str | None, int], list[int]] = {}
    for place, sample in enumerate(samples):
        for source in (sample.source, None):
            lots.setdefault((source, len(sample.images)), []).append(place)
    spots = {key: {place: spot for spot, place in enumerate(lot)} for key, lot in lots.items()}

    def other(place: int) -> int | None:
        sample = samples[place]
        for key in ((sample.source, len(sample.images)), (None, len(sample.images))):
            lot, start = lots[key], spots[key][place] + 1
            found = next((one for one in lot[start:] + lot[:start] if shown[one] != shown[place]), None)
            if found is not None:
                return found
        return None

    partners = [other(place) for place in range(len(samples))]
    return [
        None if partner is None else replace(sample, images=samples[partner].images)
        for sample, partner in zip(samples, partners, strict=True)
    ]


def _content(source: Any) -> bytes:
    """What tells one picture from another without decoding either; of a picture that cannot be read, its name."""
    try:
        reference = image_reference(source)
        if isinstance(reference, Image):
            data = repr(reference.size).encode() + reference.tobytes()
        else:
            data = reference.read_bytes() if isinstance(reference, Path) else reference
    except (ImageError, OSError):
        data = repr(source).encode()
    return hashlib.sha256(data).digest()
