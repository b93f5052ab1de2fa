"""Rows of a benchmark -> Problems: from the Hub, or from local parquet, jsonl or json files. Nothing dropped silently.

Rows are read in file order, so `limit` means the first N usable ones. Images stay encoded; only headers are looked at.
"""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from eval.benchmark import Benchmark, BenchmarkError
from eval.hub import ALL, Opened, Part, open_hub
from eval.types import Problem

_SHARD = re.compile(r"-\d{5}-of-\d{5}.*$")
_USUAL_SPLITS = ("train", "validation", "val", "dev", "test", "testmini")


@dataclass(frozen=True)
class FailedInput:
    """A row that no model can be asked, or whose answer cannot be scored. `row` counts a source's rows from 0."""

    id: str
    row: int
    reason: str

    def __str__(self) -> str:
        return f"row {self.row} ({self.id}): {self.reason}" if self.id else f"row {self.row}: {self.reason}"


@dataclass(frozen=True)
class LoadedProblems:
    """The usable problems of a benchmark in file order, ids unique, and every row that is not among them.

    `origin` is the Hub id with configuration, or the path; `revision` the commit of the Hub data set ("" for files).
    `notes` says in a line each what a reader of the score should know: ids that failed, ids that come twice.
    """

    problems: tuple[Problem, ...]
    failed: tuple[FailedInput, ...]
    origin: str
    split: str
    revision: str = ""
    notes: tuple[str, ...] = ()

    @property
    def without_image(self) -> int:
        """How many problems are asked without a picture."""
        return sum(not problem.images for problem in self.problems)

    def summary(self, examples: int = 3) -> str:
        """One line for the log: where from, how many, what failed and why."""
        listed = "; ".join(map(str, self.failed[:examples])) + ("; ..." if len(self.failed) > examples else "")
        failed = f", {len(self.failed)} failed inputs ({listed})" if self.failed else ""
        blind = f", {self.without_image} without image" if self.without_image else ""
        return f"{self.origin} [{self.split}]: {len(self.problems)} problems{blind}{failed}"


def load_problems(
    bench: Benchmark,
    *,
    split: str | None = None,
    data_path: str | Path | None = None,
    limit: int | None = None,
    allow_url: bool = False,
) -> LoadedProblems:
    """The problems of a split (the benchmark's first one if not told), at most `limit` of them.

    Without `data_path` they come from the Hub (or are computed, where the benchmark is). `data_path` is a .parquet,
    .jsonl or .json file, or a directory laid out as on the Hub: files named after their split (data/testmini-00000-of-
    00001.parquet), a folder for each configuration where there are several. Rows with an unreadable image, without
    gold answer or that the benchmark cannot read become `failed`. With `allow_url` images are fetched over http(s).

    Raises BenchmarkError for an unknown or hidden split, a missing path, an unreadable file, a missing column (naming
    it and those found), no rows, rows none of which is usable, and ids of which none can be had from the Hub.
    """
    split = check_split(bench, split)
    if limit is not None and limit < 1:
        raise BenchmarkError(f"limit={limit} must be at least 1")
    if data_path is None and bench.rows is not None:
        return LoadedProblems(tuple(bench.rows(split)[:limit]), (), f"computed ({bench.name})", split)
    from reopold_vl.rows import DataError

    try:
        opened = open_hub(bench, split) if data_path is None else open_files(Path(data_path), bench, split)
        return _collect(bench, split, opened, limit, allow_url)
    except DataError as error:
        raise BenchmarkError(f"{bench.name}: {error}") from error


def check_split(bench: Benchmark, split: str | None) -> str:
    """The split to load. Raises BenchmarkError for one that is hidden or unknown (benchmarks of one's own have any)."""
    if split is None or split in bench.splits:
        return split or bench.splits[0]
    usable = ", ".join(bench.splits)
    if split in bench.hidden_splits:
        raise BenchmarkError(
            f"{bench.name}: the answers of split {split!r} are hidden; it cannot be scored: use {usable}"
        )
    if not bench.sources and bench.rows is None:
        return split
    near = difflib.get_close_matches(split, bench.splits, n=1)
    raise BenchmarkError(
        f"{bench.name}: unknown split {split!r}; "
        + (f"did you mean {near[0]!r}? " if near else "")
        + f"it has {usable}"
    )


def open_files(path: Path, bench: Benchmark, split: str) -> Opened:
    """The rows of a local file or directory, with `_split` and `_config` of each from its file's name and folder.

    Where parquet and jsonl files lie side by side, as when images were unpacked beside the table, the parquet is read.
    """
    from reopold_vl.rows import find_files, not_read, read_json, read_parquet

    parts, notes = list[Part](), list[str]()
    for config, folder in _config_folders(path, bench, split):
        files = find_files(folder, prefix="", prefer=".parquet")
        if files != [folder] and (note := not_read(files, files[0].parent.glob("*.jsonl"))):
            notes.append(note)
        for file in _files_of(files, folder, bench, split):
            columns, rows = read_parquet(file) if file.suffix == ".parquet" else read_json(file)
            parts.append(Part(str(file), columns, rows, file.parent, {"_split": split_of(file), "_config": config}))
    return Opened(str(path), parts, notes=tuple(notes))


