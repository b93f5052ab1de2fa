"""How far a scorer can be trusted: its verdicts against the published ones on real model outputs.

    python -m eval.conformance mathvista_dev.jsonl logicvista_dev.jsonl --json report.json

The benchmark is told by the beginning of a file's name. Each row is a row of the benchmark with `response` and, where
there is one, the official verdict in `true_false_current` or `true_false`; files without it report accuracy alone.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from eval.benches import BENCHES
from eval.benchmark import Benchmark, Grader
from eval.types import Problem, Scorer, Verdict

SHOWN_BAD_LINES = 5


class ConformanceError(ValueError):
    """A file that cannot be compared; one line saying why."""


@dataclass(frozen=True)
class Row:
    """One stored output: its problem, both scorers' verdicts, the official one (None: not given) and its breakdowns."""

    problem: Problem
    verdicts: Mapping[Scorer, Verdict]
    official: bool | None
    path: str
    model: str
    answer_type: str

    @property
    def grounded(self) -> bool:
        """Whether the official verdict rests on an answer and not on the nearest option to something else."""
        return self.path != "levenshtein"


@dataclass
class Contents:
    """The rows of a file, and the lines that are none."""

    benchmark: str
    rows: list[Row] = field(default_factory=list)
    bad_lines: list[str] = field(default_factory=list)


def read_file(path: Path) -> Contents:
    """Grade every row of a file with both scorers. Raises ConformanceError for a file that cannot be read or told."""
    benchmark = _benchmark(path)
    contents = Contents(benchmark.name)
    try:
        # Iterating splits at line feeds only; str.splitlines would also split at U+2028 inside an answer.
        with path.open(encoding="utf-8", newline="\n") as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                try:
                    contents.rows.append(_row(benchmark, json.loads(line)))
                except ValueError as error:
                    contents.bad_lines.append(f"line {number}: {str(error)[:200]}")
    except (OSError, UnicodeDecodeError) as error:
        raise ConformanceError(f"cannot read {path}: {error}") from None
    if not contents.rows:
        raise ConformanceError(f"{path}: no row could be read ({'; '.join(contents.bad_lines[:1]) or 'empty file'})")
    return contents


def _benchmark(path: Path) -> Benchmark:
    if not path.is_file():
        raise ConformanceError(f"{path}: no such file")
    names = [name for name in BENCHES if path.name.lower().startswith(name)]
    if not names:
        raise ConformanceError(f"{path.name}: the file's name must begin with one of {', '.join(BENCHES)}")
    return BENCHES[max(names, key=len)]


def _row(benchmark: Benchmark, row: Any) -> Row:
    if not isinstance(row, dict):
        raise ConformanceError(f"a row must be a JSON object, not {type(row).__name__}")
    if not isinstance(row.get("response"), str):
        raise ConformanceError(f"response must be a text, not {row.get('response')!r:.40}")
    problem = benchmark.read(row)
    official = row.get("true_false_current", row.get("true_false"))
    if official is not None and not isinstance(official, bool):
        raise ConformanceError(f"true_false must be true, false or null, not {official!r:.40}")
    return Row(
        problem=problem,
        verdicts={name: _verdict(grader, problem, row["response"]) for name, grader in benchmark.graders.items()},
        official=official,
        path=str(row.get("official_path") or ""),
        model=str(row.get("model") or "unnamed"),
        answer_type=str(row.get("answer_type") or row.get("ans_type") or problem.kind),
    )


def _verdict(grader: Grader, problem: Problem, response: str) -> Verdict:
    if problem.answer is None:  # published results keep such rows, and count them as wrong
        return Verdict(None, "no gold answer", False, "unparsed")
    return grader(problem, response)


def figures(rows: Sequence[Row], scorer: Scorer) -> dict[str, Any]:
    """Agreement and accuracies (shares of 1; None where there is nothing to share) of one scorer over rows."""
    judged = [row for row in rows if row.official is not None]
    grounded = [row for row in judged if row.grounded]
    return {
        "rows": len(rows),
        "grounded_rows": len(grounded),
        "agreement": _share(judged, lambda row: row.verdicts[scorer].correct == row.official),
        "grounded_agreement": _share(grounded, lambda row: row.verdicts[scorer].correct == row.official),
        "accuracy": _share(rows, lambda row: row.verdicts[scorer].correct),
        "official_accuracy": _share(judged, lambda row: bool(row.official)),
        "unparsed": _share(rows, lambda row: row.verdicts[scorer].status == "unparsed"),
        "refusal": _share(rows, lambda row: row.verdicts[scorer].status == "refusal"),
    }


