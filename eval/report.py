"""report.md: what was measured, how sure it is, what failed, and the command that repeats it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eval.pace import Speed, summary_lines
from eval.score import Outcome, Summary
from eval.speed_types import PairSpeed
from eval.table import CAPTION, COLUMNS, accuracy_cell, lines, percent, rows

MAX_LISTED = 50
"""Failed inputs listed by name; the rest are counted."""


def report(
    outcomes: Sequence[Outcome], *, run: Mapping[str, Any], speed: Speed | None, pictures: Sequence[Path]
) -> str:
    """The whole page as Markdown."""
    parts = ["# Evaluation", "", *_table(COLUMNS, rows(outcomes)), "", CAPTION, ""]
    parts += [f"- {line}" for line in lines(outcomes)]
    parts += ["", *[f"![{path.stem.replace('_', ' ')}](plots/{path.name})" for path in pictures], ""]
    for outcome in outcomes:
        parts += _bench(outcome)
    parts += _speed(speed)
    parts += _settings(outcomes, run)
    return "\n".join(parts) + "\n"


def _bench(outcome: Outcome) -> list[str]:
    summaries = outcome.summaries
    names = [summary.model for summary in summaries.values()]
    parts = [f"## {outcome.bench.title}", ""]
    metrics = list(dict.fromkeys(name for summary in summaries.values() for name in summary.metrics))
    if metrics:
        figures = [[name, *(_number(summary.metrics.get(name)) for summary in summaries.values())] for name in metrics]
        parts += ["Official figures:", "", *_table(("figure", *names), figures), ""]
    for tag in dict.fromkeys(tag for summary in summaries.values() for tag in summary.breakdown):
        parts += [*_table((tag, "N", *names), _breakdown(tag, summaries)), ""]
    return [*parts, *_failures(outcome)]


def _breakdown(tag: str, summaries: Mapping[str, Summary]) -> list[list[str]]:
    values = sorted({value for summary in summaries.values() for value in summary.breakdown.get(tag, {})})
    found = [[summary.breakdown.get(tag, {}).get(value) for summary in summaries.values()] for value in values]
    return [
        [value, str(max(share.problems for share in shares if share)), *map(accuracy_cell, shares)]
        for value, shares in zip(values, found, strict=True)
    ]


def _failures(outcome: Outcome) -> list[str]:
    unread = list(outcome.info.get("failed_rows", ()))
    parts = [f"- {row}" for row in unread]
    for summary in outcome.summaries.values():
        failed = [item.response for item in summary.graded if item.verdict is None]
        parts += [f"- {item.problem.id} ({summary.model}): {item.error}" for item in failed]
    if not parts:
        return []
    more = [f"- ... and {len(parts) - MAX_LISTED} more"] if len(parts) > MAX_LISTED else []
    return [f"Failed inputs ({len(parts)}), in no accuracy:", "", *map(_plain, parts[:MAX_LISTED]), *more, ""]


def _speed(speed: Speed | None) -> list[str]:
    if speed is None:
        return []
    if isinstance(speed, PairSpeed):
        from eval.speed_report import speed_markdown

        return ["## Speed", "", "Student is the model, teacher the baseline.", "", speed_markdown(speed)]
    return ["## Speed", "", *[f"- {line.strip()}" for line in summary_lines(speed)], ""]


def _settings(outcomes: Sequence[Outcome], run: Mapping[str, Any]) -> list[str]:
    parts = ["## Settings", ""]
    if run.get("command"):
        parts += ["To repeat it:", "", "```bash", str(run["command"]), "```", ""]
    for outcome in outcomes:
        info = outcome.info
        facts = {
            "source": info.get("origin"),
            "revision": info.get("revision"),
            "split": info.get("split"),
            "licence": outcome.bench.licence,
            "prompt": info.get("prompt"),
            "scorer": outcome.model.scorer,
            **info.get("settings", {}),
            **{f"{role} hash": value for role, value in info.get("identity", {}).items()},
        }
        known = [[name, str(value)] for name, value in facts.items() if value not in (None, "")]
        parts += [f"{outcome.bench.name}:", "", *_table(("setting", "value"), known), ""]
    return parts


def _table(header: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    lines = [header, ["---"] * len(header), *body]
    return ["| " + " | ".join(map(_plain, cells)) + " |" for cells in lines]


def _plain(text: str) -> str:
    """One line that is no table syntax."""
    return " ".join(text.replace("|", "\\|").split())


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return percent(value) if 0 <= value <= 1 else f"{value:.4g}"
