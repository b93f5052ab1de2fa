"""The last part of a build: shares, shards under their final names, listings, manifest, card, contact sheet.

Every step can be done again, so a kill here costs nothing either; the work directory goes last.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from data_recipes.balance import balance
from data_recipes.config import FILTERS, BuildConfig
from data_recipes.contamination import ContaminationIndex
from data_recipes.journal import Journal, write_json
from data_recipes.manifest import FORMAT, MANIFEST, Census, census, columns_of, describe_files
from data_recipes.stream import Stream
from data_recipes.types import RecipeError

TEMPLATE_HITS = 20
"""Rows that one benchmark question may take out by its wording alone before it is named as a possible template."""


def finish(
    stream: Stream,
    config: BuildConfig,
    output_dir: Path,
    journal: Journal,
    index: ContaminationIndex | None,
    settings: dict[str, Any],
) -> dict[str, Any]:
    """Put everything in its place and return the manifest. Raises RecipeError where no row is left."""
    from data_recipes.builder import own_columns
    from data_recipes.card import write_card
    from data_recipes.contact_sheet import draw_sheet

    if config.max_share_source < 1 or config.max_share_answer_type < 1:
        _balance_once(config, journal, own_columns(stream, config))
    _move(output_dir, journal)
    shards = sorted((output_dir / "data").glob("train-*.parquet"))
    rejected = sorted((output_dir / "rejected").glob("*.parquet"))
    hits = _list_rejected(output_dir, rejected)
    counted = census(shards)
    manifest = _manifest(stream, config, settings, counted, journal, index, hits)
    manifest["files"] = describe_files(output_dir, [*shards, *rejected])
    write_card(output_dir, manifest)
    if counted.rows:
        draw_sheet(shards, output_dir / "contact_sheet.png", seed=config.seed, title=stream.recipe.title)
    write_json(output_dir / MANIFEST, manifest)
    shutil.rmtree(journal.work)
    if not counted.rows:
        out = ", ".join(f"{name} {number:,}" for name, number in manifest["rows"]["rejected"].items())
        raise RecipeError(f"{output_dir}: no row is left of {manifest['rows']['read']:,} ({out}); see rejected/")
    return manifest


def _balance_once(config: BuildConfig, journal: Journal, columns: tuple[str, ...]) -> None:
    if not (journal.work / "balanced.json").exists() and not (journal.work / "moves.json").exists():
        balance(journal, config, config.seed, columns)


def _move(output_dir: Path, journal: Journal) -> None:
    """Shards to data/ and rejected/ under the Hub's names, empty ones left out. The plan is fixed before the first."""
    import pyarrow.parquet as parquet

    plan = journal.work / "moves.json"
    if not plan.exists():
        moves: list[tuple[str, str]] = []
        balanced = (journal.work / "balanced.json").exists()
        for kind, prefix in (
            ("balanced" if balanced else "kept", "data/train"),
            ("rejected", "rejected/rejected"),
            ("share", "rejected/share"),
        ):
            parts = sorted(journal.work.glob(f"{kind}-*.parquet"))
            filled = [part for part in parts if parquet.read_metadata(part).num_rows]
            for place, part in enumerate(filled):
                moves.append((part.name, f"{prefix}-{place:05d}-of-{len(filled):05d}.parquet"))
        write_json(plan, moves)
    for folder in ("data", "rejected"):
        (output_dir / folder).mkdir(exist_ok=True)
    for name, target in json.loads(plan.read_text(encoding="utf-8")):
        if (journal.work / name).exists():
            os.replace(journal.work / name, output_dir / target)


def _list_rejected(output_dir: Path, paths: list[Path]) -> list[dict[str, Any]]:
    """Write rejected/rejected.jsonl and rejected/contamination.jsonl; the lines of the latter."""
    hits = []

    def lines() -> Iterator[Mapping[str, Any]]:
        for row in columns_of(paths, ["number", "id", "recipe", "filter", "reason", "hits"]):
            for hit in json.loads(row.pop("hits") or "[]"):
                place = {"number": row["number"], "id": row["id"]}
                hits.append({**place, "bench": hit["bench"], "benchmark_id": hit["id"], "by": hit["by"]})
            yield row

    _write_lines(output_dir / "rejected" / "rejected.jsonl", lines())
    _write_lines(output_dir / "rejected" / "contamination.jsonl", iter(hits))
    return hits


def _write_lines(path: Path, rows: Iterator[Mapping[str, Any]]) -> None:
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    os.replace(temporary, path)


def _manifest(
    stream: Stream,
    config: BuildConfig,
    settings: dict[str, Any],
    counted: Census,
    journal: Journal,
    index: ContaminationIndex | None,
    hits: list[dict[str, Any]],
) -> dict[str, Any]:
    from reopold_vl import __version__

    counts = Counter(journal.counts())
    balanced = journal.work / "balanced.json"
    shares = json.loads(balanced.read_text(encoding="utf-8")) if balanced.exists() else {}
    counts.update(shares)
    read = sum(journal.counts().values())
    return {
        "format": FORMAT,
        "version": __version__,
        "recipe": stream.recipe.name,
        "title": stream.recipe.title,
        "origin": stream.origin,
        "revision": stream.revision,
        "split": stream.split,
        "parts": [{"recipe": p.recipe.name, "origin": p.origin, "revision": p.revision} for p in stream.parts],
        "notes": list(stream.notes),
        "licence": stream.recipe.licence,
        "citation": stream.recipe.citation,
        "forbidden": stream.recipe.forbidden,
        "built_against_licence": bool(stream.recipe.forbidden and config.i_know),
        "rows": {
            "read": read,
            "kept": counted.rows,
            "rejected": {name: counts[name] for name in FILTERS if counts[name]},
        },
        **{name: value for name, value in asdict(counted).items() if name != "rows"},
        "own_columns": list(stream.recipe.extra),
        "contamination": _contamination(config, index, hits),
        "settings": settings,
    }


def _contamination(config: BuildConfig, index: ContaminationIndex | None, hits: list[dict[str, Any]]) -> dict[str, Any]:
    if not config.contamination or index is None:
        return {"checked": False}
    from data_recipes.benchmark_index import digest, missing_benchmarks

    alone = Counter((hit["bench"], hit["benchmark_id"]) for hit in hits if hit["by"] == "question")
    templates = [f"{bench} {item}" for (bench, item), rows in alone.items() if rows > TEMPLATE_HITS]
    return {
        "checked": True,
        "against": index.benches,
        "not_checked": missing_benchmarks(index),
        "index_digest": digest(index),
        "hits_by_bench": dict(Counter(hit["bench"] for hit in hits).most_common()),
        "hits_by_evidence": dict(Counter(hit["by"] for hit in hits).most_common()),
        "perhaps_templates": templates,
    }
