"""Recipe -> a stream of numbered rows, from the Hub, local files or computed; from any row on, in flat memory."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from data_recipes.columns import column_renames
from data_recipes.file_rows import open_file, rows_from
from data_recipes.files import find_data, rows_in
from data_recipes.recipes import find_recipe
from data_recipes.recipes.reading import EXTRA, ORIGIN, Origin
from data_recipes.types import Recipe, RecipeError, Row, RowError
from reopold_vl.rows import not_read
from reopold_vl.types import VisualSample

NO_MAPPING: Mapping[str, str] = MappingProxyType({})

RowsFrom = Callable[[int], Iterator[tuple[int, Row]]]


@dataclass(frozen=True)
class Stream:
    """Numbered rows and where they are from.

    `recipe` describes them and reads them (`recipe.read` takes the rows as they come and can be pickled); `origin` is
    the Hub id or the path, `revision` the commit or a hash of the files ("" for computed rows), `total` the number of
    rows where it is known. `notes` are for the user's eyes; `parts` are the streams of a mixture.
    """

    recipe: Recipe
    origin: str
    revision: str
    split: str
    total: int | None
    rows_from: RowsFrom = field(repr=False)
    notes: tuple[str, ...] = ()
    parts: tuple[Stream, ...] = ()

    @property
    def rows(self) -> Iterator[tuple[int, Row]]:
        """All rows with their numbers, from 0. A row that could not be read from its file is one that `read` refuses.

        `rows_from(skip)` starts at row number `skip` without decoding the ones before. Both raise RecipeError where
        the source breaks off.
        """
        return self.rows_from(0)


def open_stream(
    recipe: Recipe | str,
    *,
    split: str | None = None,
    data_path: str | Path | None = None,
    mapping: Mapping[str, str] = NO_MAPPING,
    limit: int | None = None,
    seed: int = 0,
) -> Stream:
    """Open a recipe's rows: `data_path` if given (a file, a folder in the Hub's layout or of images), else the Hub.

    `split` is by default the recipe's first; `mapping` renames columns (theirs -> ours); `limit` bounds the number of
    rows; `seed` is for recipes that compute their rows. Whether training is forbidden is the caller's to heed
    (`recipe.forbidden`). Raises RecipeError for a source, split or column that is not there, naming what is.
    """
    recipe = find_recipe(recipe) if isinstance(recipe, str) else recipe
    if limit is not None and limit < 1:
        raise RecipeError(f"limit is {limit}: allowed is 1 or more")
    if data_path is not None and recipe.rows is not None:
        raise RecipeError(f"data_path is {data_path}: {recipe.name} computes its rows and reads no files")
    if data_path is not None:
        found = _local(recipe, Path(data_path), split, mapping)
    elif split is not None and split not in recipe.splits:
        raise RecipeError(f"split is {split!r:.40}: {recipe.name} has {', '.join(recipe.splits)}")
    elif recipe.rows is not None:
        found = _computed(recipe, split or recipe.splits[0], limit, seed, mapping)
    elif recipe.sources:
        found = _hub(recipe, split or recipe.splits[0], mapping)
    else:
        model = " (or sample a teacher: --teacher MODEL)" if recipe.name == "teacher_responses" else ""
        raise RecipeError(f"{recipe.name} reads files of yours: give --data-path FILE_OR_DIRECTORY{model}")
    return found if limit is None else _limited(found, limit)


def read_row(row: Row) -> VisualSample:
    """The sample of a row of any stream, by the recipe that its origin names; raises RowError where it cannot."""
    return find_recipe(row[ORIGIN].recipe).read(row)


def _local(recipe: Recipe, path: Path, split: str | None, mapping: Mapping[str, str]) -> Stream:
    files = find_data(path, split, recipe.splits[0], recipe.splits)
    names = [name for source in recipe.sources for name in source.files if name.endswith(".zip")]
    archives = tuple((path if path.is_dir() else path.parent) / name for name in names)
    revision, split = fingerprint(files), split or recipe.splits[0]
    found = _from_files(_as_built(recipe, path), files, archives, mapping, str(path), revision, split)
    note = not_read(files, rows_in(files[0].parent)) if path.is_dir() else ""
    return replace(found, notes=(note,)) if note else found


def fingerprint(files: Sequence[Path]) -> str:
    """Stands for the content of local files: a build does not go on when they have changed. Images that rows name by
    path are not looked at."""
    digest = hashlib.sha256()
    try:
        for file in files:
            with file.open("rb") as handle:
                digest.update(hashlib.file_digest(handle, "sha256").digest())
    except OSError as error:
        raise RecipeError(f"{error.filename}: {error.strerror}") from error
    return f"sha256:{digest.hexdigest()[:32]}"


def _as_built(recipe: Recipe, path: Path) -> Recipe:
    """The user's own rows: licence, citation and ban of a directory that this package built go with the rows."""
    if recipe.sources or recipe.rows or not (path / "manifest.json").is_file():
        return recipe
    from data_recipes.manifest import read_manifest

    manifest = read_manifest(path)
    banned = f"{path} was built against the licence of its source" if manifest.get("built_against_licence") else ""
    licence, citation = (str(manifest.get(name) or getattr(recipe, name)) for name in ("licence", "citation"))
    return replace(recipe, licence=licence, citation=citation, forbidden=banned)


