"""What the exporters share: one answer to each problem of one benchmark, written whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.types import Graded
from reopold_vl.runlog import replace_text

Row = dict[str, Any]


class ExportError(ValueError):
    """Answers that a format cannot hold, or a file that is not of the format; one line saying why."""


@dataclass(frozen=True)
class Exporter:
    """A submission format: which benchmarks it takes (none named: all), and how rows become a file and back.

    `row` makes a row of one graded answer; `encode` the file's text; `decode` rows of that text, raising ValueError
    where it is of another form. `disagrees` is true for rows on which the official program, run on this file, would
    decide otherwise than our scorer did.
    """

    name: str
    benches: tuple[str, ...]
    file_name: str
    row: Callable[[Graded], Row]
    encode: Callable[[Sequence[Row]], str]
    decode: Callable[[str], list[Row]]
    disagrees: Callable[[Row], bool] = lambda row: False

    def check(self, bench: str) -> None:
        """Raise ExportError, naming the benchmarks allowed, where this format is not for `bench`."""
        if self.benches and bench not in self.benches:
            raise ExportError(f"export {self.name} is not for benchmark {bench}: allowed is {', '.join(self.benches)}")

    def path(self, directory: Path, bench: str) -> Path:
        """Where the answers to `bench` go, under the name that the official program expects."""
        return directory / self.file_name.format(bench=bench)

    def write(self, graded: Sequence[Graded], path: str | Path) -> list[str]:
        """Write the first sample of each problem; one line for each thing that the reader should know.

        A problem that could not be shown to the model is written with an empty answer: the official programs count
        it as wrong. Raises ExportError for no answers, another benchmark, or two answers with the same id and sample.
        """
        if not graded:
            raise ExportError(f"export {self.name}: there are no answers to write")
        for bench in dict.fromkeys(item.response.bench for item in graded):
            self.check(bench)
        first = [item for item in graded if item.response.sample == 0]
        ids = [item.response.problem.id for item in first]
        if len(set(ids)) < len(ids):
            twice = next(name for name in ids if ids.count(name) > 1)
            raise ExportError(f"export {self.name}: id {twice!r} has several answers, the format holds one for each id")
        rows = [self.row(item) for item in first]
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        replace_text(target, self.encode([_storable(row) for row in rows]))
        failed = sum(item.verdict is None for item in first)
        differ = sum(map(self.disagrees, rows))
        notes = {
            f"{len(graded) - len(first)} further samples are left out: the format holds one answer a problem": len(
                graded
            )
            - len(first),
            f"{failed} problems that could not be shown to the model have an empty answer": failed,
            f"on {differ} rows the official program decides otherwise than our scorer": differ,
        }
        return [f"export {self.name}: {note}" for note, count in notes.items() if count]

    def read(self, path: str | Path) -> list[Row]:
        """The rows of such a file; raises ExportError where it is none."""
        try:
            # Not through universal newlines: carriage returns inside answers are theirs.
            return self.decode(Path(path).read_bytes().decode("utf-8"))
        except (ValueError, LookupError, TypeError) as error:
            raise ExportError(f"{path}: not a file of export {self.name}: {error}") from None


def json_text(content: Any) -> str:
    """Readable JSON; raises ValueError for NaN, which JSON lacks."""
    return json.dumps(content, ensure_ascii=False, indent=2, allow_nan=False) + "\n"


def rows_of(content: Any) -> list[Row]:
    """`content` if it is a list of objects; raises ValueError."""
    if not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
        raise ValueError("expected a list of objects")
    return content


def answer_text(item: Graded) -> str:
    """The extracted answer, "" where there is none."""
    return (item.verdict.extraction or "") if item.verdict else ""


def _storable(value: Any) -> Any:
    """The same without lone surrogates, which UTF-8 cannot hold, wherever texts are nested; NaN becomes None."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, Mapping):
        return {_storable(key): _storable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_storable(item) for item in value]
    return None if isinstance(value, float) and value != value else value
