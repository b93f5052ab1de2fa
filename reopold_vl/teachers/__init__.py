"""Teachers say how likely they would have written each of the student's tokens; one file for each place they can be.

`local.py` holds a teacher in this process, `server.py` speaks to `python -m reopold_vl.serve_teacher`, `routed.py` asks
several by a sample's source, `build.py` makes whichever the configuration names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from reopold_vl.types import Answer, Prompt, Rollout, TeacherScores, VisualSample


class TeacherError(ValueError):
    """A teacher that cannot be reached, or whose answer cannot be trusted; the message says which and why."""


@dataclass(frozen=True)
class SampleView:
    """How a model sees one sample, to compare two models by.

    `text` is what the chat template renders, with one placeholder an image. `prompt_tokens` counts the expanded
    prompt, `image_tokens` the placeholders in it. `image_sizes` are (width, height) in pixels of the fitted pictures,
    `image_grids` their patches (time, height, width) in families that have such a grid, else empty.
    """

    text: str
    prompt_tokens: int
    image_tokens: int
    image_sizes: tuple[tuple[int, int], ...]
    image_grids: tuple[tuple[int, ...], ...] = ()


class Answerer(Protocol):
    """Anything whose greedy answers can be graded: a model in this process, or a teacher behind a URL."""

    def answer(
        self, samples: Sequence[VisualSample], *, max_new_tokens: int, rows_at_once: int
    ) -> tuple[list[Answer | None], list[str]]:
        """One greedy answer to each sample, in their order; None where a sample cannot be shown to the model, and
        one reason for each None."""
        ...


class Teacher(Answerer, Protocol):
    """Scores the student's rollouts. `name` is what reports and errors call it.

    What a teacher does not tell is None: a check then says that it could not look, never that all is well.
    """

    @property
    def name(self) -> str: ...

    @property
    def num_parameters(self) -> int | None: ...

    @property
    def eos_ids(self) -> tuple[int, ...] | None:
        """Tokens that end an answer."""
        ...

    @property
    def image_factor(self) -> int | None:
        """Pixels per side of one visual token, in families with square ones."""
        ...

    def vocabulary(self) -> Mapping[str, int] | None:
        """Token -> id of the tokenizer, added tokens included."""
        ...

    def view(self, sample: VisualSample) -> SampleView | None:
        """The sample as the teacher's own chat template and processor make it. Raises ValueError if they cannot."""
        ...

    def same_prompt(self, prompt: Prompt) -> bool:
        """Whether the teacher makes the very same ids and image tensors of the sample, so that it may take the
        student's prompts as they are. A teacher in another process never does."""
        ...

    def score(self, rollouts: Sequence[Rollout]) -> TeacherScores:
        """log pi_T of every response token, from the teacher's own view of each rollout's sample.

        Pictures that were changed in the sample are therefore seen. Raises TeacherError: a position without a
        score is never made up.
        """
        ...
