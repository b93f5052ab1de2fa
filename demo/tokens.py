"""Token ids as the pieces of text that they add."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_MAX_BYTES = 4  # of one character in UTF-8


def token_texts(tokenizer: Any, ids: Sequence[int]) -> tuple[str, ...]:
    """One piece of text for each token, which together read as the whole answer.

    A character that several tokens share the bytes of stands with the last of them, the others are empty. Bytes that
    never become a character show as U+FFFD. Special tokens (the end of the answer) are empty.
    """
    pieces: list[str] = []
    special = set(tokenizer.all_special_ids)
    start = 0
    for index, token in enumerate(ids):
        if token in special:
            start = index + 1
            pieces.append("")
            continue
        piece = tokenizer.decode(list(ids[start : index + 1]), skip_special_tokens=False)
        waiting = piece.endswith("\ufffd") and index - start + 1 < _MAX_BYTES and index + 1 < len(ids)
        pieces.append("" if waiting else piece)
        start = start if waiting else index + 1
    return tuple(pieces)


def extend_texts(tokenizer: Any, pieces: Sequence[str], ids: Sequence[int]) -> tuple[str, ...]:
    """`token_texts` of a growing answer: `pieces` are those of its beginning, so that only what is new is decoded."""
    known = len(pieces)
    while known and len(pieces) - known < _MAX_BYTES and (not pieces[known - 1] or pieces[known - 1][-1] == "\ufffd"):
        known -= 1
    return (*pieces[:known], *token_texts(tokenizer, ids[known:]))
