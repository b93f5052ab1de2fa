"""Engines that sample answers. An engine is anything with `Engine.generate`; `hf.py` is the one that runs anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from reopold_vl.types import Prompt, Rollout


def prompt_batches(prompts: Sequence[Prompt], size: int) -> list[list[int]]:
    """Places in `prompts`, `size` in a batch: those of similar length together."""
    order = sorted(range(len(prompts)), key=lambda place: len(prompts[place].ids))
    return [order[start : start + size] for start in range(0, len(order), size)]


class Engine(Protocol):
    """Samples answers from the student.

    `exact` says that the log-probs and entropies which it returns equal the trainer's own forward pass to fp32
    rounding; where it is false the trainer scores the student once more. The gap is logged (`rollout/engine_gap`).
    """

    @property
    def exact(self) -> bool: ...

    def sync(self) -> None:
        """Take over the student's weights; called after every step's updates."""
        ...

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        n: int,
        max_new_tokens: int,
        seed: int,
        keys: Sequence[int] | None = None,
        temperature: float = 1.0,
        top_p: float = 1.0,
    ) -> list[Rollout]:
        """`n` answers to each prompt, those of one prompt next to each other, in the order of `prompts`.

        `keys` gives each prompt's place in the whole step's batch (None: 0, 1, 2, ...). The random numbers of an answer
        are a function of `seed`, its prompt's key, its number among the `n` and the token's place, and of nothing else:
        however prompts are cut into batches or shared among processes, the same key is answered in the same way, up to
        the rounding of log-probs. `temperature` 0 is greedy and needs no numbers.
        """
        ...
