"""Counts over any directory of training rows, file by file: what is in it, and what looks wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from data_recipes.check import Unreadable, check_row
from data_recipes.manifest import MANIFEST, read_manifest, verify
from data_recipes.types import Checked
from reopold_vl.answers import choice_index
from reopold_vl.types import VisualSample

EXAMPLES = 5  # of each kind of problem that are named

CountPrompt = Callable[[VisualSample, Sequence[tuple[int, int]]], int]


@dataclass
class Survey:
    """What a pass over the rows found. `problems` maps a kind to the rows that have it (number, first few examples)."""

    rows: int = 0
    images: int = 0
    answer_types: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    characters: list[int] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    problems: dict[str, tuple[int, list[str]]] = field(default_factory=dict)
    examples: list[VisualSample] = field(default_factory=list)

    def report(self, kind: str, what: str) -> None:
        """Count a problem; the first few are named."""
        count, named = self.problems.get(kind, (0, []))
        self.problems[kind] = (count + 1, named if len(named) >= EXAMPLES else [*named, what])


def survey(path: Path, *, count_tokens: CountPrompt | None = None, num_examples: int = 12, seed: int = 0) -> Survey:
    """Look at every row that training would read from `path`, decoding every image.

    Raises DataError where nothing there can be read, RecipeError for a broken manifest.
    """
    from reopold_vl.rows import find_files

    found, random, seen = Survey(), Random(f"inspect/{seed}"), set[tuple[str, ...]]()
    for file in find_files(path):
        for sample in _samples(file, found):
            row = check_row(_as_it_is, found.rows, {"sample": sample})
            found.rows += 1
            if isinstance(row, Unreadable):
                found.report("image that cannot be decoded", f"{sample.id}: {row.rejected.reason}")
                continue
            _count(row, found, seen, count_tokens)
            _keep_example(sample, found, random, num_examples)
    if path.is_dir() and (path / MANIFEST).is_file():
        for problem in verify(path, read_manifest(path)):
            found.report("file that differs from the manifest", problem)
    return found


def quantiles(values: Sequence[float]) -> dict[str, float]:
    """Smallest, median, 95th percentile and largest value; empty for none."""
    if not values:
        return {}
    ordered = sorted(values)
    return {
        "min": ordered[0],
        "median": ordered[len(ordered) // 2],
        "p95": ordered[min(len(ordered) - 1, int(len(ordered) * 0.95))],
        "max": ordered[-1],
    }


def as_json(found: Survey) -> dict[str, Any]:
    """The survey as JSON values."""
    return {
        "rows": found.rows,
        "images": found.images,
        "answer_types": dict(found.answer_types.most_common()),
        "sources": dict(found.sources.most_common()),
        "width": quantiles([width for width, _ in found.sizes]),
        "height": quantiles([height for _, height in found.sizes]),
        "question_characters": quantiles(found.characters),
        "prompt_tokens": quantiles(found.tokens),
        "problems": {kind: {"rows": count, "examples": named} for kind, (count, named) in found.problems.items()},
    }


def _samples(file: Path, found: Survey) -> Sequence[VisualSample]:
    """One file's rows, as training reads them; what it would leave out is reported."""
    from reopold_vl.data import load_samples

    loaded = load_samples(file, require_image=False)
    for skip in loaded.skipped:
        found.report("row that training leaves out", f"{file.name} {skip}")
    return loaded.samples


def _as_it_is(row: Any) -> VisualSample:
    return row["sample"]


def _count(row: Checked, found: Survey, seen: set[tuple[str, ...]], count_tokens: CountPrompt | None) -> None:
    sample = row.sample
    found.images += len(row.image_bytes)
    found.answer_types[row.answer_type or "none"] += 1
    found.sources[sample.source or "none"] += 1
    found.sizes += row.sizes
    found.characters.append(len(sample.question))
    if not row.image_bytes:
        found.report("row without image (left out by training unless --no-data.require-image)", sample.id)
    if not row.answer_normalised:
        found.report("answer that is empty when normalised", f"{sample.id}: {sample.answer!r:.60}")
    if sample.choices and choice_index(sample.answer or "", sample.choices) is None:
        found.report("answer that names none of the choices", f"{sample.id}: {sample.answer!r:.60}")
    key = (*row.image_sha256, row.question_key)
    if key in seen:
        found.report("row that repeats image and question of an earlier one", sample.id)
    seen.add(key)
    if count_tokens is not None:
        try:
            found.tokens.append(count_tokens(sample, row.sizes))
        except ValueError as error:
            found.report("prompt that cannot be encoded", f"{sample.id}: {error}")


def _keep_example(sample: VisualSample, found: Survey, random: Random, most: int) -> None:
    """Reservoir sampling: every row is as likely to be shown."""
    if len(found.examples) < most:
        found.examples.append(sample)
    elif (place := random.randrange(found.rows)) < most:
        found.examples[place] = sample
