"""A weighted mixture of recipes out of a recipe.yaml, interleaved the same way every time."""

from __future__ import annotations

import difflib
import hashlib
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any

from data_recipes.recipes.reading import ORIGIN
from data_recipes.stream import Stream, open_stream, read_row
from data_recipes.types import Recipe, RecipeError, Row

STOPS = ("first_exhausted", "all_exhausted")


@dataclass(frozen=True)
class Part:
    """One entry of a mixture. `weight` is the part's share of the rows read, relative to the other weights.

    A path in `data_path` is relative to the yaml file. `map` renames columns, theirs -> ours.
    """

    recipe: str
    weight: float = 1.0
    limit: int | None = None
    split: str | None = None
    data_path: str | None = None
    map: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Mixture:
    """What a recipe.yaml says. `stop`: "first_exhausted" ends when the first part runs out, so that the shares hold;
    "all_exhausted" uses every row, the others going on with their weights when a part has run out.
    """

    parts: tuple[Part, ...]
    stop: str = "first_exhausted"


def read_mixture(path: str | Path) -> Mixture:
    """Read a recipe.yaml: a list of parts, or `parts:` with `stop:`. Raises RecipeError naming the wrong entry."""
    import yaml

    path = Path(path)
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RecipeError(f"{path}: unreadable, {' '.join(str(error).split())}") from error
    document = {"parts": document} if isinstance(document, list) else document
    if not isinstance(document, dict) or not isinstance(document.get("parts"), list) or not document["parts"]:
        raise RecipeError(f"{path}: a mixture is a list of parts such as '- recipe: geometry3k', and none is there")
    _check_names(document, ("parts", "stop"), str(path))
    stop = document.get("stop", STOPS[0])
    if stop not in STOPS:
        raise RecipeError(f"{path}: stop is {stop!r:.40}: allowed are {', '.join(STOPS)}")
    return Mixture(tuple(_part(item, f"{path}: part {n}") for n, item in enumerate(document["parts"], 1)), stop)


def open_mixture(path: str | Path, *, limit: int | None = None, seed: int = 0) -> Stream:
    """Open a recipe.yaml as one stream, its parts interleaved by weight; the order depends on the seed alone.

    After any number of rows each part has had its share to within about a row (stride scheduling: Waldspurger and
    Weihl, 1995; the seed sets the phases). Sample ids begin with the part's name. Raises RecipeError.
    """
    path = Path(path)
    mixture = read_mixture(path)
    parts = []
    for number, part in enumerate(mixture.parts, 1):
        try:
            local = None if part.data_path is None else path.parent / Path(part.data_path).expanduser()
            parts.append(
                open_stream(
                    part.recipe,
                    split=part.split,
                    data_path=local,
                    mapping=part.map,
                    limit=part.limit,
                    seed=seed,
                )
            )
        except RecipeError as error:
            raise RecipeError(f"{path}: part {number} ({part.recipe}): {error}") from error
    weights = [part.weight for part in mixture.parts]
    mixed = mix(parts, weights, stop=mixture.stop, limit=limit, seed=seed, name=str(path))
    return replace(mixed, revision=_digest(mixture, parts))


def _digest(mixture: Mixture, parts: list[Stream]) -> str:
    """Stands for what the file says and for the data behind it: a build does not go on when either has changed."""
    said = [mixture, *((part.origin, part.revision) for part in parts)]
    return f"sha256:{hashlib.sha256(repr(said).encode()).hexdigest()[:32]}"


def mix(
    parts: list[Stream], weights: list[float], *, stop: str = STOPS[0], limit: int | None = None, seed: int, name: str
) -> Stream:
    """Interleave streams by weight into one; see `open_mixture`."""
    prefixes = _prefixes([part.recipe.name for part in parts])

    def rows(skip: int) -> Iterator[tuple[int, Row]]:
        taken, order = [0] * len(parts), _Order(weights, seed, stop)
        # Up to `skip` only counts matter, where all of them are known; else the rows themselves tell when one ends.
        known = all(part.total is not None for part in parts)
        number = _fast_forward(order, taken, parts, skip) if known else 0
        readers = [part.rows_from(count) for part, count in zip(parts, taken, strict=True)]
        while (place := order.next()) is not None and (limit is None or number < limit):
            if (found := next(readers[place], None)) is None:
                order.exhausted(place)
                continue
            order.took(place)
            if number >= skip:
                yield number, _prefixed(found[1], prefixes[place])
            number += 1

    total, notes = None, ()
    if all(part.total is not None for part in parts):
        taken = [0] * len(parts)
        total = _fast_forward(_Order(weights, seed, stop), taken, parts, limit)
        counts = zip(prefixes, taken, parts, strict=True)
        notes = tuple(f"{prefix}: {count:,} of its {part.total:,} rows" for prefix, count, part in counts)
    recipe = _described([part.recipe for part in parts], prefixes)
    split = ", ".join(dict.fromkeys(part.split for part in parts))
    return Stream(recipe, name, "", split, total, rows, notes, tuple(parts))


