"""Your own rows: jsonl, json, csv or parquet files, or a folder of images with metadata.jsonl or metadata.csv.

Columns (the first that holds something counts): question, problem, query or prompt (text or messages); answer,
solution, ground_truth or label; images, image or decoded_image; and where you have them choices or options (a letter
or the option's text is the answer), id, source or type, system. Other names: `--map question=my_column`. Image paths
start at the folder of the data file. In an image folder (the layout of the `datasets` library) `file_name` or
`file_names` name the images. The licence is yours to know.
"""

from __future__ import annotations

from data_recipes.recipes.reading import cell, make_sample, text
from data_recipes.recipes.turns import read_turns
from data_recipes.types import Recipe, Row
from reopold_vl.types import VisualSample


def read(row: Row) -> VisualSample:
    """See the module's docstring for the columns."""
    question, system = cell(row, "question", "problem", "query", "prompt"), text(cell(row, "system"), "system")
    images = cell(row, "decoded_image", "images", "image")
    if isinstance(question, list | tuple):
        turns = read_turns(question)
        question, system, images = turns.question, turns.system or system, images or turns.images
    return make_sample(
        row,
        question=question,
        answer=cell(row, "answer", "solution", "ground_truth", "label"),
        images=images,
        choices=cell(row, "choices", "options"),
        id=cell(row, "id"),
        source=cell(row, "source", "type"),
        system=system,
    )


RECIPE = Recipe(
    name="local",
    title="Your own files: jsonl, json, csv, parquet, a folder of images",
    licence="yours to state",
    citation="",
    sources=(),
    splits=("train", "validation", "test"),
    columns=(
        ("question", "problem", "query", "prompt"),
        ("answer", "solution", "ground_truth", "label"),
        ("images", "image", "decoded_image"),
    ),
    read=read,
    extra=("response", "pass_rate"),
)