def _hub(recipe: Recipe, split: str, mapping: Mapping[str, str]) -> Stream:
    from data_recipes.hub import open_hub

    found = open_hub(recipe, split)
    if found.rows_from is None:
        opened = _from_files(recipe, found.files, found.archives, mapping, found.id, found.revision, split)
        return replace(opened, notes=found.notes)
    renames = column_renames(recipe, found.columns, mapping, found.id)
    rows_of, origin = found.rows_from, Origin(recipe.name)

    def rows(skip: int) -> Iterator[tuple[int, Row]]:
        for number, row in enumerate(rows_of(skip), skip):
            yield number, _tagged(row, recipe, renames, replace(origin, place=f"{split}/{number}"))

    return Stream(recipe, found.id, found.revision, split, found.total, rows, found.notes)


def _from_files(
    recipe: Recipe,
    files: Sequence[Path | str],
    archives: tuple[Path, ...],
    mapping: Mapping[str, str],
    origin: str,
    revision: str,
    split: str,
) -> Stream:
    opened = [open_file(file) for file in files]
    if not any(file.columns for file in opened):
        raise RecipeError(f"{origin}: no rows in {', '.join(Path(file.file).name for file in opened)}")
    renames = {
        file.file: column_renames(recipe, file.columns, mapping, str(file.file)) for file in opened if file.columns
    }
    totals = [file.total for file in opened]
    known = [total for total in totals if total is not None]

    def rows(skip: int) -> Iterator[tuple[int, Row]]:
        number = 0
        for file, total in zip(files, totals, strict=True):
            if total is not None and number + total <= skip:
                number += total
                continue
            first = max(0, skip - number) if total is not None else 0
            number += first
            base = Origin(recipe.name, folder=file.parent if isinstance(file, Path) else None, archives=archives)
            for row in rows_from(file, first):
                if number >= skip:
                    place = replace(base, place=f"{split}/{number}")
                    yield number, _tagged(row, recipe, renames.get(file, {}), place)
                number += 1

    return Stream(recipe, origin, revision, split, sum(known) if len(known) == len(totals) else None, rows)


def _computed(recipe: Recipe, split: str, limit: int | None, seed: int, mapping: Mapping[str, str]) -> Stream:
    compute = recipe.rows
    assert compute is not None
    if mapping:
        raise RecipeError(f"--map: {recipe.name} computes its rows, so there are no columns to rename")

    def rows(skip: int) -> Iterator[tuple[int, Row]]:
        numbered = enumerate(compute(split, limit, seed))
        for number, row in itertools.islice(numbered, skip, None):
            yield number, _tagged(row, recipe, {}, Origin(recipe.name, place=f"{split}/{number}"))

    total = sum(1 for _ in compute(split, limit, seed))
    return Stream(recipe, f"computed with seed {seed}", "", split, total, rows)


def _tagged(row: Row | RowError, recipe: Recipe, renames: Mapping[str, str], origin: Origin) -> dict[str, Any]:
    if isinstance(row, RowError):
        return {ORIGIN: replace(origin, error=str(row))}
    ours = set(renames.values())
    cells = {renames.get(name, name): cell for name, cell in row.items() if name in renames or name not in ours}
    kept = {name: cells[name] for name in recipe.extra if cells.get(name) is not None}
    return cells | {ORIGIN: origin, EXTRA: kept}


def _limited(stream: Stream, limit: int) -> Stream:
    def rows(skip: int) -> Iterator[tuple[int, Row]]:
        return itertools.islice(stream.rows_from(skip), max(0, limit - skip))

    return replace(stream, total=limit if stream.total is None else min(limit, stream.total), rows_from=rows)
