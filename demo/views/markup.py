"""Small pieces of HTML, and the one function that lets foreign text into it."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Sequence

# The page's components fill templates: braces, dollar signs and backquotes of foreign text must not look like one.
_TEMPLATE = {ord(sign): f"&#{ord(sign)};" for sign in "{}$`"}
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def text(value: object) -> str:
    """Foreign text as text: no tag, attribute, template or direction mark of it means anything to the browser."""
    return html.escape(_CONTROL.sub("\ufffd", str(value)), quote=True).translate(_TEMPLATE)


def number(value: float | None, unit: str = "", digits: int = 3) -> str:
    """Three significant digits with thousands commas, or a dash."""
    if value is None or not math.isfinite(value):
        return "–"
    rounded = f"{value:,.0f}" if abs(value) >= 100 else f"{value:.{digits}g}"
    return rounded + (f"&#8239;{unit}" if unit else "")


def seconds(value: float | None) -> str:
    """A duration in milliseconds or seconds."""
    if value is None:
        return "–"
    return number(1000 * value, "ms") if value < 1 else number(value, "s")


def percent(share: float | None, digits: int = 1) -> str:
    return "–" if share is None else f"{100 * share:.{digits}f}&#8239;%"


def probability(logprob: float) -> str:
    """A log-probability as a percentage with three digits."""
    return f"{100 * math.exp(min(logprob, 0.0)):.3g} %"


def parameters(count: int) -> str:
    """0.52 M, 7.6 B."""
    return f"{count / 1e9:.3g} B" if count >= 1e9 else f"{count / 1e6:.3g} M"


def notice(message: object, kind: str = "soft") -> str:
    """One line in place of content; kind is soft or problem."""
    return f'<p class="rv-notice rv-{kind}">{text(message)}</p>'


def table(head: Sequence[str], rows: Sequence[Sequence[str]], caption: str = "") -> str:
    """A table of cells that are HTML already."""
    title = f"<caption>{caption}</caption>" if caption else ""
    heads = "".join(f"<th scope='col'>{cell}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return (
        f'<div class="rv-scroll"><table class="rv-table">{title}<thead><tr>{heads}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )
