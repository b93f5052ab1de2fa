"""MMK12: school problems (mathematics, physics, chemistry, biology) with fill-in answers.

Hub: FanqingM/MMK12 (id, question, answer, subject, image); train 15,616, test 2,000 (500 a subject). Meng et al.,
MM-Eureka, arXiv:2503.07365, whose code is Apache-2.0; look at the card for what holds for the problems and pictures,
which were collected from school material.

Traps: train answers are free-form, test answers are letters with the options inside the question; translated from
Chinese, and some pictures still show Chinese text. Contained in part in ViRL39K: deduplicate when mixing the two.
"""

from __future__ import annotations

from data_recipes.recipes.reading import cell, make_sample
from data_recipes.types import HubSource, Recipe, Row
from reopold_vl.types import VisualSample


def read(row: Row) -> VisualSample:
    """question, answer, image (or images), subject as the source."""
    return make_sample(
        row,
        question=cell(row, "question"),
        answer=cell(row, "answer"),
        images=cell(row, "image", "images"),
        id=cell(row, "id"),
        source=cell(row, "subject"),
    )


RECIPE = Recipe(
    name="mmk12",
    title="MMK12: school mathematics and science with fill-in answers",
    licence="not stated by us: see the card of FanqingM/MMK12 (the authors' code is Apache-2.0)",
    citation="Meng et al., MM-Eureka: Exploring Visual Aha Moment, 2025, arXiv:2503.07365",
    sources=(HubSource("FanqingM/MMK12"),),
    splits=("train", "test"),
    columns=(("question",), ("answer",), ("image", "images")),
    read=read,
)
