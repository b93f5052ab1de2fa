"""Do the columns of some data fit a recipe, and which of them have other names there?"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Mapping, Sequence

from data_recipes.recipes import local
from data_recipes.types import Recipe, RecipeError

# What readers look for beside their required columns.
OPTIONAL = ("id", "choices", "options", "source", "type", "system", "unit", "hint", "image", "images")


def column_renames(recipe: Recipe, columns: Sequence[str], mapping: Mapping[str, str], where: str) -> dict[str, str]:
    """Check columns: the renames (theirs -> ours) that apply. Raises RecipeError naming those that are missing.

    `question=prompt` is understood as well as `prompt=question` where only one of the two can be meant.
    """
    known = {*itertools.chain(*recipe.columns), *recipe.extra, *OPTIONAL}
    renames: dict[str, str] = {}
    listed = ", ".join(columns) or "none"
    for left, right in mapping.items():
        theirs, ours = (left, right) if left in columns and right in known else (right, left)
        if theirs not in columns or ours not in known:
            unknown = f"{left!r} is no column of the data" if left not in columns else f"{right!r} is none of ours"
            allowed = ", ".join(sorted(known))
            raise RecipeError(f"--map {left}={right}: {unknown}; columns: {listed}; ours for {recipe.name}: {allowed}")
        renames[theirs] = ours
    after = {renames.get(name, name) for name in columns}
    if missing := [names for names in recipe.columns if not after & set(names)]:
        wanted = "; no column ".join(" or ".join(names) for names in missing)
        advice = " ".join(f"{_meant(names, columns)}={names[0]}" for names in missing)
        needed = f"no column {wanted}, which {recipe.name} needs"
        raise RecipeError(f"{where}: {needed}; there are: {listed}; name yours with --map {advice}")
    return renames


def _meant(names: Sequence[str], columns: Sequence[str]) -> str:
    """The column that probably holds what `names` stand for: another usual name of it, or one spelt alike."""
    usual = [name for group in local.RECIPE.columns if set(names) & set(group) for name in group if name in columns]
    near = difflib.get_close_matches(names[0], columns, n=1, cutoff=0.5)
    return next(iter([*usual, *near]), "YOUR_COLUMN")
