"""What teacher server and client agree on: names, numbers and pictures as JSON."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image

SERVER = "reopold_vl.serve_teacher"
API = 1
"""Raised when an old client would misread a new server."""

PNG = b"\x89PNG\r\n\x1a\n"
IMPOSSIBLE = "-inf"  # JSON has no name for the logarithm of 0


def encode_png(image: Image) -> str:
    """Base64 of the picture as PNG, which loses nothing."""
    file = BytesIO()
    image.save(file, format="PNG", compress_level=1)  # time costs more here than bytes
    return base64.b64encode(file.getvalue()).decode("ascii")


def png_size(text: str) -> tuple[int, int]:
    """(width, height) of what `encode_png` made, from its header."""
    header = base64.b64decode(text[:32])
    return int.from_bytes(header[16:20], "big"), int.from_bytes(header[20:24], "big")


def encode_logprobs(values: Sequence[float]) -> list[float | str | None]:
    """Log-probs as JSON: -inf as text, NaN as null so that nobody takes it for a score."""
    return [value if math.isfinite(value) else IMPOSSIBLE if value == -math.inf else None for value in values]


def decode_logprob(value: Any) -> float:
    """The inverse for one value; raises ValueError for anything that is no log-prob."""
    if value == IMPOSSIBLE:
        return -math.inf
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{json.dumps(value)[:40]} is no log-prob")
    return float(value)


def vocabulary_hash(vocabulary: Mapping[str, int]) -> str:
    """sha256 over the tokens with their ids, in the order of the ids."""
    by_id = sorted((index, token) for token, index in vocabulary.items())
    return hashlib.sha256(json.dumps(by_id).encode()).hexdigest()


def first_difference(ours: Mapping[str, int], theirs: Mapping[str, int]) -> tuple[int, str | None, str | None] | None:
    """The lowest id that stands for different tokens, with our token and theirs; None where both agree."""
    if ours == theirs:
        return None
    mine, others = ({index: token for token, index in words.items()} for words in (ours, theirs))
    first = min(index for index in {*mine, *others} if mine.get(index) != others.get(index))
    return first, mine.get(first), others.get(first)


def event(value: Mapping[str, Any]) -> str:
    """One server-sent event."""
    return f"data: {json.dumps(value)}\n\n"
