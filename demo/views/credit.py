"""The credit view: the student's tokens in the colour of R_t, and where R_t lies against the floor."""

from __future__ import annotations

import math
from collections.abc import Sequence

from demo.credit import Credit, Signal
from demo.views.markup import notice, percent, probability, text

AGREED = 0.1  # nats: closer to each other than 10 % of a probability
FULL_COLOUR = 2.5  # nats at which the colour is full, near the floors in use
_LOW, _HIGH, _BIN = -6.125, 2.125, 0.25  # nats; one bin has 0 in its middle, the end bins hold what lies beyond
_WIDTH, _HEIGHT, _TOP = 640, 132, 16


def idle() -> str:
    return notice("After an answer, each of its tokens appears here in the colour of the teacher's opinion.")


def credit_view(credit: Credit, signal: Signal) -> str:
    """Tokens, numbers and histogram."""
    spans = "".join(_token(credit, signal, index) for index in range(len(credit.tokens)))
    tokens = f'<div class="rv-text rv-tokens">{spans}</div>{_LEGEND}'
    numbers = _numbers(credit, signal)
    return f'<div class="rv-credit">{_sentence(credit)}{tokens}{numbers}{_histogram(credit, signal)}</div>'


def _sentence(credit: Credit) -> str:
    """The token that student and teacher disagree on most, in one sentence."""
    index = min(range(len(credit.tokens)), key=lambda place: credit.rewards[place])
    if credit.rewards[index] > -AGREED:
        return '<p class="rv-sentence">The teacher would have written every token about as readily as the student.</p>'
    token = text(piece_of(credit.tokens, index).strip() or "a space")
    return (
        f'<p class="rv-sentence">The teacher objects most to <strong>{token}</strong> (token {index + 1}): the student '
        f"wrote it with a probability of {text(probability(credit.student_logprobs[index]))}, the teacher gives it "
        f"{text(probability(credit.teacher_logprobs[index]))}.</p>"
    )


def piece_of(tokens: Sequence[str], index: int) -> str:
    """The token as it is shown: special tokens at the end and parts of a character have no text of their own."""
    return tokens[index] or ("∎" if index == len(tokens) - 1 else "⋯")


_LEGEND = (
    '<p class="rv-legend"><span class="rv-t rv-down" style="--a:.75">orange</span> the teacher would rather not have '
    'written this token · <span class="rv-t rv-up" style="--a:.75">blue</span> it likes it more than the student '
    'does · no colour: they agree · <span class="rv-t rv-clipped">wavy</span> clipped at the floor · '
    '<span class="rv-t rv-refined">underlined</span> trained on in the refinement phase. '
    "Point at a token for its numbers.</p>"
)


def token_span(piece: str, value: float, tip: str, classes: str = "") -> str:
    """One token in the colour of `value` (nats; blue above 0), with its numbers in a tip."""
    strength = 0.0 if math.isnan(value) else 0.75 * min(abs(value) / FULL_COLOUR, 1.0)
    side = "rv-up" if value > 0 else "rv-down"
    shown = text(piece).replace("\n", "⏎\n")
    return (
        f'<span class="rv-t {side} {classes}" style="--a:{strength:.2f}" tabindex="0" data-tip="{tip}">{shown}</span>'
    )


def _token(credit: Credit, signal: Signal, index: int) -> str:
    reward, clipped = credit.rewards[index], signal.clipped[index]
    lines = (
        f"R = {reward:+.3f} nats" if reward > -1e3 else "R = −∞",
        f"teacher  {probability(credit.teacher_logprobs[index])}",
        f"student  {probability(credit.student_logprobs[index])}",
        f"entropy  {credit.entropy[index]:.3f} nats",
        f"clipped to {signal.floor:.2f}" if clipped else "not clipped",
        f"exploration: {'masked' if clipped else 'kept'}",
        f"refinement: {'kept' if signal.refined[index] else 'masked'}",
    )
    classes = " ".join(["rv-clipped"] * clipped + ["rv-refined"] * signal.refined[index])
    return token_span(piece_of(credit.tokens, index), reward, "&#10;".join(text(line) for line in lines), classes)


def _numbers(credit: Credit, signal: Signal) -> str:
    total = len(credit.tokens)
    mean = sum(credit.rewards) / total
    entries = (
        ("mean R", f"{mean:+.3f}&#8239;nats" if min(credit.rewards) > -1e3 else "−∞"),
        ("floor", f"{signal.floor:.2f}&#8239;nats"),
        ("clipped", f"{sum(signal.clipped)} of {total}"),
        ("kept, exploration", percent(sum(signal.explored) / total, 0)),
        ("kept, refinement", percent(sum(signal.refined) / total, 0)),
    )
    return '<dl class="rv-clock">' + "".join(f"<div><dt>{k}</dt><dd>{v}</dd></div>" for k, v in entries) + "</dl>"


def counts_of(rewards: Sequence[float]) -> list[int]:
    """How many rewards lie in each bin of the histogram; the end bins hold what lies beyond."""
    counts = [0] * round((_HIGH - _LOW) / _BIN)
    for reward in rewards:
        place = math.floor((min(max(reward, _LOW), _HIGH) - _LOW) / _BIN)
        counts[min(place, len(counts) - 1)] += 1
    return counts


def _histogram(credit: Credit, signal: Signal) -> str:
    """Bars on a square-root scale (one odd token must stay visible beside forty that agree), with the floor."""
    counts = counts_of(credit.rewards)
    top, base = max(counts), _HEIGHT - 26
    unit = _WIDTH / (_HIGH - _LOW)
    bars = []
    for index, count in enumerate(counts):
        if count:
            left = _LOW + index * _BIN
            tall = max(3.0, math.sqrt(count / top) * (base - _TOP))
            middle = left + _BIN / 2
            side = "rv-bar-down" if middle < 0 else "rv-bar-up" if middle > 0 else "rv-bar-even"
            bars.append(
                f'<rect class="{side}" x="{(left - _LOW) * unit + 1:.1f}" y="{base - tall:.1f}" '
                f'width="{_BIN * unit - 2:.1f}" height="{tall:.1f}"><title>{count} tokens, R from {left:.2f} to '
                f"{left + _BIN:.2f}</title></rect>"
            )
    ticks = "".join(
        f'<text class="rv-tick" x="{(nats - _LOW) * unit:.1f}" y="{_HEIGHT - 10}" text-anchor="{anchor}">{label}</text>'
        for nats, label, anchor in (
            (-6, "≤ −6", "start"), (-4, "−4", "middle"), (-2, "−2", "middle"), (0, "0", "middle"), (2, "≥ 2", "end")
        )
    )  # fmt: skip
    floor = (max(signal.floor, _LOW) - _LOW) * unit
    anchor, shift = ("end", -6) if floor > 90 else ("start", 6)
    line = (
        f'<line class="rv-floor" x1="{floor:.1f}" x2="{floor:.1f}" y1="4" y2="{base}"/>'
        f'<text class="rv-tick" x="{floor + shift:.1f}" y="13" text-anchor="{anchor}">floor {signal.floor:.2f}</text>'
    )
    return (
        f'<figure class="rv-histogram"><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="histogram of token rewards with the floor">{"".join(bars)}'
        f'<line class="rv-axis" x1="0" x2="{_WIDTH}" y1="{base}" y2="{base}"/>{ticks}{line}</svg>'
        "<figcaption>Tokens by R = log p(teacher) − log p(student), in nats; left of the floor a token pushes no "
        "harder.</figcaption></figure>"
    )
