"""Edit distance, as MathVista uses it to map any text to an option."""

from __future__ import annotations

from collections.abc import Sequence

MAX_LENGTH = 1_000


def distance(one: str, other: str) -> int:
    """Levenshtein distance: the fewest single-character insertions, deletions and substitutions between two texts."""
    row = list(range(len(other) + 1))
    for i, left in enumerate(one, 1):
        previous, row[0] = row[0], i
        for j, right in enumerate(other, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (left != right))
    return row[-1]


def nearest(text: str, choices: Sequence[str]) -> int:
    """The index of the choice nearest to `text`, the first of several; texts are cut at `MAX_LENGTH` characters."""
    distances = [distance(text[:MAX_LENGTH], choice[:MAX_LENGTH]) for choice in choices]
    return distances.index(min(distances))
