"""What an extractor returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from eval.scoring.refusal import refusal_words, refuses
from eval.scoring.text import is_repeating
from eval.types import Status

WHOLE_LIMIT = 120
"""A response up to this length, on one line, can be an answer as a whole."""


@dataclass(frozen=True)
class Finding:
    """An extracted answer: its text, how it was found, the options it names, the number it is."""

    text: str | None
    rule: str
    status: Status = "answered"
    indices: tuple[int, ...] = ()
    number: float | None = None


NOTHING = Finding(None, "nothing", "unparsed")


def declined(text: str, parts: Sequence[str]) -> Finding | None:
    """The finding for a text without explicit statement that declines to answer or is stuck in repeating itself."""
    if refuses(list(parts)):
        return Finding(refusal_words(list(parts)), "refusal", "refusal")
    return Finding(None, "repeating", "unparsed") if is_repeating(text) else None
