"""Teachers say how likely they would have written each of the student's tokens; one file for each place they can be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from reopold_vl.types import Rollout, TeacherScores


class TeacherError(ValueError):
    """A teacher that cannot be reached, or whose answer cannot be trusted; the message says which and why."""


class Teacher(Protocol):
    """Scores the student's rollouts. `name` is what reports and errors call it."""

    @property
    def name(self) -> str: ...

    @property
    def num_parameters(self) -> int | None:
        """None where the teacher does not tell."""
        ...

    def score(self, rollouts: Sequence[Rollout]) -> TeacherScores:
        """log pi_T of every response token, from the teacher's own view of each rollout's sample.

        Raises TeacherError: a position without a score is never made up.
        """
        ...
