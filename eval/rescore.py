"""Score stored responses again: no model, no torch, no benchmark's data; each response carries its problem."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.benches import find_bench
from eval.config import EvalConfig, EvalError, choose
from eval.finish import BASELINE_DIR, Answers, check_exports, read_run
from eval.responses import read_responses
from eval.types import Response


@dataclass(frozen=True)
class File:
    """A file of responses of one model to one benchmark."""

    path: Path
    bench: str
    responses: tuple[Response, ...]
    notes: tuple[str, ...]

    @property
    def is_baseline(self) -> bool:
        return self.path.resolve().parent.name == BASELINE_DIR


def stored_answers(config: EvalConfig) -> tuple[list[Answers], Path, dict[str, Any]]:
    """(answers by benchmark, where the results go, what run.json knows) for the files of `--score`.

    A baseline is a second file of the same benchmark, or the one that a run put beside the first, in baseline/.
    Raises EvalError for a file that is missing, empty or of several models, and for a third file of one benchmark.
    """
    files = [_read(path) for path in _paths(config.score)]
    chosen: dict[str, list[File]] = {}
    for file in files:
        chosen.setdefault(file.bench, []).append(file)
    check_exports(config, list(chosen))
    answers = []
    for name, group in chosen.items():
        bench = find_bench(name)
        choose(config.scorer, bench.graders, f"scorer of {bench.name}")
        ours, theirs = _roles(group)
        info = read_run(_home(ours)).get("benches", {}).get(name, {})
        notes = (*ours.notes, *(theirs.notes if theirs else ()))
        for note in notes:
            print(f"note: {note}")
        answers.append(Answers(bench, ours.responses, theirs.responses if theirs else None, info, notes))
    home = _home(_roles(next(iter(chosen.values())))[0])
    directory = config.output_dir or home
    directory.mkdir(parents=True, exist_ok=True)
    return answers, directory, read_run(home)


def _paths(given: Sequence[Path]) -> list[Path]:
    found: list[Path] = []
    for path in given:
        if path.is_dir():
            inside = sorted(path.glob("responses_*.jsonl"))
            if not inside:
                raise EvalError(f"{path}: the directory holds no responses_*.jsonl")
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise EvalError(f"{path}: no such file or directory")
    return list(dict.fromkeys(found))


def _read(path: Path) -> File:
    stored = read_responses(path)
    if not stored.responses:
        lines = len(stored.broken) + bool(stored.torn)
        why = f" ({lines} lines that are none: {stored.reasons[0]})" if stored.reasons else ""
        raise EvalError(f"{path}: holds no responses{why}")
    for what in ("bench", "model"):
        values = sorted({getattr(response, what) for response in stored.responses})
        if len(values) > 1:
            raise EvalError(f"{path}: holds responses of more than one {what}: {', '.join(values[:4])}")
    seen = set()
    for response in stored.responses:
        place = response.problem.id, response.sample
        if place in seen:
            raise EvalError(f"{path}: problem {place[0]!r}, sample {place[1]} is answered twice, by different settings")
        seen.add(place)
    return File(path, stored.responses[0].bench, stored.responses, tuple(stored.notes(path)))


def _roles(group: Sequence[File]) -> tuple[File, File | None]:
    """(model, baseline) of the files of one benchmark."""
    if len(group) > 2:
        listed = ", ".join(str(file.path) for file in group)
        raise EvalError(f"{len(group)} files of {group[0].bench} ({listed}): allowed are one, or model and baseline")
    if len(group) == 2:
        ours, theirs = sorted(group, key=lambda file: file.is_baseline)
        return ours, theirs
    (ours,) = group
    beside = ours.path.parent / BASELINE_DIR / ours.path.name
    paths = read_run(_home(ours)).get("benches", {}).get(ours.bench, {}).get("paths", {BASELINE_DIR: ""})
    # A baseline that the last run did not ask for is left over from an earlier one.
    return ours, _read(beside) if beside.is_file() and BASELINE_DIR in paths else None


def _home(file: File) -> Path:
    return file.path.parent
