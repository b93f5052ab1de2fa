"""The columns: one card for each model's answer with its clock, and how much faster the student was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from demo.compare import Column
from demo.contenders import Arena, Contender
from demo.views.markup import notice, number, parameters, seconds, text
from reopold_vl.types import VisualSample

_STATES = {
    "waiting": "waiting",
    "running": "answering",
    "stop": "finished",
    "length": "cut off at the token limit",
    "stopped": "stopped",
    "failed": "failed",
}
_SHORT = 600  # characters; longer texts are folded once they are there
_REPLAYED_TOKENS = 800  # more tokens are not replayed: each is an element of the page
_REPLAY_SECONDS = 6.0


def idle() -> str:
    """What stands there before the first question."""
    steps = (
        "<b>Choose</b> an example, upload a picture, or draw digits.",
        "<b>Ask.</b> Both models answer here at the same time, each on its own clock.",
        "<b>Look below:</b> would the teacher have written each of the student&rsquo;s tokens? That is all that "
        "on-policy distillation learns from.",
    )
    return '<ol class="rv-steps">' + "".join(f"<li>{step}</li>" for step in steps) + "</ol>"


def columns_view(arena: Arena, columns: Sequence[Column], sample: VisualSample) -> str:
    """All cards, with whose answer each is."""
    by_role = {column.role: column for column in columns}
    cards = [_card(arena[column.role], column, sample, by_role) for column in columns]
    over = all(column.finished for column in columns)
    slow = _slow_down(columns) if over else None
    replay = (
        f'<button type="button" class="rv-replay">Replay the race {slow}× slower</button>' if slow is not None else ""
    )
    gold = "" if sample.answer is None else f"Gold answer: <strong>{text(sample.answer)}</strong>. "
    note = gold + _same_device(arena, columns)
    foot = f'<div class="rv-foot"><span>{note}</span>{replay}</div>' if over else ""
    race = f'<div class="rv-race" style="--rv-slow:{slow or 1}">{"".join(cards)}</div>'
    return f"{_asked(sample)}{race}{foot}"


def blind_view(columns: Sequence[Column], sample: VisualSample) -> str:
    """Finished answers behind the letters A and B, without clocks, which would tell whose they are."""
    cards = [
        f'<article class="rv-card"><header><span class="rv-role">Answer {letter}</span></header>'
        f"{_final(column, sample, graded=False)}{_words(column, replay=False)}</article>"
        for letter, column in zip("AB", columns, strict=True)
    ]
    return f'{_asked(sample)}<div class="rv-race">{"".join(cards)}</div>'


def _asked(sample: VisualSample) -> str:
    """The question that these answers are to: by now another one may stand in the box."""
    question = sample.question if len(sample.question) <= _SHORT else sample.question[:_SHORT] + " …"
    return f'<p class="rv-asked">{text(question)}</p>'


def _card(contender: Contender, column: Column, sample: VisualSample, others: Mapping[str, Column]) -> str:
    badge = _badge(column, others.get("teacher"))
    return (
        f'<article class="rv-card rv-{column.role}" data-state="{column.state}">'
        f'<header><span class="rv-role">{contender.title}</span>{badge}'
        f'<span class="rv-name" title="{text(contender.name)}">{text(contender.name)} · '
        f"{parameters(contender.parameters)} parameters</span></header>"
        f"{_final(column, sample, graded=True)}{_words(column, replay=True)}{_clock(column)}</article>"
    )


def speed_up(column: Column, teacher: Column | None) -> float | None:
    """How many times faster than the teacher the whole answer was; None unless both are finished."""
    whole = ("stop", "length")
    if teacher is None or column.role == "teacher" or column.state not in whole or teacher.state not in whole:
        return None
    return teacher.seconds / column.seconds if column.seconds else None


def _badge(column: Column, teacher: Column | None) -> str:
    ratio = speed_up(column, teacher)
    if ratio is None:
        return ""
    label = f"{number(ratio)}× faster" if ratio >= 1 else f"{number(1 / ratio)}× slower"
    return f'<span class="rv-speed" title="whole answer, against the teacher">{label}</span>'


def _final(column: Column, sample: VisualSample, *, graded: bool) -> str:
    """The final answer, and whether it is right where the gold answer is known."""
    from reopold_vl.answers import extract_answer, is_correct

    if column.state == "failed":
        return notice(column.problem, "problem")
    if not column.finished:
        return '<p class="rv-final rv-open">&nbsp;</p>'
    answer = extract_answer(column.text, sample.choices)
    if answer is None:
        return '<p class="rv-final rv-open">no final answer recognised</p>'
    verdict = ""
    if graded and sample.answer is not None:
        right = is_correct(column.text, sample)
        verdict = f'<span class="rv-verdict rv-{"right" if right else "wrong"}">{"right" if right else "wrong"}</span>'
    return f'<p class="rv-final"><span class="rv-key">Answer</span><strong>{text(answer)}</strong>{verdict}</p>'


def _words(column: Column, *, replay: bool) -> str:
    """All that the model wrote: open while it writes, folded later where it is long."""
    if column.state in ("failed", "waiting"):
        return ""
    if replay and column.finished and len(column.pieces) <= _REPLAYED_TOKENS:
        body = "".join(
            f'<span class="rv-tok" style="--rv-t:{when:.4f}">{text(piece)}</span>'
            for piece, when in zip(column.pieces, column.times, strict=True)
        )
    else:
        body = text(column.text)
    unfolded = " open" if not column.finished or len(column.text) <= _SHORT else ""
    cursor = "" if column.finished else '<span class="rv-cursor"></span>'
    return (
        f"<details{unfolded}><summary>Reasoning and answer, as written</summary>"
        f'<div class="rv-text">{body}{cursor}</div></details>'
    )


def _clock(column: Column) -> str:
    if column.state == "failed":
        return ""
    rate = column.tokens_per_second
    entries = (
        ("first token", seconds(column.first_token_seconds)),
        ("tokens/s", number(rate)),
        ("total", seconds(column.seconds if column.times else None)),
        ("tokens", f"{len(column.times):,}"),
        ("", _STATES[column.state]),
    )
    return '<dl class="rv-clock">' + "".join(f"<div><dt>{k}</dt><dd>{v}</dd></div>" for k, v in entries) + "</dl>"


def _slow_down(columns: Sequence[Column]) -> int | None:
    """By how much a replay must be slower so that one can watch; None where the race itself could be watched."""
    longest = max((column.seconds for column in columns if column.times), default=0.0)
    if not 0 < longest < _REPLAY_SECONDS / 2 or all(len(c.pieces) > _REPLAYED_TOKENS for c in columns):
        return None
    return max(2, round(_REPLAY_SECONDS / longest))


def _same_device(arena: Arena, columns: Sequence[Column]) -> str:
    devices = {arena[column.role].device for column in columns}
    if len(devices) > 1:
        return f"Each model on its own device ({text(', '.join(sorted(devices)))}), side by side."
    return (
        f"They share one device ({text(devices.pop())}) and take turns; each clock runs only while its own model "
        "computes."
    )
