"""A report on one screen: in colour on a terminal, plain text elsewhere."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, TextIO

from reopold_vl.check.result import Report, Result, Status

if TYPE_CHECKING:
    from rich.console import RenderableType

MARKS: dict[Status, tuple[str, str, str]] = {
    "ok": ("✔", "ok", "green"),
    "warn": ("!", "warn", "yellow"),
    "fail": ("✘", "FAIL", "bold red"),
    "skip": ("–", "skip", "dim"),
}


def show(report: Report, stream: TextIO | None = None) -> None:
    """Print the report to `stream` (standard output)."""
    file = sys.stdout if stream is None else stream
    if not file.isatty():
        print(plain(report), file=file)
        return
    from rich.console import Console

    Console(file=file).print(pretty(report))


def plain(report: Report) -> str:
    """One line a check, and one below it that says what to do."""
    width = max((len(result.name) for result in report.results), default=0)
    lines = [report.title, ""]
    for result in report.results:
        lines.append(f"{MARKS[result.status][1]:<4}  {result.name:<{width}}  {result.measured}")
        if result.advice:
            lines.append(f"{'':<4}  {'':<{width}}  -> {result.advice}")
    return "\n".join([*lines, "", verdict(report)])


def pretty(report: Report) -> RenderableType:
    """The same as a panel, green or red."""
    from rich import box
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, padding=(0, 1), expand=True)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(ratio=1, overflow="fold")
    for result in report.results:
        mark, _, style = MARKS[result.status]
        table.add_row(Text(mark, style), Text(result.name, style), _told(result))
    colour = "green" if report.green else "red"
    return Panel(
        table,
        title=Text(report.title, "bold"),
        subtitle=Text(verdict(report), f"bold {colour}"),
        border_style=colour,
        box=box.ROUNDED,
    )


def verdict(report: Report) -> str:
    """The last line: green or red, and how many checks are what."""
    counts = [("ok", "ok"), ("warn", "to look at"), ("fail", "failed"), ("skip", "not made")]
    listed = ", ".join(f"{report.count(status)} {word}" for status, word in counts if report.count(status))  # pyright: ignore[reportArgumentType]
    return f"{'GREEN' if report.green else 'RED'}: {listed}"


def _told(result: Result) -> RenderableType:
    from rich.text import Text

    text = Text(result.measured, "dim" if result.status == "skip" else "")
    if result.advice:
        text.append(f"\n→ {result.advice}", MARKS[result.status][2])
    return text
