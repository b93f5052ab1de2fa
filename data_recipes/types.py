"""What flows through a build: row -> VisualSample -> checked sample -> shard. All frozen, nothing here needs torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from reopold_vl.types import VisualSample

Row = Mapping[str, Any]


class RecipeError(ValueError):
    """A recipe, or data for it, that cannot be used; one line saying what is wrong and what would be right."""


class RowError(ValueError):
    """One row that cannot become a sample; it is counted under `filter` and listed with the reason."""

    def __init__(self, reason: str, filter: str = "unreadable") -> None:
        super().__init__(reason)
        self.filter = filter


@dataclass(frozen=True)
class HubSource:
    """A place on the Hub: data set id and configuration. Ids move: a recipe lists the newest first.

    `files` names files of the repository where `datasets` cannot make rows with images of it: they are downloaded
    into the Hub's cache; images are then looked up inside the .zip files among them.
    """

    id: str
    config: str | None = None
    revision: str | None = None
    files: tuple[str, ...] = ()


@dataclass(frozen=True)
class Recipe:
    """Where a data set lies, what may be done with it, and how one of its rows becomes a sample.

    `columns` are what every row must have (each entry: alternatives, best first). `read` makes a sample of one row and
    raises RowError where it cannot; it must be a module-level function (worker processes import it) and keeps the
    answer verbatim but for what wraps it (`\\boxed{}`, `<answer>` tags are kept too: normalising is the builder's).
    `forbidden` says why training on the data is not allowed (empty: it is); such a recipe is refused unless the user
    takes it upon himself. `rows` is for recipes that compute their rows: (split, limit, seed) -> rows. `extra` names
    columns that are kept verbatim beside the sample where a row has them (pass rates, the teacher's response).
    """

    name: str
    title: str
    licence: str
    citation: str
    sources: tuple[HubSource, ...]
    splits: tuple[str, ...]
    columns: tuple[tuple[str, ...], ...]
    read: Callable[[Row], VisualSample]
    forbidden: str = ""
    rows: Callable[[str, int | None, int], Iterator[Row]] | None = None
    extra: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rejected:
    """A row that a filter took out: its number in the stream, the filter's name and the reason, and the row's id."""

    number: int
    filter: str
    reason: str
    id: str = ""


@dataclass(frozen=True)
class Checked:
    """A sample with what the filters need to know of it, computed once in a worker.

    `image_bytes` are the encoded images as they will be stored; `image_sha256` and `image_phash` one entry an image
    (hash of the decoded pixels; 64-bit perceptual hash as an integer); `sizes` (width, height); `question_key` the
    normalised question text; `answer_normalised` and `answer_type` ("choice", "integer", "decimal", "yes/no", "text",
    "expression").
    """

    number: int
    sample: VisualSample
    image_bytes: tuple[bytes, ...]
    image_sha256: tuple[str, ...]
    image_phash: tuple[int, ...]
    sizes: tuple[tuple[int, int], ...]
    question_key: str
    answer_normalised: str
    answer_type: str
    extra: Mapping[str, Any] = field(default_factory=dict)
