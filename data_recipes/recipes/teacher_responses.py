"""A teacher's responses to another recipe's prompts, kept where their final answer is right.

The rows are made by `data_recipes.teacher.teacher_stream` (any recipe, or a directory built before, and a model), or
read back with `--data-path` from a directory that holds them: the other recipe's columns, and `response`, `num_right`,
`num_samples`, `pass_rate`. They are the data of the supervised baseline (rejection sampling; Yuan et al., 2023,
arXiv:2308.01825) and of a cold start. Licence: that of the prompts, and what the teacher's licence says of its output.
"""

from __future__ import annotations

from data_recipes.recipes import local
from data_recipes.types import Recipe, Row, RowError
from reopold_vl.types import VisualSample


def read(row: Row) -> VisualSample:
    """The sample of the prompt; a row without response is rejected."""
    sample = local.read(row)
    if not row.get("response"):
        raise RowError("no response", "no_response")
    return sample


RECIPE = Recipe(
    name="teacher_responses",
    title="A teacher's right responses to another recipe's prompts",
    licence="the prompts' licence; the teacher's licence may restrict the use of its output",
    citation="Yuan et al., Scaling Relationship on Learning Mathematical Reasoning, 2023, arXiv:2308.01825",
    sources=(),
    splits=("train", "validation", "test"),
    columns=(*local.RECIPE.columns, ("response",)),
    read=read,
    extra=("response", "num_right", "num_samples", "pass_rate"),
)
