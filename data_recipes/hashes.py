"""Fingerprints of pictures and questions, so that the same thing is recognised in another dress.

The perceptual hash is the well-known DCT hash (Zauner, "Implementation and benchmarking of perceptual image hash
functions", 2010): 32x32 grey, the 8x8 lowest frequencies, one bit each for above or below their median. It finds
candidates; look-alike pictures (diagrams, renders of one program) share it too, so a candidate counts only when the
colour thumbnails agree everywhere (`thumbnail_gap`).
"""

from __future__ import annotations

import hashlib
import math
import re
import unicodedata
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from reopold_vl.types import IMAGE_MARKER

if TYPE_CHECKING:
    from PIL.Image import Image

THUMBNAIL_SIDE = 24
THUMBNAIL_BYTES = THUMBNAIL_SIDE * THUMBNAIL_SIDE * 3

_SIGNS = str.maketrans(
    {
        "\u2220": " angle ",
        "\u25b3": " triangle ",
        "\u2299": " odot ",
        "\u221a": " sqrt ",
        "\u03c0": " pi ",
        "\u00d7": " times ",
        "\u2212": "-",
        "\u2013": "-",
        "\u2264": "<=",
        "\u2265": ">=",
    }
)
_DRESS = re.compile(
    r"\\(?:left|right|displaystyle|text|textbf|mathrm|mathbf|mbox|circ|degree)(?![a-z])|\\[,;:! ]|degrees?\b|\u00b0"
)
_LEAD = re.compile(r"^\s*hint:[^\n]*\n\s*question:", re.IGNORECASE)
_TAIL = re.compile(r"\n\s*(?:choices|options)\s*:.*", re.IGNORECASE | re.DOTALL)
_MARKER = re.compile(r"<image[ _]?\d*>", re.IGNORECASE)
_KEPT = re.compile(r"[^\W_]|[+=<>/*^%]|\.(?=\d)|-(?=\.?\d)")


def pixel_hash(image: Image) -> str:
    """sha256 of the decoded RGB pixels and the size: the same picture in another lossless file has the same."""
    digest = hashlib.sha256(f"{image.width}x{image.height}/".encode())
    digest.update(image.tobytes())
    return digest.hexdigest()


def perceptual_hash(image: Image) -> int:
    """64-bit DCT hash of an RGB picture."""
    from PIL import Image as pillow

    grey = np.asarray(image.convert("L").resize((32, 32), pillow.Resampling.BOX), dtype=np.float64)
    cosines = _cosines()
    low = (cosines @ grey @ cosines.T).ravel()
    bits = low[1:] > np.median(low[1:])  # without the first: it is the mean brightness
    return int.from_bytes(np.packbits(np.append(bits, low[0] > 32 * 128)).tobytes(), "big")


@lru_cache
def _cosines() -> np.ndarray:
    """The 8 lowest rows of the orthonormal 32-point DCT-II."""
    frequency, place = np.arange(8)[:, None], np.arange(32)[None, :]
    rows = np.cos(math.pi * (2 * place + 1) * frequency / 64) * math.sqrt(2 / 32)
    rows[0] /= math.sqrt(2)
    return rows


def thumbnail(image: Image) -> bytes:
    """The picture as 24x24 RGB pixels, one after the other."""
    from PIL import Image as pillow

    return image.resize((THUMBNAIL_SIDE, THUMBNAIL_SIDE), pillow.Resampling.BOX).tobytes()


def thumbnail_gap(one: bytes, others: bytes) -> np.ndarray:
    """How far a thumbnail is from each of `others` (several joined), in grey levels of 255.

    The mean absolute difference is taken in each of 8x8 blocks, and the worst block counts: a changed figure or
    shape weighs as much in a large picture as in a small one, while JPEG noise is spread thinly.
    """
    first = np.frombuffer(one, np.uint8).astype(np.int16)
    rest = np.frombuffer(others, np.uint8).reshape(-1, THUMBNAIL_BYTES).astype(np.int16)
    side = THUMBNAIL_SIDE // 8
    return np.abs(rest - first).reshape(-1, 8, side, 8, side, 3).mean(axis=(2, 4, 5)).reshape(len(rest), 64).max(axis=1)


def is_plain(one: bytes) -> bool:
    """Whether a thumbnail is of one colour all over: such pictures prove nothing by being alike."""
    pixels = np.frombuffer(one, np.uint8).reshape(-1, 3)
    return bool((pixels.max(axis=0).astype(int) - pixels.min(axis=0) < 8).all())


def question_key(question: str) -> str:
    """The question with everything gone that a copy may change: case, spaces, punctuation, markers, LaTeX dress.

    A leading "Hint: ... Question:" and options behind a "Choices:" line go too, because some benchmarks store them
    inside the question. Letters, digits and the signs of arithmetic stay.
    """
    text = _TAIL.sub("", _LEAD.sub("", question)).replace(IMAGE_MARKER, " ")
    text = unicodedata.normalize("NFKC", _MARKER.sub(" ", text)).translate(_SIGNS).casefold()
    return "".join(_KEPT.findall("".join(_DRESS.sub(" ", text).split())))


def key_number(*parts: str) -> int:
    """A 63-bit number that stands for these texts (63: it fits every signed integer column)."""
    digest = hashlib.blake2b("\x1f".join(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
