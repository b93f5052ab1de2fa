"""Putting rows back: a built directory is a stream as well, of all rows that it keeps and that it rejected.

Restoring runs the build again on that stream with one filter off. What comes out is what a build without the filter
would have written from the start (the rows meet the other filters then, duplicates of restored rows included).
"""

from __future__ import annotations

import dataclasses
import heapq
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from data_recipes.builder import Tools
from data_recipes.check import Unreadable
from data_recipes.config import NO_SAMPLE, BuildConfig
from data_recipes.manifest import verify
from data_recipes.recipes.reading import EXTRA, ORIGIN, Origin
from data_recipes.stream import Stream
from data_recipes.types import Recipe, RecipeError, Rejected, Row
from reopold_vl.types import VisualSample


def stored_config(directory: Path, manifest: dict[str, Any], without: Sequence[str]) -> BuildConfig:
    """The settings that a directory was built with, with some filters turned off."""
    known = {field.name: field for field in dataclasses.fields(BuildConfig)}
    values = {name: value for name, value in manifest["settings"].items() if name in known}
    for name in ("map", "benchmarks"):
        values[name] = tuple(values[name])
    for name in ("data_path", "mix", "contamination_index"):
        values[name] = Path(values[name]) if values[name] else None
    config = BuildConfig(**values, output_dir=directory)
    for name in without:
        config = config.without(name)
    return config


def stored_stream(directory: Path, manifest: dict[str, Any]) -> Stream:
    """All rows of a built directory in their first order: those kept, and those rejected."""
    if problems := verify(directory, manifest):
        raise RecipeError(f"{directory}: {problems[0]}; restoring needs the files as they were built")
    sets = [sorted(directory.glob(pattern)) for pattern in ("data/train-*", "rejected/rejected-*", "rejected/share-*")]

    def rows(skip: int) -> Iterator[tuple[int, Any]]:
        streams = [_numbered(paths, extra) for paths in sets]
        for number, row in heapq.merge(*streams, key=lambda pair: pair[0]):
            if number >= skip:
                yield number, row

    extra = tuple(manifest["own_columns"])
    recipe = Recipe(
        name=manifest["recipe"],
        title=manifest["title"],
        licence=manifest["licence"],
        citation=manifest["citation"],
        sources=(),
        splits=(manifest["split"],),
        columns=(),
        read=read_stored,
        forbidden=manifest["forbidden"],
        extra=extra,
    )
    parts = tuple(
        Stream(dataclasses.replace(recipe, name=part["recipe"]), part["origin"], part["revision"], "", None, rows)
        for part in manifest["parts"]
    )
    origin, revision, split = manifest["origin"], manifest["revision"], manifest["split"]
    return Stream(recipe, origin, revision, split, manifest["rows"]["read"], rows, tuple(manifest["notes"]), parts)


def same_benchmarks(tools: Callable[[Path], Tools], manifest: dict[str, Any]) -> Callable[[Path], Tools]:
    """These tools, if their index holds every benchmark that the directory was compared with; else RecipeError.

    With fewer benchmarks at hand than then, rows that were taken out as contaminated would come back unseen. More do
    no harm, and the new manifest names them.
    """
    before = manifest["contamination"].get("against", {})

    def make(work: Path) -> Tools:
        made = tools(work)
        if made.index is not None:
            now = made.index.benches
            if gone := [name for name, entry in before.items() if now.get(name) != entry]:
                raise RecipeError(
                    f"the directory was compared with {', '.join(gone)}, whose data is not at hand as it was then: "
                    "contaminated rows could come back"
                )
        return made

    return make


def read_stored(row: Row) -> VisualSample:
    """The sample of a row of a built directory."""
    return VisualSample(
        id=row["id"],
        question=row["question"],
        answer=row["answer"],
        images=tuple(row["images"] or ()),
        choices=tuple(row["choices"]) if row["choices"] else None,
        source=row["source"],
        system=row["system"],
    )


def swap(directory: Path, built: Path) -> None:
    """Put a freshly built directory's files in the place of the old ones; whatever else lies there stays.

    Killed in the middle, it is finished by being called again (`interrupted` says so).
    """
    old = _aside(built)
    old.mkdir(exist_ok=True)
    for path in sorted(built.iterdir()):
        if (directory / path.name).exists():
            os.replace(directory / path.name, old / path.name)
        os.replace(path, directory / path.name)
    built.rmdir()
    shutil.rmtree(old)


def interrupted(built: Path) -> bool:
    """Whether a swap with this directory was begun and not finished."""
    return _aside(built).exists()


def _aside(built: Path) -> Path:
    return built.with_name(built.name + ".old")


def _numbered(paths: Sequence[Path], extra: Sequence[str]) -> Iterator[tuple[int, Any]]:
    import pyarrow.parquet as parquet

    for path in paths:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=32):
                for row in batch.to_pylist():
                    yield row["number"], _row(row, extra)


def _row(row: dict[str, Any], extra: Sequence[str]) -> Row | Unreadable:
    recipe = row["recipe"] or ""
    if row.get("filter") in NO_SAMPLE:
        rejected = Rejected(row["number"], row["filter"], row["reason"], row["id"] or "")
        return Unreadable(rejected, row["question"] or "", recipe)
    kept = {name: row[name] for name in extra if row.get(name) is not None}
    return {**row, ORIGIN: Origin(recipe), EXTRA: kept}