def _share(rows: Sequence[Row], holds: Callable[[Row], bool]) -> float | None:
    return sum(map(holds, rows)) / len(rows) if rows else None


def report(contents: Contents, scorer: Scorer) -> dict[str, Any]:
    """The JSON report of one file: `scorer`'s figures at the top, then breakdowns, confusion, both scorers."""
    rows = contents.rows
    return {
        "benchmark": contents.benchmark,
        "scorer": scorer,
        **figures(rows, scorer),
        "bad_lines": len(contents.bad_lines),
        "bad_line_examples": contents.bad_lines[:SHOWN_BAD_LINES],
        "by_answer_type": _by(rows, scorer, lambda row: row.answer_type),
        "by_model": _by(rows, scorer, lambda row: row.model),
        "confusion": confusion(rows, scorer),
        "scorers": {name: figures(rows, name) for name in get_args(Scorer)},
    }


def _by(rows: Sequence[Row], scorer: Scorer, key: Callable[[Row], str]) -> dict[str, dict[str, Any]]:
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)
    return {name: figures(groups[name], scorer) for name in sorted(groups)}


def confusion(rows: Iterable[Row], scorer: Scorer) -> dict[str, dict[str, int]]:
    """Where verdicts differ: false right (we say right, the publication wrong) and false wrong, by rules.

    A class is "our rule / official path", the latter where the file tells it.
    """
    counts: dict[str, Counter[str]] = {"false_right": Counter(), "false_wrong": Counter()}
    for row in rows:
        verdict = row.verdicts[scorer]
        if row.official is not None and verdict.correct != row.official:
            name = f"{verdict.rule} / {row.path}" if row.path else verdict.rule
            counts["false_right" if verdict.correct else "false_wrong"][name] += 1
    return {side: dict(found.most_common()) for side, found in counts.items()}


def table(reports: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """The report for people: a line per file, its breakdowns under it."""
    width = max(map(len, reports), default=4)
    yield f"{'file':<{width}}  scorer    rows  agreement  grounded  accuracy  official  bad lines"
    for name, found in reports.items():
        yield f"{name:<{width}}  {found['scorer']:<8}{_line(found)}  {found['bad_lines']:9}"
        for title in ("by_answer_type", "by_model"):
            groups = found[title]
            for group, inner in groups.items() if len(groups) > 1 else ():
                yield f"  {group[: width - 2]:<{width - 2}}  {'':8}{_line(inner)}"
        for side in ("false_right", "false_wrong"):
            if classes := found["confusion"][side]:
                yield f"  {side.replace('_', ' ')}: " + ", ".join(f"{rule} {count}" for rule, count in classes.items())
        for example in found["bad_line_examples"]:
            yield f"  bad {example}"


def _line(found: Mapping[str, Any]) -> str:
    shares = (found[key] for key in ("agreement", "grounded_agreement", "accuracy", "official_accuracy"))
    cells = ("-" if share is None else f"{100 * share:.2f}" for share in shares)
    agreement, grounded, accuracy, official = cells
    return f"{found['rows']:6}  {agreement:>9}  {grounded:>8}  {accuracy:>8}  {official:>8}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; 0, or 2 with one line on stderr for a file that cannot be compared."""
    parser = argparse.ArgumentParser(prog="python -m eval.conformance", description="Agreement with official verdicts.")
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE.jsonl", help="named <benchmark>_*.jsonl")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the whole report, keyed by file name")
    parser.add_argument("--scorer", choices=get_args(Scorer), default="official", help="whose figures come first")
    options = parser.parse_args(arguments)
    try:
        names = Counter(path.name for path in options.files)
        keys = [path.name if names[path.name] == 1 else str(path) for path in options.files]
        found = [report(read_file(path), options.scorer) for path in options.files]
        reports = dict(zip(keys, found, strict=True))
        if options.json:
            options.json.write_text(json.dumps(reports, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    except (ConformanceError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("\n".join(table(reports)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
