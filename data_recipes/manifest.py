"""manifest.json: what a built directory holds, where it is from, and how it can be proved to be untouched."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_recipes.types import RecipeError

MANIFEST = "manifest.json"
FORMAT = 1


@dataclass(frozen=True)
class Census:
    """Counts over the rows of a built data set."""

    rows: int = 0
    images: int = 0
    answer_types: dict[str, int] = field(default_factory=dict)
    sources: dict[str, int] = field(default_factory=dict)
    recipes: dict[str, int] = field(default_factory=dict)
    shared_images: int = 0
    """Rows whose first image an earlier row has as well."""


def read_manifest(directory: Path) -> dict[str, Any]:
    """The manifest of a built directory; raises RecipeError where there is none, or a broken one."""
    path = directory / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"{path}: {error.strerror}; a directory that data_recipes.build made is wanted") from error
    except ValueError as error:
        raise RecipeError(f"{path}: not JSON ({error})") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise RecipeError(f"{path}: not a manifest of format {FORMAT}")
    return manifest


def verify(directory: Path, manifest: Mapping[str, Any]) -> list[str]:
    """What is wrong with the files that the manifest lists: missing, or changed since."""
    problems = []
    for file in manifest["files"]:
        path = directory / file["path"]
        if not path.is_file():
            problems.append(f"{file['path']} is missing")
        elif sha256_of(path) != file["sha256"]:
            problems.append(f"{file['path']} has changed since it was built (sha256 differs from the manifest)")
    listed = {file["path"] for file in manifest["files"]}
    for path in sorted((directory / "data").glob("*.parquet")):
        if (name := path.relative_to(directory).as_posix()) not in listed:
            problems.append(f"{name} is not in the manifest")
    return problems


def describe_files(directory: Path, paths: Iterable[Path]) -> list[dict[str, Any]]:
    """Path, rows, bytes and sha256 of parquet files."""
    import pyarrow.parquet as parquet

    return [
        {
            "path": path.relative_to(directory).as_posix(),
            "rows": parquet.read_metadata(path).num_rows,
            "bytes": path.stat().st_size,
            "sha256": sha256_of(path),
        }
        for path in paths
    ]


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def columns_of(paths: Iterable[Path], names: list[str]) -> Iterator[dict[str, Any]]:
    """These columns of parquet files, row by row; other columns (the images) are not read."""
    import pyarrow.parquet as parquet

    for path in paths:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1000, columns=names):
                yield from batch.to_pylist()


def census(paths: Iterable[Path]) -> Census:
    """Count rows, images, answer types, sources and recipes."""
    rows, images, shared = 0, 0, 0
    types, sources, recipes, seen = Counter[str](), Counter[str](), Counter[str](), set[int]()
    for row in columns_of(paths, ["answer_type", "source", "recipe", "image_sha256"]):
        rows += 1
        types[row["answer_type"] or "none"] += 1
        sources[row["source"] or "none"] += 1
        recipes[row["recipe"] or "none"] += 1
        images += len(row["image_sha256"] or ())
        if row["image_sha256"]:
            first = int(row["image_sha256"][0][:15], 16)
            shared += first in seen
            seen.add(first)
    by_type, by_source, by_recipe = (dict(counter.most_common()) for counter in (types, sources, recipes))
    return Census(rows, images, by_type, by_source, by_recipe, shared)