def split_of(file: Path) -> str:
    """The split that a file of the Hub's layout holds: "testmini" of testmini-00000-of-00001-725687bf.parquet."""
    return _SHARD.sub("", file.stem)


def _config_folders(path: Path, bench: Benchmark, split: str) -> list[tuple[str, Path]]:
    """(configuration, folder) to read: the benchmark's own where the directory has it, otherwise the path itself."""
    for source in bench.sources if path.is_dir() else ():
        if source.config == "*":
            folders = sorted(child for child in path.iterdir() if child.is_dir() and _has_data(child))
            if any(child.name != "data" for child in folders):
                return [(child.name, child) for child in folders]
        elif source.config:
            name = source.config.replace("{split}", split)
            if (path / name).is_dir():
                return [(name, path / name)]
    return [("", path)]


def _has_data(folder: Path) -> bool:
    return any(child.suffix in (".parquet", ".jsonl") for child in folder.iterdir())


def _files_of(files: Sequence[Path], folder: Path, bench: Benchmark, split: str) -> Sequence[Path]:
    """Those of the wanted split. A name that says nothing about splits is taken as it is; another split's is not."""
    if files == [folder] or split == ALL:
        return files
    found, wanted = sorted({split_of(file) for file in files}), split.split("+")
    known = {*bench.splits, *bench.hidden_splits, *_USUAL_SPLITS} if bench.sources else set()
    if len(found) == 1 and found[0] not in known:
        return files
    if missing := [name for name in wanted if name not in found]:
        raise BenchmarkError(
            f"{bench.name}: {folder} has no files of split {' or '.join(missing)}; it has {', '.join(found)}"
        )
    return [file for name in wanted for file in files if split_of(file) == name]


def _collect(bench: Benchmark, split: str, opened: Opened, limit: int | None, allow_url: bool) -> LoadedProblems:
    problems, failed, unanswered = list[Problem](), list[FailedInput](), 0
    seen, twice = set[str](), 0
    for number, outcome in enumerate(_read_rows(bench, opened, allow_url)):
        if isinstance(outcome, FailedInput):
            failed.append(outcome)
        elif outcome.answer is None:
            unanswered += 1
            failed.append(FailedInput(outcome.id, number, "no gold answer"))
        else:
            if outcome.id in seen:
                outcome, twice = replace(outcome, id=f"{outcome.id}#{number}"), twice + 1
            seen.add(outcome.id)
            problems.append(outcome)
        if len(problems) == limit:
            break
    place = f"{bench.name}: {opened.origin} [{split}]"
    if not problems and not failed:
        raise BenchmarkError(f"{place} has no rows")
    if not problems and unanswered == len(failed):
        usable = ", ".join(bench.splits)
        raise BenchmarkError(f"{place} has no gold answers, so it cannot be scored; splits with answers: {usable}")
    if not problems:
        raise BenchmarkError(f"{place} has no usable row: {'; '.join(map(str, failed[:3]))}")
    notes = opened.notes + ((f"{twice} rows had an id that came before: #row was added",) if twice else ())
    return LoadedProblems(tuple(problems), tuple(failed), opened.origin, split, opened.revision, notes)


def _read_rows(bench: Benchmark, opened: Opened, allow_url: bool) -> Iterator[Problem | FailedInput]:
    from reopold_vl.images import ImageError, image_reference, image_size
    from reopold_vl.rows import DataError

    number = -1
    for part in opened.parts:
        for row in _with_columns(bench, part.origin, part.columns, part.rows):
            number, name = number + 1, ""
            try:
                if not isinstance(row, dict):
                    raise row if isinstance(row, DataError) else DataError(f"a row must be an object, not {row!r:.60}")
                problem = bench.read({**part.place, "_row": number, **row})
                name = problem.id
                cells = problem.images
                images = tuple(image_reference(cell, allow_url=allow_url, base_dir=part.base_dir) for cell in cells)
                for image in images:
                    image_size(image)  # the header alone: a damaged file is found now, not in the middle of a run
                yield replace(problem, images=images)
            except (BenchmarkError, DataError, ImageError) as error:
                yield FailedInput(name, number, str(error))


def _with_columns(bench: Benchmark, origin: str, columns: Sequence[str], rows: Iterable[Any]) -> Iterable[Any]:
    """The rows, once the columns are there (those of the first row where the source does not say)."""
    rows = iter(rows)
    if not columns:
        first = next(rows, None)
        rows = itertools.chain([] if first is None else [first], rows)
        columns = list(first) if isinstance(first, dict) else []
    for names in bench.columns if columns else ():
        if not any(name in columns for name in names):
            wanted, found = " or ".join(names), ", ".join(columns)
            raise BenchmarkError(f"{bench.name}: {origin} has no column {wanted}; found: {found}")
    return rows
