r"""Geometry3K: high-school plane geometry with diagrams; free-form answers in LaTeX.

2,101 / 300 / 601 problems. Hub: hiyouga/geometry3k (images, problem, answer; also id, choices, ground_truth), Licence
MIT. Lu et al., Inter-GPS, ACL 2021, arXiv:2105.04165.

Traps: answers are LaTeX with odd spaces ("2 \sqrt { 221 }"). The four choices of the original are not passed on: the
question does not ask for a letter, and listing them would make another, easier task. 62 test problems are in MathVista
testmini: filter contamination. The diagrams carry most of the information and many questions are "Find x.", word for
word, so duplicates cannot be told by their text alone.
"""

from __future__ import annotations

from data_recipes.recipes.reading import cell, make_sample
from data_recipes.types import HubSource, Recipe, Row
from reopold_vl.types import VisualSample


def read(row: Row) -> VisualSample:
    """images (or image), problem, answer."""
    return make_sample(
        row,
        question=cell(row, "problem"),
        answer=cell(row, "answer"),
        images=cell(row, "images", "image"),
        id=cell(row, "id"),
    )


RECIPE = Recipe(
    name="geometry3k",
    title="Geometry3K: plane geometry with diagrams",
    licence="MIT",
    citation="Lu et al., Inter-GPS: Interpretable Geometry Problem Solving, ACL 2021, arXiv:2105.04165",
    sources=(HubSource("hiyouga/geometry3k"), HubSource("SunnyLin/geometry3k")),
    splits=("train", "validation", "test"),
    columns=(("images", "image"), ("problem",), ("answer",)),
    read=read,
)
