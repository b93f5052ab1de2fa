"""CLEVR counting: how many objects are there, in rendered scenes; 70,000 questions.

Hub: leonardPKU/clevr_cogen_a_train and MMInstruction/Clevr_CoGenT_TrainA_R1 (image, problem, solution), and
BUAADreamer/clevr_count_70k (train 70,000, test 200). CLEVR is CC BY 4.0: Johnson et al., CVPR 2017, arXiv:1612.06890.

Traps: the answer is wrapped, "<answer> 3 </answer>", and kept so; few distinct answers (0 to 10), so a student that
guesses the commonest one looks better than it is; CLEVR-Math and Super-CLEVR items of MathVista look alike: filter
contamination.
"""

from __future__ import annotations

from data_recipes.recipes.reading import cell, make_sample
from data_recipes.types import HubSource, Recipe, Row
from reopold_vl.types import VisualSample


def read(row: Row) -> VisualSample:
    """image (or images), problem, solution (or answer)."""
    return make_sample(
        row,
        question=cell(row, "problem"),
        answer=cell(row, "solution", "answer"),
        images=cell(row, "image", "images"),
        id=cell(row, "id"),
    )


RECIPE = Recipe(
    name="clevr_count",
    title="CLEVR: counting objects in rendered scenes",
    licence="CC BY 4.0",
    citation="Johnson et al., CLEVR: A Diagnostic Dataset, CVPR 2017, arXiv:1612.06890",
    sources=(
        HubSource("leonardPKU/clevr_cogen_a_train"),
        HubSource("MMInstruction/Clevr_CoGenT_TrainA_R1"),
        HubSource("BUAADreamer/clevr_count_70k"),
    ),
    splits=("train", "test"),
    columns=(("image", "images"), ("problem",), ("solution", "answer")),
    read=read,
)
