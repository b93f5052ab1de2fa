"""What `python -m eval.run` left behind, loaded for the page: figures, and every item with both answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from demo.errors import DemoError
from demo.places import Places

if TYPE_CHECKING:
    from PIL.Image import Image

    from eval.score import Summary
    from eval.types import Graded, Problem

MAX_FILE_BYTES = 512 * 2**20


@dataclass(frozen=True)
class Item:
    """One problem with the graded answer of the model and, where there is one, of the baseline (first samples)."""

    problem: Problem
    model: Graded
    baseline: Graded | None

    @property
    def sides(self) -> tuple[Graded, ...]:
        return (self.model,) if self.baseline is None else (self.model, self.baseline)


@dataclass(frozen=True)
class Evaluation:
    """One benchmark of an evaluation directory, scored again by the strict rules.

    `notes` tell what was left out. `info` is run.json's entry for the benchmark ({} where it is lost).
    """

    directory: Path
    bench: str
    model: Summary
    baseline: Summary | None
    items: tuple[Item, ...]
    notes: tuple[str, ...]
    info: dict[str, Any]

    @property
    def summaries(self) -> tuple[Summary, ...]:
        return (self.model,) if self.baseline is None else (self.model, self.baseline)


def _right(item: Item, side: str) -> bool:
    graded = getattr(item, side)
    return graded is not None and graded.correct


FILTERS: dict[str, Callable[[Item], bool]] = {
    "all": lambda item: True,
    "student wrong, teacher right": lambda item: not _right(item, "model") and _right(item, "baseline"),
    "student right, teacher wrong": lambda item: (
        _right(item, "model") and item.baseline is not None and not item.baseline.correct
    ),
    "both wrong": lambda item: not any(graded.correct for graded in item.sides),
    "both right": lambda item: all(graded.correct for graded in item.sides),
    "no answer recognised": lambda item: any(
        g.verdict is not None and g.verdict.status != "answered" for g in item.sides
    ),
    "cut off": lambda item: any(graded.response.finish_reason == "length" for graded in item.sides),
    "failed inputs": lambda item: any(graded.verdict is None for graded in item.sides),
}


def benches_in(directory: Path) -> list[str]:
    """Names of the benchmarks whose responses lie in the directory."""
    return sorted(file.stem.removeprefix("responses_") for file in directory.glob("responses_*.jsonl"))


def load(directory: Path, bench: str, places: Places) -> Evaluation:
    """Read and score; kept in memory until a file changes. Raises DemoError for files that cannot be used."""
    if bench not in benches_in(directory):
        raise DemoError(f"benchmark {bench!r:.60}: found are {', '.join(benches_in(directory)) or 'none'}")
    paths = [directory / f"responses_{bench}.jsonl", directory / "baseline" / f"responses_{bench}.jsonl"]
    for path in paths:
        places.require(path)
        if path.exists() and path.stat().st_size > MAX_FILE_BYTES:
            raise DemoError(f"{path.name}: {path.stat().st_size / 2**20:.0f} MB; allowed are {MAX_FILE_BYTES // 2**20}")
    stamps = tuple(path.stat().st_mtime_ns if path.exists() else 0 for path in paths)
    return _load(directory, bench, stamps)


@lru_cache(maxsize=4)
def _load(directory: Path, bench: str, stamps: tuple[int, ...]) -> Evaluation:
    from eval.benches import find_bench
    from eval.responses import read_responses
    from eval.score import grade, summarise

    found = find_bench(bench)
    sides: list[list[Graded]] = []
    notes: list[str] = []
    for path in (directory / f"responses_{bench}.jsonl", directory / "baseline" / f"responses_{bench}.jsonl"):
        stored = read_responses(path)
        notes += [note.replace(f"{directory}/", "") for note in stored.notes(path)]
        sides.append(grade(found, stored.responses, "strict") if stored.responses else [])
    ours, theirs = sides
    if not ours:
        raise DemoError(f"responses_{bench}.jsonl: holds no response yet")
    other = {graded.response.problem.id: graded for graded in reversed(theirs)}
    first = {graded.response.problem.id: graded for graded in reversed(ours)}
    order = dict.fromkeys(graded.response.problem.id for graded in ours)
    items = tuple(Item(first[name].response.problem, first[name], other.get(name)) for name in order)
    return Evaluation(
        directory=directory,
        bench=bench,
        model=summarise(found, ours, "strict"),
        baseline=summarise(found, theirs, "strict") if theirs else None,
        items=items,
        notes=tuple(notes),
        info=_info(directory / "run.json", bench),
    )


def _info(path: Path, bench: str) -> dict[str, Any]:
    try:
        info = json.loads(path.read_text(encoding="utf-8"))["benches"][bench]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return info if isinstance(info, dict) else {}


def picked(evaluation: Evaluation, condition: str) -> list[Item]:
    """The items for which the filter holds; raises DemoError for an unknown filter."""
    if condition not in FILTERS:
        raise DemoError(f"filter {condition!r:.60}: allowed are {', '.join(FILTERS)}")
    return [item for item in evaluation.items if FILTERS[condition](item)]


def images_of(evaluation: Evaluation, item: Item, places: Places) -> list[Image]:
    """The problem's pictures, drawn again or read from the data that the run used; none where that is out of reach."""
    from demo.picture import read_picture

    try:
        return [read_picture(image) for image in _sources(evaluation, places).get(item.problem.id, ())]
    except DemoError:
        return []


