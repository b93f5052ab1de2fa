"""The benchmark tab: accuracies with intervals, accuracy against time, and one item with both answers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from demo.benchmark import Evaluation, Item
from demo.views.markup import notice, number, percent, seconds, table, text

if TYPE_CHECKING:
    from PIL.Image import Image

    from eval.score import Share, Summary
    from eval.types import Graded

_NAMES = ("student", "teacher")
_MAX_ROWS = 60


def evaluation_view(evaluation: Evaluation) -> str:
    """Table, breakdown, notes and plot."""
    notes = "".join(notice(note) for note in evaluation.notes)
    return f'<div class="rv-bench">{_overall(evaluation)}{_plot(evaluation)}</div>{_breakdown(evaluation)}{notes}'


def _overall(evaluation: Evaluation) -> str:
    rows = [
        [
            f"{name}<br><small>{text(summary.model)}</small>",
            _share(summary.accuracy),
            f"{summary.accuracy.problems if summary.accuracy else 0:,}",
            seconds(summary.seconds),
            number(summary.tokens),
            _rates(summary),
        ]
        for name, summary in zip(_NAMES, evaluation.summaries, strict=False)
    ]
    title = text(evaluation.model.bench.title)
    return table(
        ["", "accuracy [95 %]", "N", "time per answer", "tokens", "unparsed, cut off, failed"], rows, caption=title
    )


def _rates(summary: Summary) -> str:
    return ", ".join(percent(summary.rate(name)) for name in ("unparsed", "truncated", "failed"))


def _share(share: Share | None) -> str:
    if share is None:
        return "–"
    low, high = share.interval
    return f"<strong>{100 * share.value:.1f}</strong> [{100 * low:.1f}, {100 * high:.1f}]"


def _breakdown(evaluation: Evaluation) -> str:
    parts = []
    for tag, values in evaluation.model.breakdown.items():
        theirs = evaluation.baseline.breakdown.get(tag, {}) if evaluation.baseline else {}
        rows = [
            [text(value), f"{share.problems:,}", _share(share), *([_share(theirs.get(value))] if theirs else [])]
            for value, share in list(values.items())[:_MAX_ROWS]
        ]
        left = len(values) - len(rows)
        head = [text(tag), "N", "student", *(["teacher"] if theirs else [])]
        more = f"<p>{left} more values are in report.md</p>" if left > 0 else ""
        parts.append(f"<details><summary>By {text(tag)}</summary>{table(head, rows)}{more}</details>")
    return "".join(parts)


def _plot(evaluation: Evaluation) -> str:
    """Accuracy against seconds an answer, logarithmic: up and to the left is better."""
    points = [
        (name, summary.seconds, summary.accuracy)
        for name, summary in zip(_NAMES, evaluation.summaries, strict=False)
        if summary.accuracy is not None and summary.seconds > 0
    ]
    if not points:
        return ""
    width, height, left, right, top, bottom = 460, 250, 48, 16, 14, 40
    logs = [math.log10(when) for _, when, _ in points]
    low, high = min(logs) - 0.6, max(logs) + 0.6  # room for the names, and for at least two ticks

    def x(when: float) -> float:
        return left + (math.log10(when) - low) / (high - low) * (width - left - right)

    def y(share: float) -> float:
        return top + (1 - share) * (height - top - bottom)

    grid = "".join(
        f'<line class="rv-grid" x1="{left}" x2="{width - right}" y1="{y(v):.0f}" y2="{y(v):.0f}"/>'
        f'<text class="rv-tick" x="{left - 8}" y="{y(v) + 4:.0f}" text-anchor="end">{100 * v:.0f} %</text>'
        for v in (0, 0.25, 0.5, 0.75, 1)
    )
    marks = ""
    for name, when, share in points:
        assert share is not None
        a, b = share.interval
        beside, anchor = (-12, "end") if name == "student" else (12, "start")
        marks += (
            f'<line class="rv-dot-{name}" x1="{x(when):.1f}" x2="{x(when):.1f}" y1="{y(a):.1f}" y2="{y(b):.1f}"/>'
            f'<circle class="rv-dot-{name}" cx="{x(when):.1f}" cy="{y(share.value):.1f}" r="6"/>'
            f'<text class="rv-label" x="{x(when) + beside:.1f}" y="{y(share.value) + 4:.1f}" '
            f'text-anchor="{anchor}">{name}</text>'
        )
    ticks = [m * 10.0**k for k in range(math.floor(low), math.ceil(high) + 1) for m in (1, 2, 5)]
    grid += "".join(
        f'<text class="rv-tick" x="{x(when):.1f}" y="{height - 22}" text-anchor="middle">{seconds(when)}</text>'
        for when in ticks
        if low <= math.log10(when) <= high
    )
    return (
        f'<figure class="rv-plot"><svg viewBox="0 0 {width} {height}" role="img" aria-label="accuracy against time">'
        f"{grid}{marks}</svg>"
        "<figcaption>Accuracy against time per answer (log scale, in the run&rsquo;s batches): up and "
        "to the left is better. Bars: 95 % intervals.</figcaption></figure>"
    )


def item_view(item: Item, position: int, total: int, images: Sequence[Image]) -> str:
    """One problem: pictures, question, gold, both answers with their verdicts."""
    from reopold_vl.report.page import data_uri

    pictures = "".join(f'<img src="{data_uri(image)}" alt="picture of the question">' for image in images)
    left = pictures or notice(
        "No pictures: the run's data are outside of what this page may read (--read DIR), or were changed."
    )
    problem = item.problem
    choices = "".join(f"<li>{text(choice)}</li>" for choice in problem.choices)
    answers = "".join(_answer(name, graded) for name, graded in zip(_NAMES, item.sides, strict=False))
    return (
        f'<div class="rv-item"><figure>{left}</figure><section><p class="rv-soft">{position} of {total} · '
        f'{text(problem.id)}</p><p class="rv-question">{text(problem.question)}</p>'
        f"{f'<ol type=A>{choices}</ol>' if choices else ''}"
        f"<p>Gold answer: <strong>{text(problem.answer if problem.answer is not None else 'hidden')}</strong></p>"
        f'<div class="rv-race">{answers}</div></section></div>'
    )


def _answer(name: str, graded: Graded) -> str:
    response, verdict = graded.response, graded.verdict
    if verdict is None:
        body = notice(response.error or "the problem could not be shown to the model", "problem")
    else:
        mark = "right" if verdict.correct else "wrong"
        found = text(verdict.extraction) if verdict.extraction is not None else f"<em>{text(verdict.status)}</em>"
        cut = " · cut off at the token limit" if response.finish_reason == "length" else ""
        body = (
            f'<p class="rv-final"><span class="rv-key">Answer</span><strong>{found}</strong>'
            f'<span class="rv-verdict rv-{mark}">{mark}</span></p><div class="rv-text">{text(response.text)}</div>'
            f'<p class="rv-soft">{response.tokens:,} tokens{cut}</p>'
        )
    return f'<article class="rv-card"><header><span class="rv-role">{name.title()}</span></header>{body}</article>'
