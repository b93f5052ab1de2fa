r"""ViRL39K: 38,870 verifiable questions for reinforcement learning: mathematics, science, charts, tables and more.

Hub: TIGER-Lab/ViRL39K (39Krelease.parquet and images.zip: question, answer, image as a list of paths, category,
source, qid, PassRate_32BTrained, PassRate_7BBase). Licence MIT for the collection; it draws on LLaVA-OneVision,
R1-OneVision, MM-Eureka (MMK12), MM-Math, M3CoT and others, whose images keep their own licences. Wang et al.,
VL-Rethinker, arXiv:2504.08837.

Traps: images are paths into images.zip, which is read in place (unpacked beside the parquet file it is used as well);
answers are wrapped, "\boxed{..}"; the pass rates are there for a part of the rows only; some rows stem from sets that
benchmarks were made of: filter contamination. Kun-Xiang/ViRL39K holds the images in its rows but not the pass rates.
"""

from __future__ import annotations

from data_recipes.recipes.reading import cell, make_sample
from data_recipes.types import HubSource, Recipe, Row
from reopold_vl.types import VisualSample


def read(row: Row) -> VisualSample:
    """question (or problem), answer, image (or images)."""
    return make_sample(
        row,
        question=cell(row, "question", "problem"),
        answer=cell(row, "answer"),
        images=cell(row, "image", "images"),
        id=cell(row, "qid"),
        source=cell(row, "source", "category"),
    )


RECIPE = Recipe(
    name="virl39k",
    title="ViRL39K: verifiable questions over many kinds of images",
    licence="MIT (annotations); images under the licences of their sources",
    citation="Wang et al., VL-Rethinker: Incentivizing Self-Reflection of VLMs, 2025, arXiv:2504.08837",
    sources=(
        HubSource("TIGER-Lab/ViRL39K", files=("39Krelease.parquet", "images.zip")),
        HubSource("Kun-Xiang/ViRL39K"),
    ),
    splits=("train",),
    columns=(("question", "problem"), ("answer",), ("image", "images")),
    read=read,
    extra=("category", "PassRate_32BTrained", "PassRate_7BBase"),
)
