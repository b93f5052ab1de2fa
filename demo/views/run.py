"""The training tab: how far a run is, its curves, its newest rollouts with their credit."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from demo.run_view import TrainingRun
from demo.views.credit import token_span
from demo.views.markup import notice, number, percent, probability, text

_PNG = re.compile(r"data:image/png;base64,[A-Za-z0-9+/=]+")
_SPECIAL = re.compile(r"<\|[^|<>]{1,40}\|>")  # the end of an answer

_CURVES = (
    ("validation/accuracy", "held-out accuracy", True),
    ("reward/mean", "mean reward R (nats)", False),
    ("student/entropy", "student entropy (nats)", False),
    ("mask/kept", "tokens kept by the mask", True),
    ("reopold/clipped", "tokens clipped at the floor", True),
    ("rollout/length", "answer length (tokens)", False),
)


def run_page(run: TrainingRun) -> str:
    """State, curves and rollouts."""
    if not run.metrics:
        return notice("The run has not logged a step yet; this page looks again every few seconds.")
    curves = "".join(_curve(title, run.series(name), share) for name, title, share in _CURVES if run.series(name))
    groups = [list(group) for _, group in groupby(run.rollouts, key=lambda record: _asked(record))]
    rollouts = "".join(_rollouts(group) for group in reversed(groups))
    shown = f"<h3>Newest sample rollouts</h3>{rollouts}" if rollouts else ""
    return f'{_state(run)}<div class="rv-curves">{curves}</div>{shown}'


def _state(run: TrainingRun) -> str:
    phase = {0.0: "exploration", 1.0: "refinement"}.get(run.last("reopold/phase") or 0.0, "")
    entries = [
        ("step", f"{int(run.metrics[-1]['step'])}"),
        ("phase", phase),
        ("rollouts", number(run.last("rollout/total"))),
        ("held-out accuracy", percent(run.last("validation/accuracy"))),
        ("floor", number(run.last("reopold/floor"), "nats")),
    ]
    accuracy = run.summary.get("accuracy")
    if isinstance(accuracy, Mapping):
        entries += [
            (f"test, {name}", percent(value)) for name, value in accuracy.items() if isinstance(value, int | float)
        ]
    state = "finished" if run.summary else "in progress (or stopped)"
    facts = "".join(f"<div><dt>{text(k)}</dt><dd>{v}</dd></div>" for k, v in [("state", state), *entries])
    return f'<dl class="rv-clock rv-wide">{facts}</dl>'


def _curve(title: str, series: Sequence[tuple[int, float]], share: bool) -> str:
    """One small line chart, from the lowest to the highest value (shares from 0 to 100 %)."""
    points = [(step, value) for step, value in series if math.isfinite(value)]
    if not points:
        return ""
    width, height, left, bottom, top = 320, 120, 44, 20, 8
    steps, values = [step for step, _ in points], [value for _, value in points]
    low, high = (0.0, 1.0) if share else (min(0.0, *values), max(0.0, *values))
    span_x, span_y = max(steps[-1] - steps[0], 1), (high - low) or 1.0

    def place(step: int, value: float) -> str:
        x = left + (step - steps[0]) / span_x * (width - left - 8)
        return f"{x:.1f},{top + (high - value) / span_y * (height - top - bottom):.1f}"

    line = " ".join(place(step, value) for step, value in points)
    write = (lambda v: f"{100 * v:.0f} %") if share else (lambda v: f"{v:.3g}")
    last = place(*points[-1]).split(",")
    return (
        f'<figure class="rv-curve"><figcaption>{title} <strong>{write(values[-1])}</strong></figcaption>'
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{title} over the steps">'
        f'<line class="rv-axis" x1="{left}" x2="{width}" y1="{height - bottom}" y2="{height - bottom}"/>'
        f'<text class="rv-tick" x="{left - 6}" y="{top + 8}" text-anchor="end">{write(high)}</text>'
        f'<text class="rv-tick" x="{left - 6}" y="{height - bottom}" text-anchor="end">{write(low)}</text>'
        f'<text class="rv-tick" x="{left}" y="{height - 5}">{steps[0]}</text>'
        f'<text class="rv-tick" x="{width}" y="{height - 5}" text-anchor="end">step {steps[-1]}</text>'
        f'<polyline class="rv-line" points="{line}"/><circle class="rv-end" cx="{last[0]}" cy="{last[1]}" r="3.5"/>'
        "</svg></figure>"
    )


def _asked(record: Mapping[str, Any]) -> tuple[str, str]:
    return str(record.get("step")), str(record.get("question")) + str(record.get("images"))


def _rollouts(group: Sequence[Mapping[str, Any]]) -> str:
    """All answers to one prompt."""
    record = group[0]
    images = "".join(
        f'<img src="{uri}" alt="picture of the question">'
        for uri in record.get("images", ())
        if isinstance(uri, str) and _PNG.fullmatch(uri)
    )
    answers = "".join(_answer(record) for record in group)
    return (
        f'<div class="rv-item"><figure>{images}</figure><section><p class="rv-soft">step {text(record.get("step"))} · '
        f"gold answer: <strong>{text(record.get('gold'))}</strong></p>"
        f'<p class="rv-question">{text(record.get("question", ""))}</p>{answers}</section></div>'
    )


def _answer(record: Mapping[str, Any]) -> str:
    spans = []
    rows = zip(
        record["tokens"], record["rewards"], record["student_logprobs"], record["teacher_logprobs"], record["kept"],
        strict=True,
    )  # fmt: skip
    for piece, reward, student, teacher, kept in rows:
        if not all(isinstance(value, int | float) for value in (reward, student, teacher)):
            return notice("A stored rollout cannot be read.")
        tip = (
            f"R = {reward:+.3f} nats",
            f"teacher  {probability(teacher)}",
            f"student  {probability(student)}",
            "kept" if kept else "masked",
        )
        shown = "∎" if _SPECIAL.fullmatch(str(piece)) else str(piece)
        spans.append(token_span(shown, reward, "&#10;".join(text(line) for line in tip), "rv-refined" * bool(kept)))
    correct = record.get("correct")
    grade = "" if correct is None else "right" if correct is True else "wrong"
    verdict = f'<span class="rv-verdict rv-{grade}">{grade}</span> ' if grade else ""
    return f'<div class="rv-text rv-tokens">{verdict}{"".join(spans)}</div>'
