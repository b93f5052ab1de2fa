"""The vision check: how much of each token's probability came from the picture."""

from __future__ import annotations

from demo.views.credit import piece_of, token_span
from demo.views.markup import notice, percent, probability, text
from demo.vision import Sight

_NAMES = {"blurred": "Picture blurred", "removed": "Picture removed"}


def idle() -> str:
    return notice("Ask first; then check here whether the answer was read off the picture or guessed.")


def sight_view(sight: Sight) -> str:
    """Both conditions, token by token; orange where the token would have been less likely."""
    rows = "".join(
        f'<h4 class="rv-sub">{title}</h4><div class="rv-text rv-tokens">{_tokens(sight, condition)}</div>'
        for condition, title in _NAMES.items()
    )
    return (
        f'<div class="rv-credit">{_sentence(sight)}{rows}<p class="rv-legend">'
        '<span class="rv-t rv-down" style="--a:.75">orange</span> the model would have written this token less often '
        'without the full picture · <span class="rv-t rv-up" style="--a:.75">blue</span> more often · no colour: the '
        "picture does not matter here.</p></div>"
    )


def _tokens(sight: Sight, condition: str) -> str:
    spans = []
    for index, drop in enumerate(sight.drops(condition)):
        tip = (
            f"with the picture  {probability(sight.seen[index])}",
            f"{condition}  {probability(getattr(sight, condition)[index])}",
            f"change  {-drop:+.2f} nats",
        )
        mark = "rv-refined" if index in sight.answer else ""
        spans.append(token_span(piece_of(sight.tokens, index), -drop, "&#10;".join(text(line) for line in tip), mark))
    return "".join(spans)


def _sentence(sight: Sight) -> str:
    """What it comes to, in one sentence."""
    if not sight.answer:
        return notice("No final answer was recognised; the colours below tell about every token.")
    answer = text("".join(sight.tokens[index] for index in sight.answer).strip())
    seen, blurred, removed = (sight.answer_probability(name) for name in ("seen", "blurred", "removed"))
    blur, none = _nats(sight, "blurred"), _nats(sight, "removed")
    return (
        f'<p class="rv-sentence">Blurring the picture costs these tokens <strong>{blur} nats</strong> in all, removing '
        f"it <strong>{none} nats</strong>. Once the steps are written, the final answer <strong>{answer}</strong> has "
        f"a probability of {percent(seen)} with the picture, {percent(blurred)} with it blurred and {percent(removed)} "
        "without it.</p>"
    )


def _nats(sight: Sight, condition: str) -> str:
    return f"{sum(sight.drops(condition)):.1f}"
