"""What a benchmark is: where its rows lie, how they are shown, how answers to them are scored. One file each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from eval.types import Graded, Problem, Scorer, Verdict

Row = Mapping[str, Any]
Grader = Callable[[Problem, str], Verdict]


class BenchmarkError(ValueError):
    """A benchmark, or data for it, that cannot be used; one line saying what is wrong and what would be right."""


@dataclass(frozen=True)
class Source:
    """A place on the Hub: data set id and configuration. Ids move: a benchmark lists the newest first.

    In `config`, "{split}" stands for the name of the split, and "*" alone means every configuration, one after the
    other in the order of their names.
    """

    id: str
    config: str | None = None
    revision: str | None = None


@dataclass(frozen=True)
class Benchmark:
    """One benchmark.

    `splits` are those that can be scored, the default first; `hidden_splits` exist but have no public answers.
    `columns` are what every row must have (each entry: alternatives, best first); `read` makes a Problem of a row with
    these columns and raises BenchmarkError for a row that cannot be one; it leaves `images` empty where the row has
    no image cell, so that stored rows without pictures can be read as well. `prompts` are the variants of how a
    problem is worded, the default first: a function from a problem to the text of the user's turn, with one `<image>`
    marker for each image where images stand inside the text. `graders` hold a function for each scorer. `metrics`
    computes the official figures over graded answers (one per problem) beside plain accuracy and the breakdowns by
    `Problem.tags`, as {"name": share or number}; `headline` names the one that papers quote ("accuracy" is the plain
    one); figures that need complete groups leave incomplete ones out, and are left out where none is complete.
    """

    name: str
    title: str
    licence: str
    citation: str
    sources: tuple[Source, ...]
    splits: tuple[str, ...]
    columns: tuple[tuple[str, ...], ...]
    read: Callable[[Row], Problem]
    prompts: Mapping[str, Callable[[Problem], str]]
    graders: Mapping[Scorer, Grader]
    hidden_splits: tuple[str, ...] = ()
    metrics: Callable[[Sequence[Graded]], Mapping[str, float]] = field(default=lambda graded: {})
    headline: str = "accuracy"
    max_new_tokens: int = 1024
    rows: Callable[[str], Sequence[Problem]] | None = None
    """For a benchmark that is computed and not read (the embedded one): the problems of a split."""
