"""Data sets of the Hub, by a list of ids that moved over time. Images are never decoded here."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eval.benchmark import Benchmark, BenchmarkError, Source

ALL = "all"
"""The split that means every split of the data set, one after the other ("a+b" means those two)."""

_COMMIT = re.compile(r"@([0-9a-f]{40})/")


@contextmanager
def retries_in_one_line() -> Iterator[None]:
    """Of the lines that huggingface_hub logs on each failed request and its repetition, let the first one through."""
    logger, told = logging.getLogger("huggingface_hub.utils._http"), list[str]()

    def first(record: logging.LogRecord) -> bool:
        message = record.getMessage()
        if "thrown while requesting" not in message and not message.startswith("Retrying in"):
            return True  # such as a rate limit, with how long it waits
        told.append(message)
        record.msg, record.args = f"the Hub does not answer ({message}): trying again for half a minute", ()
        return len(told) == 1

    logger.addFilter(first)
    try:
        yield
    finally:
        logger.removeFilter(first)


class _NotThere(Exception):
    """A data set, configuration or split that does not exist (or is not in the cache, offline)."""


@dataclass(frozen=True)
class Part:
    """Rows that lie together: a file, or a split of a configuration. Relative image paths start at `base_dir`.

    `place` is what only their place tells: it is added to each row as `_split` and `_config` (and the loader adds
    `_row`, counted over all parts), for benchmarks whose rows lack an id or say nothing of where they come from.
    """

    origin: str
    columns: Sequence[str]
    rows: Iterable[Any]
    base_dir: Path | None = None
    place: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Opened:
    """Where a benchmark's rows come from, in parts, in their order. `notes` are for the reader of the score."""

    origin: str
    parts: Sequence[Part]
    revision: str = ""
    notes: tuple[str, ...] = ()


def open_hub(bench: Benchmark, split: str) -> Opened:
    """The first of the benchmark's sources that exists; the following ones are tried only where an id, configuration
    or split is not found (or, offline, not in the cache). Raises BenchmarkError naming all that were tried."""
    if not bench.sources:
        raise BenchmarkError(f"{bench.name} reads your own rows: give --data-path FILE or DIRECTORY")
    missed: list[str] = []
    for source in bench.sources:
        try:
            with retries_in_one_line():
                parts, revision = _open_source(source, split)
        except _NotThere as error:
            missed.append(f"{_name(source, split)}: {error}")
            continue
        return Opened(_name(source, split), parts, revision, tuple(f"not used: {line}" for line in missed))
    tried = "; ".join(missed)
    raise BenchmarkError(f"{bench.name} [{split}] cannot be had from the Hub ({tried}); give local files: --data-path")


def _name(source: Source, split: str) -> str:
    config = (source.config or "").replace("{split}", split)
    return f"{source.id} ({config})" if config else source.id


def _open_source(source: Source, split: str) -> tuple[list[Part], str]:
    """Parts and commit of one source. Raises _NotThere, or BenchmarkError where it exists and fails"""
    import datasets

    parts, revision = [], ""
    with _hub_errors(source):
        config = (source.config or "").replace("{split}", split) or None
        configs = datasets.get_dataset_config_names(source.id) if config == "*" else [config]
        for name in configs:
            splits = datasets.get_dataset_split_names(source.id, name) if split == ALL else split.split("+")
            for one in splits:
                table = datasets.load_dataset(source.id, name, split=one, revision=source.revision)
                assert isinstance(table, datasets.Dataset)  # a split was named, and nothing is streamed
                revision = revision or _commit(table) or source.revision or ""
                place = {"_split": one, "_config": name or ""}
                parts.append(Part(source.id, table.column_names, _encoded_rows(table), None, place))
    return parts, revision


@contextmanager
def _hub_errors(source: Source) -> Iterator[None]:
    """Turns what `datasets` raises into _NotThere (try the next id) or BenchmarkError (stop)."""
    from datasets import config
    from datasets.exceptions import DatasetNotFoundError, DatasetsError

    try:
        yield
    except (OSError, ValueError, DatasetsError) as error:
        line = " ".join(str(error).split())
        # An unknown configuration or split is a ValueError of theirs; offline, what is not in the cache is not there.
        offline = config.HF_HUB_OFFLINE and isinstance(error, OSError)
        if offline or isinstance(error, DatasetNotFoundError | ValueError):
            raise _NotThere(line) from error
        raise BenchmarkError(f"{source.id} cannot be read from the Hub: {line}; try again, or --data-path") from error


def _encoded_rows(table: Any) -> Iterator[dict[str, Any]]:
    """Rows as they are stored: images as {"bytes", "path"}, at any depth."""
    for batch in table.with_format("arrow").iter(batch_size=64):
        yield from batch.to_pylist()


def _commit(table: Any) -> str:
    """The commit that the files came from; "" where the library kept no note of it."""
    for url in table.info.download_checksums or ():
        if match := _COMMIT.search(url):
            return match[1]
    return ""
