"""TabMWP: word problems about a table that is shown as an image; 38,431 in all.

The authors publish problems_train.json and tables/<pid>.png on GitHub (lupantech/PromptPG, data/tabmwp), no Hub card;
`--data-path` takes their files as they are. Hub: JiaerX/TabMWP (image, id, question, options, answer; 23,059 rows).
Licence CC BY-NC-SA 4.0: not for commercial use. Lu et al., ICLR 2023, arXiv:2209.14610.

Traps: a unit is given apart from the answer, so the question ends in "(Unit: ...)" as in the authors' own prompt;
choices are null or []; 62 test problems are in MathVista testmini; the column `solution` is a worked solution, not the
answer (kept beside the sample).
"""

from __future__ import annotations

from data_recipes.recipes.reading import cell, make_sample, text
from data_recipes.types import HubSource, Recipe, Row
from reopold_vl.types import VisualSample


def read(row: Row) -> VisualSample:
    """question, answer, choices (or options), unit, image; without an image column tables/<pid>.png."""
    pid = text(cell(row, "pid", "id"), "pid")
    unit = text(cell(row, "unit"), "unit")
    question = text(cell(row, "question"), "question")
    return make_sample(
        row,
        question=f"{question} (Unit: {unit})" if question and unit else question,
        answer=cell(row, "answer"),
        images=cell(row, "image", "images") or (f"tables/{pid}.png" if pid else None),
        choices=cell(row, "choices", "options"),
        id=pid,
        source=cell(row, "ans_type"),
    )


RECIPE = Recipe(
    name="tabmwp",
    title="TabMWP: word problems about tables",
    licence="CC BY-NC-SA 4.0 (non-commercial)",
    citation="Lu et al., Dynamic Prompt Learning via Policy Gradient (PromptPG), ICLR 2023, arXiv:2209.14610",
    sources=(HubSource("JiaerX/TabMWP"),),
    splits=("train", "validation", "test"),
    columns=(("question",), ("answer",), ("image", "images", "pid")),
    read=read,
    extra=("solution", "grade"),
)
