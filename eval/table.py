"""Figures as words: the table on the terminal, and the lines that terminal and report share."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TextIO

from eval.score import Outcome, Share, Summary

COLUMNS = ("benchmark", "model", "accuracy", "unparsed", "refusal", "truncated", "failed", "N", "tokens", "s/problem")
CAPTION = (
    "Accuracy in percent with its 95% interval (Wilson; with several answers a problem: clustered by problem). N: "
    "scored problems. unparsed, refusal, truncated: share of the scored answers; failed: inputs that could not be "
    "shown to the model, in no accuracy."
)


def percent(value: float) -> str:
    return f"{100 * value:.1f}"


def accuracy_cell(share: Share | None) -> str:
    """Such as "53.2 [51.1, 55.3]"."""
    if share is None:
        return "-"
    low, high = share.interval
    return f"{percent(share.value)} [{percent(low)}, {percent(high)}]"


def rows(outcomes: Sequence[Outcome]) -> list[list[str]]:
    """One row for each benchmark and model, in the order of COLUMNS."""
    return [
        [
            outcome.bench.name,
            f"{summary.model}{' (baseline)' if role == 'baseline' else ''}",
            accuracy_cell(summary.accuracy),
            *(f"{100 * summary.rate(name):.1f}%" for name in ("unparsed", "refusal", "truncated")),
            str(summary.failed + len(outcome.info.get("failed_rows", ()))),
            str(summary.accuracy.problems if summary.accuracy else 0)
            + (f" x{summary.samples}" * (summary.samples > 1)),
            f"{summary.tokens:.0f}",
            f"{summary.seconds:.3g}",
        ]
        for outcome in outcomes
        for role, summary in outcome.summaries.items()
    ]


def comparison_line(outcome: Outcome) -> str | None:
    """The paired difference in one sentence; None without a pair."""
    found = outcome.comparison
    if found is None or outcome.baseline is None:
        return None
    low, high = found.interval
    p_value = f"p = {found.p_value:.3g}" if found.p_value >= 1e-4 else "p < 0.0001"
    ours, theirs = outcome.model.model, outcome.baseline.model
    line = (
        f"{outcome.bench.name}: {ours} - {theirs} = {100 * found.difference:+.1f} points, 95% interval "
        f"{100 * low:+.1f} to {100 * high:+.1f} (paired bootstrap), {p_value} ({found.test}; only {ours} right: "
        f"{found.only_a}, only {theirs}: {found.only_b})"
    )
    if found.retention is not None:
        line += f"; retention {percent(found.retention.value)}%"
        if found.retention.interval is not None:
            line += f" [{percent(found.retention.interval[0])}, {percent(found.retention.interval[1])}]"
    left_out = f", {found.left_out} left out" if found.left_out else ""
    return f"{line}; N = {found.problems} problems{left_out}"


def sampling_lines(summary: Summary) -> list[str]:
    """pass@k and maj@k, where there are several answers to each problem."""
    if not summary.pass_at:
        return []
    passes = ", ".join(f"pass@{k} {percent(value)}" for k, value in summary.pass_at.items())
    majorities = ", ".join(f"maj@{k} {percent(value)}" for k, value in summary.maj_at.items())
    name = f"{summary.bench.name}, {summary.model}"
    return [f"{name}: {passes} (unbiased estimate)", f"{name}: {majorities} (ties drawn at random, in expectation)"]


def headline_lines(outcome: Outcome) -> list[str]:
    """The figure that papers quote, where it is not the plain accuracy."""
    return [
        f"{outcome.bench.name}, {summary.model}: {summary.headline[0]} {percent(summary.headline[1])} (the figure that "
        "papers quote)"
        for summary in outcome.summaries.values()
        if summary.headline
    ]


def lines(outcomes: Sequence[Outcome]) -> list[str]:
    """All that is said under the table."""
    said: list[str] = []
    for outcome in outcomes:
        said += headline_lines(outcome)
        for summary in outcome.summaries.values():
            said += sampling_lines(summary)
        said += [line for line in (comparison_line(outcome),) if line]
        said += [f"{outcome.bench.name}: {note}" for note in outcome.notes]
    return said


def print_table(outcomes: Sequence[Outcome], *, file: TextIO | None = None) -> None:
    """The table and its lines, in colour on a terminal; a number is never cut."""
    from rich import box
    from rich.console import Console
    from rich.measure import Measurement
    from rich.table import Table
    from rich.text import Text

    file = file or sys.stdout
    console = Console(file=file, highlight=False)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for column in COLUMNS:
        name = column in ("benchmark", "model")
        table.add_column(column, justify="left" if name else "right", no_wrap=not name, overflow="fold")
    for row in rows(outcomes):
        table.add_row(*map(Text, row))
    if not console.is_terminal:
        console.width = 160
    console.width = max(console.width, Measurement.get(console, console.options, table).minimum)
    console.print(table)
    console.print(Text(CAPTION, style="dim"))
    for line in lines(outcomes):
        print(line, file=file)