def _described(recipes: list[Recipe], prefixes: list[str]) -> Recipe:
    def distinct(name: str) -> list[str]:
        return [text for text in dict.fromkeys(getattr(recipe, name) for recipe in recipes) if text]

    return Recipe(
        name="mixture",
        title=f"Mixture of {', '.join(prefixes)}",
        licence="; ".join(f"{name}: {recipe.licence}" for name, recipe in zip(prefixes, recipes, strict=True)),
        citation="; ".join(distinct("citation")),
        sources=(),
        splits=tuple(dict.fromkeys(split for recipe in recipes for split in recipe.splits)),
        columns=(),
        read=read_row,
        forbidden="; ".join(distinct("forbidden")),
        extra=tuple(dict.fromkeys(name for recipe in recipes for name in recipe.extra)),
    )


class _Order:
    """Whose turn it is: the part that is furthest behind its share."""

    def __init__(self, weights: list[float], seed: int, stop: str) -> None:
        random = Random(f"mixture/{seed}")
        self._stride = [1 / weight for weight in weights]
        self._due = [random.random() * stride for stride in self._stride]
        self._stop_at_first, self._stopped = stop == STOPS[0], False
        self._running = set(range(len(weights)))

    def next(self) -> int | None:
        if self._stopped or not self._running:
            return None
        return min(self._running, key=lambda place: (self._due[place], place))

    def took(self, place: int) -> None:
        self._due[place] += self._stride[place]

    def exhausted(self, place: int) -> None:
        self._running.discard(place)
        self._stopped = self._stop_at_first


def _fast_forward(order: _Order, taken: list[int], parts: list[Stream], count: int | None) -> int:
    """Take `count` turns (None: all there are) without reading rows; how many were taken."""
    number = 0
    while (count is None or number < count) and (place := order.next()) is not None:
        if taken[place] == parts[place].total:
            order.exhausted(place)
            continue
        order.took(place)
        taken[place] += 1
        number += 1
    return number


def _prefixes(names: list[str]) -> list[str]:
    """The parts' names, numbered where one comes more than once."""
    counters = {name: itertools.count(1) for name in names}
    return [name if names.count(name) == 1 else f"{name}-{next(counters[name])}" for name in names]


def _prefixed(row: Row, prefix: str) -> Row:
    origin = row[ORIGIN]
    return {**row, ORIGIN: replace(origin, prefix=f"{prefix}/{origin.prefix}")}


def _part(item: Any, where: str) -> Part:
    if not isinstance(item, dict):
        raise RecipeError(f"{where} is {item!r:.60}: allowed is an object with recipe, and weight, limit, ...")
    _check_names(item, tuple(Part.__dataclass_fields__), where)
    for name, allowed, kind in (
        ("recipe", "a name of --list", str),
        ("weight", "a number above 0", int | float),
        ("limit", "a whole number above 0", int),
        ("split", "a name", str),
        ("data_path", "a path", str),
        ("map", "an object, theirs: ours", dict),
    ):
        value = item.get(name)
        positive = not isinstance(value, int | float) or (0 < value < float("inf") and not isinstance(value, bool))
        if (value is None and name == "recipe") or (value is not None and not (isinstance(value, kind) and positive)):
            raise RecipeError(f"{where}: {name} is {value!r:.40}: allowed is {allowed}")
    renames = {str(theirs): str(ours) for theirs, ours in (item.get("map") or {}).items()}
    weight, data_path = item.get("weight"), item.get("data_path")
    return Part(
        item["recipe"], 1.0 if weight is None else weight, item.get("limit"), item.get("split"), data_path, renames
    )


def _check_names(entries: Mapping[Any, Any], allowed: tuple[str, ...], where: str) -> None:
    for name in entries:
        if name not in allowed:
            near = difflib.get_close_matches(str(name), allowed, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise RecipeError(f"{where}: unknown field {name!r:.40}; allowed are {', '.join(allowed)}{hint}")
