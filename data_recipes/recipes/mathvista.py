"""MathVista: a benchmark, here only so that asking for it gets an answer; training on it is prohibited.

Hub: AI4Math/MathVista (testmini 1,000; test 5,141 with hidden answers). Its licence (CC BY-SA 4.0 for the additions)
says that it is for testing only; images keep their sources' licences. Lu et al., ICLR 2024, arXiv:2310.02255.

Traps: `image` is a name, the picture is in `decoded_image`; answers of the test split are empty; multiple-choice
answers are the option's text.
"""

from __future__ import annotations

from data_recipes.recipes.reading import cell, make_sample, text
from data_recipes.types import HubSource, Recipe, Row
from reopold_vl.types import VisualSample


def read(row: Row) -> VisualSample:
    """question with its unit, decoded_image (or image), choices, answer."""
    metadata = row.get("metadata")
    question, unit = text(cell(row, "question"), "question"), text(cell(row, "unit"), "unit")
    return make_sample(
        row,
        question=f"{question} (Unit: {unit})" if question and unit else question,
        answer=cell(row, "answer"),
        images=cell(row, "decoded_image", "image"),
        choices=cell(row, "choices"),
        id=cell(row, "pid"),
        source=metadata.get("source") if isinstance(metadata, dict) else None,
    )


RECIPE = Recipe(
    name="mathvista",
    title="MathVista: a benchmark, not training data",
    licence="CC BY-SA 4.0 (additions), test only; images under the licences of their sources",
    citation="Lu et al., MathVista, ICLR 2024, arXiv:2310.02255",
    sources=(HubSource("AI4Math/MathVista"),),
    splits=("testmini", "test"),
    columns=(("question",), ("answer",), ("decoded_image", "image")),
    read=read,
    forbidden="MathVista is for testing only: its licence prohibits training on it, and every score would be void",
)
