"""A recipe's rows on the Hub: the first of its ids that exists; parquet files read where they lie, others streamed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from data_recipes.types import HubSource, Recipe, RecipeError
from eval.hub import retries_in_one_line


@dataclass(frozen=True)
class HubRows:
    """Rows found on the Hub: at which id and commit; in `files` (paths or hf:// addresses), or streamed.

    `columns`, `total` and `rows_from` are there where the rows are streamed by `datasets`. `notes` name the ids before
    it that were not to be had.
    """

    id: str
    revision: str
    files: tuple[Path | str, ...] = ()
    archives: tuple[Path, ...] = ()
    columns: tuple[str, ...] = ()
    total: int | None = None
    rows_from: Callable[[int], Iterator[dict[str, Any]]] | None = None
    notes: tuple[str, ...] = ()


def open_hub(recipe: Recipe, split: str) -> HubRows:
    """The rows of a split at the first of the recipe's ids that exists; nothing is downloaded but what is needed.

    Only "not found" (moved, gated, empty, a split or file gone; offline, not in the cache) goes on to the next id.
    Raises RecipeError naming every id that was tried, or the one that failed for another reason (no network, an
    unreadable repository).
    """
    from datasets import config, exceptions
    from datasets.data_files import EmptyDatasetError
    from huggingface_hub import errors

    moved = (exceptions.DatasetNotFoundError, exceptions.DataFilesNotFoundError, EmptyDatasetError)
    gone = (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.RemoteEntryNotFoundError)
    tried = []
    for source in recipe.sources:
        try:
            with retries_in_one_line():
                found = _download(source) if source.files else _find(source, split)
            return replace(found, notes=tuple(f"not used: {line}" for line in tried))
        except (*moved, *gone) as error:
            tried.append(f"{source.id} ({_reason(error)})")
        except (OSError, ValueError, RuntimeError, exceptions.DatasetsError, errors.HTTPError) as error:
            if config.HF_HUB_OFFLINE and isinstance(error, OSError):
                tried.append(f"{source.id} ({_reason(error)})")
                continue
            raise RecipeError(f"{source.id}: {_reason(error)}; {_way_out(recipe)}") from error
    raise RecipeError(f"{recipe.name}: not found on the Hub as {', '.join(tried)}; {_way_out(recipe)}")


def _find(source: HubSource, split: str) -> HubRows:
    """Let `datasets` say which files make up the split; parquet files, which nearly all are, need no more of it:
    read where they lie, they can be entered anywhere and memory stays flat."""
    import datasets
    from datasets.exceptions import DataFilesNotFoundError

    builder = datasets.load_dataset_builder(source.id, source.config, revision=source.revision)
    revision, by_split = str(builder.hash or ""), builder.config.data_files or {}
    if by_split and split not in by_split:
        there = ", ".join(map(str, by_split))
        raise DataFilesNotFoundError(f"no split {split} there, only {there}")
    found = [str(file) for file in by_split.get(split, ())]
    if found and all(file.endswith(".parquet") and "::" not in file for file in found):
        return HubRows(source.id, revision, tuple(file if "://" in file else Path(file) for file in found))
    return _stream(source, split, builder, revision)


def _stream(source: HubSource, split: str, builder: Any, revision: str) -> HubRows:
    from huggingface_hub import errors

    stream = builder.as_streaming_dataset(split=split).decode(False)  # encoded images stay bytes
    info = (builder.info.splits or {}).get(split)

    def rows_from(skip: int) -> Iterator[dict[str, Any]]:
        number = skip
        try:
            for row in stream.skip(skip) if skip else stream:
                yield row
                number += 1
        except (OSError, ValueError, RuntimeError, errors.HTTPError) as error:
            raise RecipeError(f"{source.id}: the stream broke after row {number}: {_reason(error)}") from error

    columns = tuple(stream.column_names or next(iter(stream), {}))
    total = info.num_examples if info else None
    return HubRows(source.id, revision, columns=columns, total=total, rows_from=rows_from)


def _download(source: HubSource) -> HubRows:
    from huggingface_hub import hf_hub_download

    paths = [
        Path(hf_hub_download(source.id, name, repo_type="dataset", revision=source.revision)) for name in source.files
    ]
    parts = paths[0].parts
    revision = parts[parts.index("snapshots") + 1] if "snapshots" in parts else ""
    return HubRows(
        source.id,
        revision,
        files=tuple(path for path in paths if path.suffix != ".zip"),
        archives=tuple(path for path in paths if path.suffix == ".zip"),
    )


def _way_out(recipe: Recipe) -> str:
    return f"with the rows on disk: --data-path FILE_OR_DIRECTORY (columns {_columns(recipe)})"


def _columns(recipe: Recipe) -> str:
    return ", ".join(" or ".join(names) for names in recipe.columns)


def _reason(error: BaseException) -> str:
    line = " ".join(str(error).split()) or type(error).__name__
    return line if len(line) <= 300 else f"{line[:300]}..."
