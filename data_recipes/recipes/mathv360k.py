"""MathV360K: an instruction mix of 40,000 images from 24 data sets and 360,000 question-answer pairs.

Hub: Zhiqiang007/MathV360K (train_samples_all_tuning.json and data_images.zip, 5.8 GB: id, image as a path,
conversations of one human and one gpt turn). Shi et al., Math-LLaVA, Findings of EMNLP 2024, arXiv:2406.17294.

Licence, honestly: the authors' code and annotations are Apache-2.0, 320,000 of the pairs were written by GPT-4V (whose
terms restrict training competing models), and the images keep the licences of their 24 sources, several of which
exclude commercial use (TabMWP and ScienceQA are CC BY-NC-SA) and some of which state none. Fine for research; look at
each row's source, which is the image's folder, before anything else.

Traps: the reply is a sentence, "The answer is 12", and only what follows is the answer; options are inside the
question; the synthesised answers were never verified and some are prose; the sources are the very data sets that
MathVista drew its items from: filter contamination. The archive is read in place.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from data_recipes.recipes.reading import cell, make_sample
from data_recipes.recipes.turns import read_turns
from data_recipes.types import HubSource, Recipe, Row
from reopold_vl.types import VisualSample

PREFIX = "The answer is "
_OPTION = re.compile(r"^\(([A-Z])\) *(\S.*)$", re.MULTILINE)


def read(row: Row) -> VisualSample:
    """image and conversations: the question, its options, and what follows "The answer is" in the reply."""
    turns = read_turns(cell(row, "conversations"))
    image = cell(row, "image", "images")
    return make_sample(
        row,
        question=turns.question,
        answer=(turns.reply or "").removeprefix(PREFIX),
        images=image,
        choices=_options(turns.question),
        id=cell(row, "id"),
        source=_folder(image),
        system=turns.system,
    )


def _options(question: str) -> tuple[str, ...] | None:
    found = _OPTION.findall(question.partition("Choices:")[2])
    in_order = [letter for letter, _ in found] == [chr(ord("A") + index) for index in range(len(found))]
    return tuple(option.strip() for _, option in found) if found and in_order else None


def _folder(image: object) -> str:
    """The data set an image is from: the folder above images/, such as TabMWP in TabMWP/images/24069.png."""
    parts = PurePosixPath(image).parts if isinstance(image, str) else ()
    parts = tuple(part for part in parts[:-1] if part not in ("data_images", "images"))
    return f"mathv360k {parts[-1]}" if parts else ""


RECIPE = Recipe(
    name="mathv360k",
    title="MathV360K: instruction mix from 24 data sets",
    licence="Apache-2.0 (annotations, in part written by GPT-4V); images under the mixed licences of 24 sources, some "
    "non-commercial",
    citation="Shi et al., Math-LLaVA, Findings of EMNLP 2024, arXiv:2406.17294",
    sources=(HubSource("Zhiqiang007/MathV360K", files=("train_samples_all_tuning.json", "data_images.zip")),),
    splits=("train",),
    columns=(("conversations",), ("image", "images")),
    read=read,
)
