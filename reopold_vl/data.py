"""The user's own rows -> VisualSample: jsonl, json and parquet; every row that cannot be used is counted and named."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reopold_vl.images import ImageError, image_reference, image_size
from reopold_vl.rows import DataError, find_files, read_json, read_parquet
from reopold_vl.types import IMAGE_MARKER, VisualSample

# In the order of preference; the first one that a file has is used for all of its rows. `decoded_image` comes first
# because the benchmarks that have it keep no more than a name in `image`.
COLUMNS = {
    "image": ("decoded_image", "images", "image"),
    "question": ("question", "problem", "query", "prompt"),
    "answer": ("answer", "solution", "ground_truth"),
    "choices": ("choices", "options"),
    "source": ("source", "type"),
    "id": ("id",),
    "system": ("system",),
}


@dataclass(frozen=True)
class Skip:
    """A row that is left out. `row` counts a file's rows from 0; `file` is its name under the data directory."""

    row: int
    reason: str
    file: str = ""

    def __str__(self) -> str:
        return f"{self.file} row {self.row}: {self.reason}".lstrip()


@dataclass(frozen=True)
class Loaded:
    """The usable rows of a data set, in their order, and the skipped ones with the reason of each."""

    samples: tuple[VisualSample, ...]
    skipped: tuple[Skip, ...] = ()

    def summary(self, examples: int = 3) -> str:
        """One line for the log: rows read, rows skipped and the first few reasons."""
        listed = "; ".join(map(str, self.skipped[:examples])) + ("; ..." if len(self.skipped) > examples else "")
        read = len(self.samples) + len(self.skipped)
        return f"{read:,} rows, {len(self.skipped):,} skipped" + (f" ({listed})" if listed else "")


def load_samples(
    path: str | Path,
    *,
    min_rows: int = 1,
    limit: int | None = None,
    allow_url: bool = False,
    require_image: bool = True,
) -> Loaded:
    """Read a .parquet, .jsonl or .json file, or a directory with parquet or jsonl files (also as `data/train-*`).

    Columns: `image` or `images` (paths relative to the file, data URIs, `{"bytes", "path"}`, lists of them),
    `question` (or `problem`, `query`, TRL's `prompt` as text or messages), `answer` (or `solution`, `ground_truth`),
    and optionally `choices` (or `options`), `id`, `source` (or `type`), `system` (a system turn inside `prompt` goes
    before it). Images are not decoded: samples hold paths or encoded bytes, and only headers are looked at; with
    `allow_url` URLs are fetched here, once. Rows without image (unless `require_image=False`), question or answer are
    skipped and listed. Reading stops at `limit` samples.

    Raises DataError for a missing path or column, an unreadable file, or fewer than `min_rows` usable rows.
    """
    samples, skipped, path = list[VisualSample](), list[Skip](), Path(path)
    for outcome in _outcomes(path, allow_url, require_image):
        if isinstance(outcome, Skip):
            skipped.append(outcome)
        else:
            samples.append(outcome)
        if len(samples) == limit:
            break
    loaded = Loaded(tuple(samples), tuple(skipped))
    if len(samples) < (needed := max(1, min_rows)):
        advice = f"at least {needed} must be left: add rows or lower --prompts-per-step"
        raise DataError(f"{path}: {len(samples)} usable rows ({loaded.summary()}); {advice}")
    return loaded


def _outcomes(path: Path, allow_url: bool, require_image: bool) -> Iterator[VisualSample | Skip]:
    seen: set[str] = set()
    for file in find_files(path):
        name = "" if file == path else file.relative_to(path).with_suffix("").as_posix()
        found, rows = read_parquet(file) if file.suffix == ".parquet" else read_json(file)
        columns = {kind: next((n for n in names if n in found), None) for kind, names in COLUMNS.items()}
        for kind in ("image", "question", "answer"):
            if found and not columns[kind] and (require_image or kind != "image"):
                names = " or ".join(COLUMNS[kind])
                raise DataError(f"{file}: no column holds the {kind}, {names}; found: {', '.join(found)}")
        for number, row in enumerate(rows):
            try:
                if not isinstance(row, dict):
                    raise row if isinstance(row, DataError) else DataError(f"a row must be an object, not {row!r:.60}")
                cells = {kind: row.get(column) for kind, column in columns.items()}
                own, place = _text(cells["id"], "id"), f"{name or file.stem}/{number}"
                # Reports look rows up by id: one that comes twice gets its place added.
                cells["id"] = own if own and own not in seen else f"{own} {place}".strip()
                seen.add(own)
                cells["source"] = _text(cells["source"], "source") or path.stem
                yield _sample(cells, file.parent, allow_url, require_image)
            except (DataError, ImageError) as error:
                yield Skip(number, str(error), name)


def _sample(cells: dict[str, Any], base_dir: Path, allow_url: bool, require_image: bool) -> VisualSample:
    held = cells["image"] if isinstance(cells["image"], list) else [cells["image"]]
    if not any((cell.get("bytes") or cell.get("path")) if isinstance(cell, dict) else cell for cell in held):
        held = []
    images = tuple(image_reference(cell, allow_url=allow_url, base_dir=base_dir) for cell in held)
    question, turn = _question(cells["question"])
    system = turn or _text(cells["system"], "system")
    answer = _text(cells["answer"], "answer")
    asked = question.replace(IMAGE_MARKER, "").strip()
    for kind, given in (("image", images or not require_image), ("question", asked), ("answer", answer.strip())):
        if not given:
            raise DataError(f"no {kind}")
    if (markers := question.count(IMAGE_MARKER)) not in (0, len(images)):
        raise DataError(f"{markers} {IMAGE_MARKER} markers for {len(images)} images")
    if not isinstance(choices := cells["choices"] or [], list):
        raise DataError(f"choices must be a list of texts, not {choices!r:.60}")
    choices = tuple(_text(choice, "choice") for choice in choices) or None
    for image in images:
        image_size(image)  # the header alone: a damaged file is found now, not in the middle of a run
    return VisualSample(cells["id"], question, answer, images, choices, cells["source"], system or None)


def _text(value: Any, name: str) -> str:
    """Verbatim text of a cell: numbers as written, nothing for a missing value, the item of a list of one."""
    if isinstance(value, list) and len(value) == 1:
        return _text(value[0], name)
    if isinstance(value, list | dict):
        raise DataError(f"{name} must be one text or number, not a {type(value).__name__} of {len(value)}")
    return "" if value is None or value != value else str(value)


def _question(value: Any) -> tuple[str, str | None]:
    """The question and the system message of a text or of a list of messages (TRL's `prompt`)."""
    if not isinstance(value, list):
        return _text(value, "question"), None
    turns: dict[str, str] = {}
    for message in value:
        role = message.get("role") if isinstance(message, dict) else None
        if role not in ("system", "user") or role in turns:
            raise DataError(f"a prompt must be one user turn after at most one system turn; found {role!r} beside them")
        content = message.get("content")
        turns[role] = "".join(map(_part, content)) if isinstance(content, list) else _text(content, "content")
    return turns.get("user", ""), turns.get("system")


def _part(part: Any) -> str:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "text":
        return _text(part.get("text"), "text")
    if kind != "image" or any(cell for key, cell in part.items() if key not in ("type", "text")):
        raise DataError(f"a message part must be a text, or an image held by the image column; found {kind!r}")
    return IMAGE_MARKER
