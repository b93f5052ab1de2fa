"""ScienceQA: school science, multiple choice; the half of it that comes with an image.

Hub: derek-thomas/ScienceQA (train 12,726, validation 4,241, test 4,241; card: CC BY-SA 4.0) and lmms-lab/ScienceQA,
configuration ScienceQA-IMG (6,218 / 2,097 / 2,017). The authors' licence is CC BY-NC-SA 4.0, which is what counts: not
for commercial use. Lu et al., NeurIPS 2022, arXiv:2209.09513.

Traps: `answer` is the option's index from 0 and becomes its letter here; `hint` is context without which some
questions cannot be answered and goes before the question as "Context: ..."; rows without an image are counted and
taken out by the builder; `lecture` and `solution` are explanations (kept beside the sample).
"""

from __future__ import annotations

from data_recipes.recipes.reading import cell, make_sample, text, texts
from data_recipes.types import HubSource, Recipe, Row, RowError
from reopold_vl.types import VisualSample


def read(row: Row) -> VisualSample:
    """question, choices, answer (index from 0), hint, image."""
    choices = texts(cell(row, "choices"), "choices") or ()
    hint = text(cell(row, "hint"), "hint").strip()
    question = text(cell(row, "question"), "question")
    return make_sample(
        row,
        question=f"Context: {hint}\n{question}" if hint and question else question,
        answer=_letter(text(cell(row, "answer"), "answer"), len(choices)),
        images=cell(row, "image", "images"),
        choices=choices,
        id=cell(row, "id"),
        source=cell(row, "subject"),
    )


def _letter(index: str, count: int) -> str | None:
    if not index:
        return None
    if not index.isdecimal() or int(index) >= count:
        raise RowError(f"answer is {index!r:.40}: allowed is the index of one of the {count} choices, from 0")
    return chr(ord("A") + int(index))


RECIPE = Recipe(
    name="scienceqa",
    title="ScienceQA: school science, multiple choice, questions with an image",
    licence="CC BY-NC-SA 4.0 (non-commercial)",
    citation="Lu et al., Learn to Explain (ScienceQA), NeurIPS 2022, arXiv:2209.09513",
    sources=(
        HubSource("lmms-lab/ScienceQA", config="ScienceQA-IMG"),
        HubSource("lmms-lab-encoder/ScienceQA", config="ScienceQA-IMG"),
        HubSource("derek-thomas/ScienceQA"),
    ),
    splits=("train", "validation", "test"),
    columns=(("question",), ("choices",), ("answer",), ("image", "images")),
    read=read,
    extra=("lecture", "solution", "grade", "topic", "category", "skill"),
)
