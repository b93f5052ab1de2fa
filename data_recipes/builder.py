"""The build: blocks of rows checked by worker processes, judged in order, written shard by shard, then finished.

A shard is committed when its files lie in their place and the journal has its line. What a kill leaves behind is
whole shards and temporary files; the next run goes on at the first row that no shard holds, with the same state.
"""

from __future__ import annotations

import errno
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_recipes.config import BuildConfig, settings_of
from data_recipes.contamination import ContaminationIndex
from data_recipes.filters import MEASURED, CountTokens, Funnel, Judged, PassRates
from data_recipes.journal import WORK_DIR, Journal, Shard
from data_recipes.manifest import MANIFEST, read_manifest
from data_recipes.parallel import BLOCK_ROWS, blocks, checked_blocks
from data_recipes.seen import Seen
from data_recipes.stream import Stream
from data_recipes.types import Recipe, RecipeError

TELL_SECONDS = 60.0  # between two lines on how far a build has come, where there is no terminal for a bar
OWN_FILES = ("data", "rejected", MANIFEST, "README.md", "contact_sheet.png", WORK_DIR)


class DiskFull(RuntimeError):
    """No room left; what is committed stays, and the same command goes on from there."""


@dataclass(frozen=True)
class Tools:
    """What the filters need beside the rows; None for filters that are off."""

    index: ContaminationIndex | None = None
    count_tokens: CountTokens | None = None
    pass_rates: PassRates | None = None


def build(
    stream: Stream, config: BuildConfig, output_dir: Path, tools: Callable[[Path], Tools] = lambda work: Tools()
) -> dict[str, Any]:
    """Build a data set into `output_dir`, or go on with it, and return its manifest.

    `tools` makes what the filters need, given the work directory; it is called after the output directory has proved
    usable. Raises RecipeError where the licence forbids training, something else lies in the directory, an
    interrupted build has other settings, or no row is left; DiskFull where there is no room.
    """
    from data_recipes.finish import finish

    check_licence(stream.recipe, config)
    settings = {
        **settings_of(config),
        "recipe": stream.recipe.name,
        "origin": stream.origin,
        "revision": stream.revision,
    }
    journal = claim(output_dir, settings, resume=config.resume)
    if journal is None:
        print(f"{output_dir} is complete already (--no-resume builds it again)", file=sys.stderr)
        return read_manifest(output_dir)
    with _room(output_dir, journal):
        ready = tools(journal.work)
        seen = Seen(journal.work / "seen.bin", journal.shards[-1].seen if journal.shards else 0)
        try:
            _write_all(stream, config, journal, Funnel(config, seen, ready.index, ready.count_tokens, ready.pass_rates))
        finally:
            seen.close()
        return finish(stream, config, output_dir, journal, ready.index, settings)


def check_licence(recipe: Recipe, config: BuildConfig) -> None:
    """Raise RecipeError where training on the data is forbidden, unless the user takes it upon himself."""
    if recipe.forbidden and not config.i_know:
        raise RecipeError(
            f"{recipe.name}: {recipe.forbidden} (licence: {recipe.licence}); for a use that is allowed, add --i-know "
            "(the manifest records it)"
        )


def claim(output_dir: Path, settings: dict[str, Any], *, resume: bool) -> Journal | None:
    """The journal to write on, begun or resumed; None where the directory holds the finished build already."""
    journal = Journal(output_dir)
    if output_dir.exists() and not output_dir.is_dir():
        raise RecipeError(f"output_dir is {output_dir}: that is a file")
    present = sorted(path.name for path in output_dir.iterdir()) if output_dir.is_dir() else []
    finished = MANIFEST in present
    if present and not journal.begun and not finished and present != [WORK_DIR]:
        raise RecipeError(f"{output_dir} is not empty and holds no data set of ours: choose another --output-dir")
    if resume and journal.begun and journal.resume(settings):
        return journal
    if resume and finished:
        before = read_manifest(output_dir)["settings"]
        other = next((name for name in {**before, **settings} if before.get(name) != settings.get(name)), None)
        if other is None:
            return None
        raise RecipeError(
            f"{output_dir} holds a finished data set with {other}={before.get(other)!r}, now it is "
            f"{settings.get(other)!r}: choose another --output-dir, or build it again with --no-resume"
        )
    for path in (output_dir / name for name in OWN_FILES):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    try:
        journal.begin(settings)
    except (PermissionError, FileExistsError, FileNotFoundError, NotADirectoryError) as error:
        raise RecipeError(f"{output_dir} cannot be written: {error.strerror}") from error
    return journal


def _write_all(stream: Stream, config: BuildConfig, journal: Journal, funnel: Funnel) -> None:
    """Every shard that the journal does not have yet."""
    from tqdm import tqdm

    start = journal.shards[-1].end if journal.shards else 0
    columns = own_columns(stream, config)
    lots = checked_blocks(stream.recipe.read, blocks(stream.rows_from(start)), config.num_proc)
    with tqdm(total=stream.total, initial=start, unit=" rows", disable=None, desc=stream.recipe.name) as bar:
        judged = _judged(lots, funnel, bar, stream)
        while (first := next(judged, None)) is not None:
            shard = _write_shard(first, judged, config, journal, columns, funnel.seen)
            journal.commit(shard)


def own_columns(stream: Stream, config: BuildConfig) -> tuple[str, ...]:
    """Columns of a build beside those that every row has."""
    return (*stream.recipe.extra, *((MEASURED,) if config.pass_rate_model is not None else ()))


def _judged(lots: Iterator[Any], funnel: Funnel, bar: Any, stream: Stream) -> Iterator[Sequence[Judged]]:
    read, told = bar.n, time.monotonic()
    for rows in lots:
        yield funnel.judge(rows)
        bar.update(len(rows))
        read += len(rows)
        if bar.disable and time.monotonic() - told >= TELL_SECONDS:
            of = f" of {stream.total:,}" if stream.total is not None else ""
            print(f"{stream.recipe.name}: {read:,}{of} rows", file=sys.stderr)
            told = time.monotonic()


def _write_shard(
    first: Sequence[Judged],
    more: Iterator[Sequence[Judged]],
    config: BuildConfig,
    journal: Journal,
    columns: Sequence[str],
    seen: Seen,
) -> Shard:
    """Blocks into one shard until it is full. Only whole blocks: a resumed build then begins with a block as well."""
    from data_recipes.writer import ShardWriter, features, row_of

    number, counts, lot, end = len(journal.shards), Counter[str](), first, 0
    with (
        ShardWriter(journal.kept_path(number), features(columns)) as kept,
        ShardWriter(journal.rejected_path(number), features(columns, rejected=True)) as rejected,
    ):
        while lot:
            for one in lot:
                counts[one.rejected.filter if one.rejected else "kept"] += 1
                (rejected if one.rejected else kept).add(row_of(one, columns))
            end = (lot[-1].number // BLOCK_ROWS + 1) * BLOCK_ROWS
            full = kept.rows >= config.shard_rows or kept.bytes + rejected.bytes >= config.shard_megabytes * 2**20
            lot = () if full else next(more, ())
    return Shard(kept.rows, rejected.rows, end, seen.commit(), dict(counts))


@contextmanager
def _room(output_dir: Path, journal: Journal) -> Iterator[None]:
    """A full disk leaves as DiskFull, and no temporary file behind."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        for path in output_dir.rglob("*.tmp"):
            path.unlink(missing_ok=True)
        done = journal.shards[-1].end if journal.shards else 0
        raise DiskFull(
            f"no room left for {output_dir} ({error.strerror}); the first {done:,} rows are safe: make room and run "
            "the same command again to go on"
        ) from error
