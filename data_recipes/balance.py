"""No source and no answer type above its share: decided when all rows are known, drawn by seed, not by order."""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data_recipes.config import Filters
from data_recipes.journal import Journal, write_json
from data_recipes.manifest import columns_of

LIMITS = (("share_source", "source", "max_share_source"), ("share_answer_type", "answer_type", "max_share_answer_type"))


def quotas(counts: Mapping[str, int], share: float) -> dict[str, int]:
    """How many of each may stay so that none has more than `share` of what stays; the others keep all they have.

    Fewer than 1 / share kinds cannot keep within it: then all of them end up equal.
    """
    share, allowed = max(share, 1 / max(len(counts), 1)), dict(counts)
    while True:
        most = math.floor(share * sum(allowed.values()) + 1e-9)
        fewer = {name: min(count, most) for name, count in allowed.items()}
        if fewer == allowed:
            return allowed
        allowed = fewer


def choose(rows: list[tuple[int, str, str]], filters: Filters, seed: int) -> dict[int, str]:
    """Rows (number, source, answer type) that have to go: number -> filter. Which ones is drawn by the seed."""
    out: dict[int, str] = {}
    order = {number: hashlib.blake2b(f"{seed}/{number}".encode(), digest_size=8).digest() for number, _, _ in rows}
    while True:
        before = len(out)
        for place, (name, _, setting) in enumerate(LIMITS, 1):
            if (share := getattr(filters, setting)) == 1:
                continue
            groups: dict[str, list[int]] = defaultdict(list)
            for row in rows:
                if row[0] not in out:
                    groups[str(row[place])].append(row[0])
            allowed = quotas({kind: len(numbers) for kind, numbers in groups.items()}, share)
            for kind, numbers in groups.items():
                for number in sorted(numbers, key=order.__getitem__)[allowed[kind] :]:
                    out[number] = name
        if len(out) == before:
            return out


def balance(journal: Journal, filters: Filters, seed: int, columns: tuple[str, ...]) -> Counter[str]:
    """Rewrite the kept shards as `balanced-*` without the rows that go (to `share-*`); rows out, by filter."""
    parts = [journal.kept_path(number) for number in range(len(journal.shards))]
    rows = [
        (row["number"], row["source"] or "", row["answer_type"] or "")
        for row in columns_of(parts, ["number", "source", "answer_type"])
    ]
    out = choose(rows, filters, seed)
    for number, part in enumerate(parts):
        _rewrite(part, journal.work / f"balanced-{number:05d}.parquet", number, out, filters, columns)
    counts = Counter(out.values())
    write_json(journal.work / "balanced.json", dict(counts))
    return counts


def _rewrite(
    part: Path, target: Path, number: int, out: Mapping[int, str], filters: Filters, columns: tuple[str, ...]
) -> None:
    import pyarrow.parquet as parquet

    from data_recipes.writer import GROUP_ROWS, ShardWriter, features

    settings = {name: (column, getattr(filters, setting)) for name, column, setting in LIMITS}
    aside = target.with_name(f"share-{number:05d}.parquet")
    with (
        parquet.ParquetFile(part) as file,
        ShardWriter(target, features(columns)) as kept,
        ShardWriter(aside, features(columns, rejected=True)) as rejected,
    ):
        for batch in file.iter_batches(batch_size=GROUP_ROWS):
            for row in batch.to_pylist():
                if (name := out.get(row["number"])) is None:
                    kept.add(row)
                else:
                    rejected.add({**row, "filter": name, "reason": _reason(row, *settings[name])})


def _reason(row: Mapping[str, Any], column: str, share: float) -> str:
    return f"{column} {row[column]!r} has more than {share:.0%} of the rows"
