"""The embedded synthetic task: eleven types of visual questions, computed; any number of rows, any seed, no download.

See `reopold_vl/zoo/README.md`. Images show generated shapes and handwritten digits (E. Alpaydin and C. Kaynak, UCI
Machine Learning Repository, 1998, doi:10.24432/C50P49, CC BY 4.0). Splits share no image by construction.

A row is only (split, index, seed); the picture is drawn when the row is read, which worker processes do side by side.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, cast

from data_recipes.recipes.reading import cell, make_sample
from data_recipes.types import Recipe, Row
from reopold_vl.types import VisualSample

if TYPE_CHECKING:
    from reopold_vl.zoo.digits import Split

SIZES = {"train": 10_000, "validation": 440, "test": 2_200}


def rows(split: str, limit: int | None, seed: int) -> Iterator[Row]:
    """The first `limit` problems of a split (None: its usual size)."""
    for index in range(SIZES[split] if limit is None else limit):
        yield {"split": split, "index": index, "seed": seed}


def read(row: Row) -> VisualSample:
    """Draw the problem."""
    from reopold_vl.zoo.task import problem

    split = cast("Split", cell(row, "split"))
    sample = problem(split, int(cell(row, "index")), seed=int(cell(row, "seed"))).sample
    return make_sample(
        row,
        question=sample.question,
        answer=sample.answer,
        images=sample.images,
        id=sample.id,
        source=sample.source,
    )


RECIPE = Recipe(
    name="embedded",
    title="Embedded task: visual questions about small grids, computed",
    licence="Apache-2.0; handwriting CC BY 4.0 (doi:10.24432/C50P49)",
    citation="reopold_vl; Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998",
    sources=(),
    splits=("train", "validation", "test"),
    columns=(("split",), ("index",), ("seed",)),
    read=read,
    rows=rows,
)
