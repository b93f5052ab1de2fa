"""ChartQA: questions about charts, written by people or generated.

Hub: HuggingFaceM4/ChartQA (image, query, label as a list of one, human_or_machine; train 28,299, val 1,920, test
2,500); lmms-lab/ChartQA has the test split alone (image, question, answer, type). Licence GPL-3.0. Masry et al.,
Findings of ACL 2022, arXiv:2203.10244.

Traps: official scoring is relaxed (5 % for numbers, years among them), training rewards here are not; "12%" and "12"
both occur for the same thing; an answer that is a list is written "[a, b]"; 50 items are in MathVista testmini.
"""

from __future__ import annotations

from data_recipes.recipes.reading import cell, make_sample, text
from data_recipes.types import HubSource, Recipe, Row
from reopold_vl.types import VisualSample

KINDS = {"0": "human", "1": "augmented", "machine": "augmented"}  # HuggingFaceM4 stores a class label


def read(row: Row) -> VisualSample:
    """query (or question), label (or answer), image."""
    label = cell(row, "label", "answer")
    several = isinstance(label, list | tuple) and len(label) > 1
    kind = text(cell(row, "human_or_machine", "type"), "type")
    return make_sample(
        row,
        question=cell(row, "query", "question"),
        answer=f"[{', '.join(map(str, label))}]" if several else label,
        images=cell(row, "image", "images"),
        source=f"chartqa {KINDS.get(kind, kind)}".strip(),
    )


RECIPE = Recipe(
    name="chartqa",
    title="ChartQA: questions about charts",
    licence="GPL-3.0",
    citation="Masry et al., ChartQA, Findings of ACL 2022, arXiv:2203.10244",
    sources=(HubSource("HuggingFaceM4/ChartQA"), HubSource("lmms-lab/ChartQA"), HubSource("lmms-lab-encoder/ChartQA")),
    splits=("train", "val", "test"),
    columns=(("query", "question"), ("label", "answer"), ("image", "images")),
    read=read,
)
