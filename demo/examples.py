"""Questions to start with: a gallery, and any held-out item of the embedded benchmark with its gold answer."""

from __future__ import annotations

import random
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reopold_vl.types import VisualSample

# One of each question type, in the order of the benchmark; the numbers were not chosen for their answers.
GALLERY = tuple(range(22, 33))
NUM_HELD_OUT = 2_200


@lru_cache(maxsize=64)
def held_out(number: int) -> VisualSample:
    """Problem `number` of the embedded test split."""
    from reopold_vl.zoo.task import problem

    return problem("test", number).sample


def gallery() -> list[VisualSample]:
    """One problem of each type."""
    return [held_out(number) for number in GALLERY]


def surprise() -> VisualSample:
    """A held-out problem by chance; the models were not trained on its picture."""
    return held_out(random.SystemRandom().randrange(NUM_HELD_OUT))


def question_forms() -> list[str]:
    """One question of each type, to show what the embedded models can be asked."""
    return [sample.question for sample in gallery()]