def _sources(evaluation: Evaluation, places: Places) -> dict[str, tuple[Any, ...]]:
    """Images of all problems by id; {} where the run's data lie outside of the readable directories or are gone."""
    origin = str(evaluation.info.get("origin") or "")
    if evaluation.bench != "embedded":
        if not origin or not Path(origin).exists():
            return {}
        try:
            places.require(Path(origin))
        except DemoError:
            return {}
    return _all_images(evaluation.bench, evaluation.info.get("split"), origin, len(evaluation.items))


@lru_cache(maxsize=2)
def _all_images(bench: str, split: str | None, origin: str, limit: int) -> dict[str, tuple[Any, ...]]:
    from eval.benches import find_bench
    from eval.benchmark import BenchmarkError
    from eval.load import load_problems

    try:
        data_path = None if bench == "embedded" else origin
        loaded = load_problems(find_bench(bench), split=split, data_path=data_path, limit=limit)
    except (BenchmarkError, OSError):
        return {}
    return {problem.id: problem.images for problem in loaded.problems}


def as_json(evaluation: Evaluation, condition: str, position: float) -> dict[str, Any]:
    """Figures of both sides, how many items the filter leaves, and the one at `position` (from 1), if there is one."""
    items = picked(evaluation, condition)
    if position not in range(1, 2**31):
        raise DemoError(f"position is {position!r:.40}: allowed are whole numbers from 1")
    item = items[int(position) - 1] if position <= len(items) else None
    return {
        "benchmark": evaluation.bench,
        "sides": [
            {
                "model": summary.model,
                "accuracy": summary.accuracy.value if summary.accuracy else None,
                "interval": list(summary.accuracy.interval) if summary.accuracy else None,
                "problems": summary.accuracy.problems if summary.accuracy else 0,
                "mean_seconds": summary.seconds,
                "mean_tokens": summary.tokens,
            }
            for summary in evaluation.summaries
        ],
        "filter": condition,
        "items": len(items),
        "item": None if item is None else _item_json(item),
    }


def _item_json(item: Item) -> dict[str, Any]:
    return {
        "id": item.problem.id,
        "question": item.problem.question,
        "gold": item.problem.answer,
        "answers": [
            {
                "model": graded.response.model,
                "text": graded.response.text,
                "extraction": graded.verdict.extraction if graded.verdict else None,
                "correct": graded.correct,
                "finish_reason": graded.response.finish_reason,
            }
            for graded in item.sides
        ],
    }
