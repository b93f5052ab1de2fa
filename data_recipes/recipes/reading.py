"""What the readers of all recipes share: cells -> text, choices and image references; markers; where a row is from."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_recipes.types import Row, RowError
from reopold_vl.types import IMAGE_MARKER, VisualSample

# The keys under which a stream tells readers where a row is from, and the builder what to keep beside the sample.
ORIGIN, EXTRA = "_origin", "_extra"

# <image>, <image 1>, <image1>, <image_1>, <img>, <img/>: the forms in which public data sets mark an image's place.
_MARKER = re.compile(r"<(?:image|img)(?:[ _-]?(\d{1,2}))?\s?/?>", re.IGNORECASE)


@dataclass(frozen=True)
class Origin:
    """Where a row is from: recipe, place ("train/12"), the folder its relative paths start at, zip files with images.

    `prefix` goes before the id (mixtures). `error` says why there is no sample (the row could not even be read from
    its file, a teacher had no right response to it), and `filter` under which name that is counted.
    """

    recipe: str = ""
    place: str = ""
    folder: Path | None = None
    archives: tuple[Path, ...] = ()
    prefix: str = ""
    error: str = ""
    filter: str = "unreadable"

    def check(self) -> None:
        """Raise RowError for a row that is known to be none."""
        if self.error:
            raise RowError(self.error, self.filter)


def origin_of(row: Row) -> Origin:
    """Where a row is from; nothing known of rows that no stream has touched."""
    return row.get(ORIGIN) or Origin()


def text(value: Any, name: str) -> str:
    """Verbatim text of a cell: numbers as written, "" for a missing value, the item of a list of one.

    Raises RowError for anything that is not one text or number.
    """
    if isinstance(value, list | tuple) and len(value) == 1:
        return text(value[0], name)
    if isinstance(value, list | tuple | dict | bytes):
        raise RowError(f"{name} must be one text or number, not a {type(value).__name__} of {len(value)}")
    return "" if value is None or value != value else str(value)


def cell(row: Row, *names: str) -> Any:
    """The first of these columns that holds something; None if none does. Raises RowError for an unreadable row."""
    origin_of(row).check()
    return next((row[name] for name in names if not _is_empty(row.get(name))), None)


def texts(value: Any, name: str) -> tuple[str, ...] | None:
    """A list of texts (choices), also written as a JSON or Python list in one cell; None for an empty one."""
    if isinstance(value, str):
        value = _list_in_text(value, name)
    if _is_empty(value):
        return None
    if not isinstance(value, list | tuple):
        raise RowError(f"{name} must be a list of texts, not {value!r:.60}")
    return tuple(text(item, name) for item in value)


def make_sample(
    row: Row,
    *,
    question: Any,
    answer: Any,
    images: Any,
    choices: Any = None,
    id: Any = None,
    source: Any = None,
    system: str | None = None,
) -> VisualSample:
    """A sample of these cells; the answer stays verbatim (None where there is none), images stay references.

    Markers of every form become `<image>` (see `place_images`). Raises RowError for a row without question or whose
    markers and images differ in number; rows without image or answer are the builder's filters to judge.
    """
    origin = origin_of(row)
    worded, references = place_images(text(question, "question"), image_references(images, origin))
    if not worded.replace(IMAGE_MARKER, "").strip():
        raise RowError("no question")
    options = texts(choices, "choices")
    if options and any(_MARKER.search(option) for option in options):
        raise RowError("choices that are images are not supported")
    own = text(id, "id").strip() or origin.place
    return VisualSample(
        id=f"{origin.prefix}{own}",
        question=worded,
        answer=text(answer, "answer") if not _is_empty(answer) else None,
        images=references,
        choices=options,
        source=text(source, "source") or origin.recipe,
        system=system or None,
    )


def place_images(question: str, images: Sequence[Any]) -> tuple[str, tuple[Any, ...]]:
    """The question with every marker as `<image>`, and the images in the order in which their markers stand.

    `<image 2>` names the second image: the first mention becomes the marker, further ones plain words ("image 2").
    Without any marker nothing changes (images then come first). Raises RowError where markers and images do not match.
    """
    numbers = [match[1] for match in _MARKER.finditer(question)]
    if not numbers:
        return question, tuple(images)
    if None in numbers:
        if len(numbers) != len(images):
            raise RowError(f"{len(numbers)} {IMAGE_MARKER} markers for {len(images)} images")
        return _MARKER.sub(IMAGE_MARKER, question), tuple(images)
    order = list(dict.fromkeys(map(int, numbers)))
    if sorted(order) != list(range(1, len(images) + 1)):
        raise RowError(f"markers name the images {sorted(order)}, but there are {len(images)} images")
    waiting = set(order)

    def once(match: re.Match[str]) -> str:
        number = int(match[1])
        if number not in waiting:
            return f"image {number}"
        waiting.remove(number)
        return IMAGE_MARKER

    return _MARKER.sub(once, question), tuple(images[number - 1] for number in order)


def image_references(value: Any, origin: Origin) -> tuple[Any, ...]:
    """What an image column holds -> self-contained references: PIL images, paths, encoded bytes.

    The cell may be one image or a list; each a path (relative to the row's file), bytes, `{"bytes", "path"}`, a data
    URI, a PIL image or None; a CSV cell may hold a JSON list of paths. Raises RowError for anything else.
    """
    from data_recipes.archives import find_image
    from reopold_vl.images import ImageError, image_reference

    if isinstance(value, str) and value.lstrip().startswith("["):
        value = _list_in_text(value, "images")
    held = list(value) if isinstance(value, list | tuple) else [value]
    references = []
    for item in held:
        if _is_empty(item):
            continue
        if isinstance(item, str | Path) and not str(item).startswith(("data:", "http:", "https:", "file:")):
            references.append(find_image(Path(item), origin.folder, origin.archives))
            continue
        try:
            references.append(image_reference(item, base_dir=origin.folder))
        except ValueError as error:  # ImageError, or a file:// URL that is none
            raise RowError(f"image: {error}" if not isinstance(error, ImageError) else str(error)) from None
    return tuple(references)


def _list_in_text(value: str, name: str) -> Any:
    if not value.strip():
        return None
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        try:
            return ast.literal_eval(value.strip())
        except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
            raise RowError(f"{name} must be a list of texts, not {value!r:.60}") from None


def _is_empty(value: Any) -> bool:
    """Whether a cell holds nothing: None, NaN, "", [] or an image struct without bytes and path."""
    if isinstance(value, dict) and value.keys() <= {"bytes", "path"}:
        return not (value.get("bytes") or value.get("path"))
    if isinstance(value, float):
        return value != value
    return value is None or (isinstance(value, str | bytes | list | tuple | dict) and not value)
