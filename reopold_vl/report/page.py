"""One HTML file of sample rollouts: the images, the question, and the answer with each token coloured by its R."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reopold_vl.runlog import replace_text

if TYPE_CHECKING:
    from PIL import Image

# R at which the colour is full, in nats: near the floors in use, where a stronger signal would be clipped anyway.
_FULL_COLOUR = 2.5
# Longer side of an inlined image, in pixels: enough to read a figure, small enough that a page stays a page.
_MAX_SIDE = 640


@dataclass(frozen=True)
class PageRollout:
    """One rollout as the page shows it; the five per-token tuples have one entry per response token.

    `tokens` are the pieces of text, `rewards` R in nats, the log-probs in nats, `kept` whether the mask trained on
    the token. `correct` is None when the answer was not graded. Raises `ValueError` for tuples of unequal length.
    """

    images: tuple[Image.Image, ...]
    question: str
    gold: str | None
    step: int
    tokens: tuple[str, ...]
    rewards: tuple[float, ...]
    student_logprobs: tuple[float, ...]
    teacher_logprobs: tuple[float, ...]
    kept: tuple[bool, ...]
    correct: bool | None
    finish_reason: str

    def __post_init__(self) -> None:
        for name in ("rewards", "student_logprobs", "teacher_logprobs", "kept"):
            if len(getattr(self, name)) != len(self.tokens):
                raise ValueError(f"{name} has {len(getattr(self, name))} entries for {len(self.tokens)} tokens")


def write_page(
    path: str | Path, entries: Sequence[PageRollout], *, title: str, settings: Mapping[str, object] | None = None
) -> None:
    """Writes the page to `path`, atomically: one file that asks for nothing else, with no script, light and dark.

    Neighbouring entries of the same step, question and images share one card. `settings` are shown as they are
    (name: value). All text is escaped: a model may write what it likes.
    """
    from jinja2 import Environment, StrictUndefined

    template = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    html = template.from_string(_PAGE).render(title=title, settings=dict(settings or {}), cards=_cards(entries))
    # A token may hold half of a surrogate pair, which UTF-8 cannot.
    replace_text(Path(path), html.encode("utf-8", "replace").decode("utf-8"))


def _cards(entries: Sequence[PageRollout]) -> list[dict[str, Any]]:
    cards: list[dict[str, Any]] = []
    for entry in entries:
        card = {
            "step": entry.step,
            "question": entry.question,
            "gold": entry.gold,
            "images": [data_uri(image) for image in entry.images],
        }
        if not cards or any(cards[-1][name] != value for name, value in card.items()):
            cards.append({**card, "answers": []})
        cards[-1]["answers"].append(_answer(entry))
    return cards


def _answer(entry: PageRollout) -> dict[str, Any]:
    finite = [reward for reward in entry.rewards if math.isfinite(reward)]
    return {
        "grade": {True: "right", False: "wrong", None: "not graded"}[entry.correct],
        "finish": "cut off at the length limit" if entry.finish_reason == "length" else entry.finish_reason,
        "mean": f"{sum(finite) / len(finite):+.3f}" if finite else "none",
        "kept": f"{sum(entry.kept)} of {len(entry.tokens)}",
        "tokens": [
            {
                "text": text,
                "side": "up" if reward > 0 else "down",
                "alpha": f"{_strength(reward):.2f}",
                "kept": kept,
                "hover": f"R {reward:+.2f} · teacher {_percent(teacher)} · student {_percent(student)} · "
                f"{'kept' if kept else 'masked'}",
            }
            for text, reward, student, teacher, kept in zip(
                entry.tokens, entry.rewards, entry.student_logprobs, entry.teacher_logprobs, entry.kept, strict=True
            )
        ],
    }


def _strength(reward: float) -> float:
    """How strong the colour is, 0 to 0.75 (text must stay readable on it); an undefined R has none."""
    return 0.0 if math.isnan(reward) else 0.75 * min(abs(reward) / _FULL_COLOUR, 1.0)


def _percent(logprob: float) -> str:
    """A probability in percent with three digits; log-probs a hair above 0 are rounding, not certainty plus."""
    return f"{100 * math.exp(min(logprob, 0.0)):.3g}%"


def data_uri(image: Image.Image) -> str:
    """The picture as an inlined PNG, its longer side at most 640 pixels."""
    if max(image.size) > _MAX_SIDE:
        image = image.copy()
        image.thumbnail((_MAX_SIDE, _MAX_SIDE))
    buffer = io.BytesIO()
    (image if image.mode in ("L", "RGB", "RGBA") else image.convert("RGBA")).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{{ title }}</title>
<style>
:root { --back: #f6f7f9; --card: #fff; --ink: #1b2130; --soft: #5d6675; --line: #dfe3ea;
  --up: 0 114 178; --down: 213 94 0; --right: #0b6e4f; --wrong: #a8320a; }
@media (prefers-color-scheme: dark) { :root { --back: #12151b; --card: #1b2028; --ink: #e7eaf0; --soft: #9aa4b5;
  --line: #313947; --up: 45 150 215; --down: 205 92 18; --right: #4cc79b; --wrong: #ff9166; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--ink); font: 15px/1.55 system-ui, sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 .5rem; }
.soft, dt { color: var(--soft); } .small { font-size: .85rem; }
dl { display: flex; flex-wrap: wrap; gap: .2rem 1.4rem; margin: .75rem 0; }
dl div { display: flex; gap: .4rem; min-width: 0; } dd { margin: 0; overflow-wrap: anywhere; }
.legend { border-block: 1px solid var(--line); padding: .6rem 0; margin: 1rem 0 1.5rem; }
article { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 1.1rem 1.25rem;
  margin-bottom: 1.25rem; display: grid; grid-template-columns: 13rem minmax(0, 1fr); gap: 1rem 1.5rem; }
article.bare { grid-template-columns: minmax(0, 1fr); }
@media (max-width: 42rem) { article { grid-template-columns: minmax(0, 1fr); } }
figure { margin: 0; display: grid; gap: .6rem; align-content: start; }
img { width: 100%; max-width: 24rem; border: 1px solid var(--line); border-radius: 6px; background: #fff; }
.question { margin: 0 0 .35rem; font-size: 1.05rem; font-weight: 600; white-space: pre-wrap; overflow-wrap: anywhere; }
.answer { border-top: 1px solid var(--line); padding-top: .7rem; margin-top: .8rem; }
.answer > p { margin: 0 0 .4rem; }
.badge { font-weight: 600; border: 1px solid currentColor; border-radius: 99px; padding: .05rem .6rem;
  margin-right: .5rem; }
.right { color: var(--right); } .wrong { color: var(--wrong); } .not { color: var(--soft); }
.text, .key { font: .9rem/1.9 ui-monospace, Menlo, Consolas, monospace; }
.text { white-space: pre-wrap; overflow-wrap: anywhere; }
.t { padding: .14em 0; border-radius: 3px; }
.up { background: rgb(var(--up) / var(--a)); } .down { background: rgb(var(--down) / var(--a)); }
.masked { text-decoration: underline dotted 2px var(--soft); text-underline-offset: .25em; }
.t:hover { outline: 2px solid var(--ink); }
</style>
</head>
<body>
<main>
<h1>{{ title }}</h1>
{% if settings %}
<dl class="small">
{% for name, value in settings.items() %}
<div><dt>{{ name }}</dt><dd>{{ value }}</dd></div>
{% endfor %}
</dl>
{% endif %}
<p class="legend small">Each token is coloured by its reward R = log p(teacher) &minus; log p(student), in nats:
<span class="key"><span class="t down" style="--a:.75">below 0</span></span> the teacher finds it less likely than the
student does, <span class="key"><span class="t up" style="--a:.75">above 0</span></span> more likely, no colour: they
agree. <span class="key"><span class="masked">Dotted</span></span>: masked, not trained on at this step. Point at a
token for its numbers.</p>
{% for card in cards %}
<article{% if not card.images %} class="bare"{% endif %}>
{% if card.images %}
<figure>
{% for uri in card.images %}
<img src="{{ uri }}" alt="image {{ loop.index }} of the question">
{% endfor %}
</figure>
{% endif %}
<section>
<p class="question">{{ card.question }}</p>
<p class="soft small">Step {{ card.step }} · gold answer: {{ "not given" if card.gold is none else card.gold }}</p>
{% for answer in card.answers %}
<div class="answer">
<p class="small soft"><span class="badge {{ answer.grade.split()[0] }}">{{ answer.grade }}</span>
finish: {{ answer.finish }} · mean R {{ answer.mean }} · {{ answer.kept }} tokens kept</p>
<div class="text">
{%- for token in answer.tokens -%}
<span class="t {{ token.side }}{{ "" if token.kept else " masked" }}" style="--a:{{ token.alpha }}"
 title="{{ token.hover }}">
{{- token.text -}}
</span>
{%- endfor -%}
</div>
</div>
{% endfor %}
</section>
</article>
{% endfor %}
</main>
</body>
</html>
"""
