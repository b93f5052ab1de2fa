"""The registry of recipes: one line a recipe."""

from __future__ import annotations

import difflib

from data_recipes.recipes import (
    chartqa,
    clevr_count,
    embedded,
    geometry3k,
    local,
    mathv360k,
    mathvista,
    mmk12,
    scienceqa,
    tabmwp,
    teacher_responses,
    trl,
    virl39k,
)
from data_recipes.types import Recipe, RecipeError

RECIPES: dict[str, Recipe] = {
    module.RECIPE.name: module.RECIPE
    for module in (
        geometry3k,
        virl39k,
        mmk12,
        clevr_count,
        tabmwp,
        chartqa,
        scienceqa,
        mathv360k,
        mathvista,
        embedded,
        local,
        trl,
        teacher_responses,
    )
}


def find_recipe(name: str) -> Recipe:
    """The recipe of this name; raises RecipeError with the nearest name."""
    if name in RECIPES:
        return RECIPES[name]
    near = difflib.get_close_matches(name.lower().replace("-", "_"), RECIPES, n=1, cutoff=0.4)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise RecipeError(f"no recipe is called {name!r:.60}{hint or '.'} There are: {', '.join(RECIPES)}")
