"""The table at the end of a run: student before, student after and teacher, by question type and overall."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TextIO

from .stats import Accuracy, paired_difference

if TYPE_CHECKING:
    from rich.table import Table

OVERALL = "overall"
_UNNAMED = "(no type)"
_NONE = "-"


@dataclass(frozen=True)
class Graded:
    """One graded answer: the problem's id and question type (`source`), the model's answer, and whether it is right."""

    id: str
    source: str
    response: str
    correct: bool
    finish_reason: str


@dataclass(frozen=True)
class Row:
    """One line of the table; `teacher` is None when the teacher was not evaluated."""

    name: str
    before: Accuracy
    after: Accuracy
    teacher: Accuracy | None

    @property
    def teacher_share(self) -> float | None:
        """The student's accuracy after, divided by the teacher's; None without a teacher that gets anything right."""
        return None if self.teacher is None or self.teacher.correct == 0 else self.after.value / self.teacher.value


def tabulate(before: Sequence[Graded], after: Sequence[Graded], teacher: Sequence[Graded] = ()) -> tuple[Row, ...]:
    """One row per question type, by name, and the overall row last.

    `teacher` may be empty (not evaluated). Raises `ValueError` when nothing was graded or when the lists are not
    about the same problems: accuracies over different problems do not belong in one row.
    """
    sources = _sources("before", before)
    if not sources:
        raise ValueError("no graded answers: there is nothing to put in the table")
    for label, graded in (("after", after), ("teacher", teacher)):
        if (graded or label == "after") and _sources(label, graded) != sources:
            raise ValueError(f"the graded answers {label!r} are not about the same problems as 'before'")

    def row(name: str, source: str | None) -> Row:
        def accuracy(graded: Sequence[Graded]) -> Accuracy:
            marks = [item.correct for item in graded if source is None or item.source == source]
            return Accuracy(sum(marks), len(marks))

        return Row(name, accuracy(before), accuracy(after), accuracy(teacher) if teacher else None)

    by_type = [row(source or _UNNAMED, source) for source in sorted(set(sources.values()))]
    return (*by_type, row(OVERALL, None)) if len(by_type) > 1 else (row(OVERALL, None),)


def _sources(label: str, graded: Sequence[Graded]) -> dict[str, str]:
    sources = {item.id: item.source for item in graded}
    if len(sources) != len(graded):
        raise ValueError(f"the graded answers {label!r} hold a problem twice")
    return sources


def gain_line(before: Sequence[Graded], after: Sequence[Graded], *, seed: int) -> str:
    """One sentence: how many points the student gained on the problems of both lists, with a paired interval."""
    old = {item.id: item.correct for item in before}
    pairs = [(item.correct, old[item.id]) for item in after]
    gain, low, high = paired_difference([new for new, _ in pairs], [past for _, past in pairs], seed=seed)
    return (
        f"student after minus before: {100 * gain:+.1f} points, 95% interval {100 * low:+.1f} to {100 * high:+.1f} "
        f"(paired bootstrap, N = {len(pairs)})"
    )


def to_markdown(rows: Sequence[Row]) -> str:
    """The table as markdown: accuracies in percent, 95 % Wilson intervals in brackets."""
    lines = [
        "| question type | N | student before | student after | teacher | teacher share |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        name = row.name.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")
        cells = [name, str(row.after.total), *_accuracies(row, "line"), _share(row)]
        # The last row sums up the others: bold sets it apart.
        lines.append("| " + " | ".join(f"**{cell}**" if row.name == OVERALL else cell for cell in cells) + " |")
    return "\n".join([*lines, "", _CAPTION, ""])


_CAPTION = "Accuracy in percent, 95% Wilson interval in brackets; teacher share = student after / teacher."


def print_table(rows: Sequence[Row], *, file: TextIO | None = None, width: int | None = None) -> None:
    """Prints the table, in colour on a terminal and as plain text elsewhere, never cutting a number.

    `width` in columns; by default the terminal's own, and as much as the table needs where there is no terminal.
    When the line is too short for the intervals they move under the accuracies.
    """
    from rich.console import Console
    from rich.measure import Measurement

    file = file or sys.stdout
    console = Console(file=file, width=width, highlight=False)
    if width is None and not console.is_terminal:
        console.width = 160
    # Measured as if there were room: within the console's width every table claims to fit.
    roomy = console.options.update(width=1000)
    table = rich_table(rows, layout="line")
    if Measurement.get(console, roomy, table).maximum > console.width:
        table = rich_table(rows, layout="stacked")
    # On a line too short even for that, the terminal's own wrapping is ugly but loses nothing.
    console.width = max(console.width, Measurement.get(console, roomy, table).minimum)
    console.print(table)
    console.print(_CAPTION, style="dim")


def rich_table(rows: Sequence[Row], *, layout: Literal["line", "stacked"] = "line") -> Table:
    """The table for rich, intervals beside the accuracies or `stacked` under them."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    lines = [[row.name, str(row.after.total), *_accuracies(row, layout), _share(row)] for row in rows]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    longest_word = max((len(word) for row in rows for word in row.name.split()), default=0)
    table.add_column("question\ntype", overflow="fold", min_width=min(longest_word, 16))
    for place, heading in enumerate(("N", "student\nbefore", "student\nafter", "teacher", "teacher\nshare"), start=1):
        # Numbers are never broken: a table that is too wide takes the room from the names.
        pieces = [piece for text in (heading, *(line[place] for line in lines)) for piece in text.split("\n")]
        table.add_column(heading, justify="right", no_wrap=True, min_width=max(map(len, pieces)))
    for number, (row, line) in enumerate(zip(rows, lines, strict=True)):
        if row.name == OVERALL and number:
            table.add_section()
        # Text, not str: a question type in square brackets is a name, not a colour.
        table.add_row(*map(Text, line), style="bold" if row.name == OVERALL else "")
    return table


def _accuracies(row: Row, layout: Literal["line", "stacked"]) -> list[str]:
    gap = "\n" if layout == "stacked" else " "
    return [_accuracy(value, gap) for value in (row.before, row.after, row.teacher)]


def _accuracy(accuracy: Accuracy | None, gap: str) -> str:
    if accuracy is None:
        return _NONE
    low, high = accuracy.interval
    return f"{100 * accuracy.value:.1f}{gap}[{100 * low:.1f}, {100 * high:.1f}]"


def _share(row: Row) -> str:
    return _NONE if row.teacher_share is None else f"{100 * row.teacher_share:.1f}%"
