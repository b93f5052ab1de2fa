"""The benchmark of the embedded pair: visual questions whose problems are a pure function of (split, index, seed).

No image is shared between splits: handwriting samples are dealt to splits once and for all (`digits.py`), and a grid's
words are hashed to say which split may use it, so grids without handwriting are disjoint by construction too.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from random import Random

from reopold_vl.types import VisualSample
from reopold_vl.zoo import number_questions, questions
from reopold_vl.zoo.digits import Split
from reopold_vl.zoo.questions import Question
from reopold_vl.zoo.render import SIDE, Grid, render

TYPES = {
    "count": questions.count,
    "compare": questions.compare,
    "difference": questions.difference,
    "which row": questions.which_row,
    "find": questions.find,
    "look up": questions.look_up,
    "sum": number_questions.total,
    "range": number_questions.spread,
    "larger": number_questions.larger,
    "largest": number_questions.largest,
    "plus": number_questions.plus,
}
DEFAULT_NUM = {"train": 10_000, "validation": 440, "test": 2_200}
DESCRIBE = "Describe the image."


@dataclass(frozen=True)
class Problem:
    """A sample with the gold steps to its answer and the words in its nine cells (for supervised training)."""

    sample: VisualSample
    steps: str
    question: Question


def split_of(grid: Grid) -> Split:
    """The only split that may show this grid, from a hash of its words: 70 % train, 10 % validation, 20 % test."""
    bucket = hashlib.blake2b("|".join(grid).encode(), digest_size=4).digest()
    number = int.from_bytes(bucket, "big") % 10
    return "train" if number < 7 else "validation" if number < 8 else "test"


def problem(split: Split, index: int, *, seed: int = 0, kind: str | None = None) -> Problem:
    """Problem number `index` of a split; types take turns unless `kind` names one. Any index is allowed."""
    kind = kind or list(TYPES)[index % len(TYPES)]
    rng = Random(f"{split}/{seed}/{index}/{kind}")
    question = TYPES[kind](rng)
    while split_of(question.grid) != split:
        question = TYPES[kind](rng)
    steps = question.solve(question.grid)
    sample = VisualSample(
        id=f"{split}-{seed}-{index}-{kind.replace(' ', '_')}",
        question=question.text,
        answer=final_answer(steps),
        images=(render(question.grid, split, rng),),
        source=kind,
    )
    return Problem(sample, steps, question)


def problems(split: Split, num: int | None = None, *, seed: int = 0) -> list[VisualSample]:
    """The first `num` problems of a split as samples (default: 10,000 train, 440 validation, 2,200 test)."""
    return [problem(split, index, seed=seed).sample for index in range(num or DEFAULT_NUM[split])]


def final_answer(text: str) -> str:
    """What stands behind the last "Answer:" of a response; empty if it has none."""
    return text.rpartition("Answer:")[2].strip() if "Answer:" in text else ""


def describe(grid: Grid) -> str:
    """The auxiliary task's gold text: every cell's words, rows parted by semicolons."""
    rows = [", ".join(grid[i : i + SIDE]) for i in range(0, len(grid), SIDE)]
    return "; ".join(rows) + "."
