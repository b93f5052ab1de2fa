"""Hasty answers: the right steps on a grid that somebody misread in a hurry.

The cold-started student answers like this most of the time. Its skill stays latent (a share of full answers keeps it
alive), which is what on-policy distillation then brings out.
"""

from __future__ import annotations

from reopold_vl.zoo.render import Grid
from reopold_vl.zoo.task import Problem

LOOK_ALIKE = {"7": "1", "9": "4", "8": "3"}
ALL_NINE_DIGITS = {"7": "1"}  # where every cell counts, more confusions would leave hardly any answer right
MISSED_CELLS = {"count": 3, "compare": 3, "difference": 2, "which row": 3, "find": 3}  # the last ones, read as empty


def misread(grid: Grid, kind: str) -> Grid:
    """What is seen in a hurry: the last row (or two cells) is missed, look-alike digits are confused."""
    confused = ALL_NINE_DIGITS if kind == "larger" else LOOK_ALIKE
    seen = tuple(confused.get(word, word) for word in grid)
    missed = MISSED_CELLS.get(kind, 0)
    return seen[: len(seen) - missed] + ("empty",) * missed


def hasty_steps(item: Problem) -> str:
    """The steps on the misread grid."""
    return item.question.solve(misread(item.question.grid, item.sample.source))
