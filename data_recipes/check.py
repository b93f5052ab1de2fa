"""A row -> a Checked sample: read, images decoded and hashed, answer normalised. What worker processes do."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from data_recipes.recipes.reading import EXTRA, origin_of
from data_recipes.types import Checked, Rejected, Row, RowError
from reopold_vl.answers import choice_index, extract_answer, normalise
from reopold_vl.types import IMAGE_MARKER, VisualSample

_NUMBER = re.compile(r"[+-]?\d[\d,]*(\.\d+)?|[+-]?(\.\d+)")
_UNIT = re.compile(r"\s*[a-z%]{0,12}[23]?")
_SIGNS = re.compile(r"[\\={}^_$<>+*/|]")
_WORD = re.compile(r"[^\W\d_]{2}")


@dataclass(frozen=True)
class Unreadable:
    """A row that is no sample, or whose images cannot be decoded; `text` is what the user may recognise it by."""

    rejected: Rejected
    text: str = ""
    recipe: str = ""

    @property
    def number(self) -> int:
        return self.rejected.number


def check_block(
    read: Callable[[Row], VisualSample], rows: Sequence[tuple[int, Row | Unreadable]]
) -> list[Checked | Unreadable]:
    """Check numbered rows, in their order. No row raises: one that cannot be used comes back as Unreadable."""
    return [check_row(read, number, row) for number, row in rows]


def check_row(read: Callable[[Row], VisualSample], number: int, row: Row | Unreadable) -> Checked | Unreadable:
    """Check one row; see `check_block`. One that was found unreadable before (out of a built directory) stays so."""
    from reopold_vl.images import ImageError

    if isinstance(row, Unreadable):
        return row
    recipe, identity, text = origin_of(row).recipe, str(row.get("id", "")), ""
    try:
        sample = read(row)
        identity, text = sample.id, sample.question
        if not sample.question.replace(IMAGE_MARKER, "").strip():
            raise RowError("no question")
        if (markers := sample.question.count(IMAGE_MARKER)) not in (0, len(sample.images)):
            raise RowError(f"{markers} {IMAGE_MARKER} markers for {len(sample.images)} images")
        return _checked(number, sample, {**row.get(EXTRA, {}), "recipe": recipe})
    except (RowError, ImageError) as error:
        reason = " ".join(str(error).split())
        name = error.filter if isinstance(error, RowError) else "unreadable"
        return Unreadable(Rejected(number, name, reason, identity), text or _shown(row), recipe)


def _checked(number: int, sample: VisualSample, extra: dict[str, Any]) -> Checked:
    from data_recipes import hashes
    from reopold_vl.images import load_image

    held, pixels, codes, sizes, thumbnails = [], [], [], [], []
    for source in sample.images:
        encoded = encode(source)
        image = load_image(encoded)
        held.append(encoded)
        pixels.append(hashes.pixel_hash(image))
        codes.append(hashes.perceptual_hash(image))
        sizes.append(image.size)
        thumbnails.append(hashes.thumbnail(image))
    answer = sample.answer or ""
    stated = extract_answer(answer) or answer
    return Checked(
        number=number,
        # The images are in `image_bytes` now; a second copy would travel between the processes.
        sample=VisualSample(
            sample.id, sample.question, sample.answer, (), sample.choices, sample.source, sample.system
        ),
        image_bytes=tuple(held),
        image_sha256=tuple(pixels),
        image_phash=tuple(codes),
        sizes=tuple(sizes),
        question_key=hashes.question_key(sample.question),
        answer_normalised=normalise(stated),
        answer_type=answer_type(stated, sample.choices),
        extra={"thumbnails": tuple(thumbnails), **extra},
    )


def encode(source: Any) -> bytes:
    """The encoded image that `source` holds, byte for byte; pictures that are no file yet become PNG.

    Raises RowError for a file that is not there, ImageError for one that cannot be read.
    """
    from pathlib import Path

    from reopold_vl.images import ImageError, image_reference, load_image

    reference = image_reference(source)
    if isinstance(reference, bytes):
        return reference
    if isinstance(reference, Path):
        try:
            return reference.read_bytes()
        except FileNotFoundError as error:
            raise RowError(f"image {str(reference)!r}: no such file", "image_not_found") from error
        except (OSError, ValueError) as error:  # ValueError: a path that no file system has
            reason = error.strerror if isinstance(error, OSError) else error
            raise ImageError(f"image {str(reference)!r:.120}: {reason}") from error
    buffer = io.BytesIO()
    load_image(reference).save(buffer, "PNG")
    return buffer.getvalue()


def answer_type(answer: str, choices: Sequence[str] | None = None) -> str:
    """What kind of answer it is: "choice", "integer", "decimal", "yes/no", "text", "expression"; "" for none."""
    if not (plain := normalise(answer)):
        return ""
    if choices and choice_index(answer, choices) is not None:
        return "choice"
    if re.fullmatch(r"\(?[A-J]\)?\.?", answer.strip()):
        return "choice"
    if plain in ("yes", "no", "true", "false"):
        return "yes/no"
    number = _NUMBER.match(plain)
    if number and _UNIT.fullmatch(plain[number.end() :]):
        return "decimal" if "." in number[0] else "integer"
    return "text" if _WORD.search(plain) and not _SIGNS.search(plain) else "expression"


def _shown(row: Row) -> str:
    """The texts of a row that could not be read, shortened."""
    cells = {name: value for name, value in row.items() if isinstance(value, str | int | float)}
    return "; ".join(f"{name}: {str(value)[:200]}" for name, value in cells.items())[:1000]
