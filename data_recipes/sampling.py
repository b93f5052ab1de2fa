"""Answers of a model to samples, judged: how often it is right, and which of its responses are worth keeping."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from data_recipes.config import require
from data_recipes.types import RecipeError, RowError
from reopold_vl.answers import is_correct
from reopold_vl.seeds import derive_seed
from reopold_vl.types import VisualSample

if TYPE_CHECKING:
    from reopold_vl.models import VisionLanguageModel

BLOCK = 32
"""Prompts sampled together: what is redone after a kill, and whose image tensors are in memory at once."""


@dataclass(frozen=True)
class Sampling:
    """How answers are drawn. `k` answers to a prompt; `temperature` 0 is greedy; `rows_at_once` answers share a batch.

    Another `rows_at_once` draws the same answers from the same seed.
    """

    k: int = 4
    temperature: float = 1.0
    top_p: float = 1.0
    max_new_tokens: int = 2048
    rows_at_once: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("k", "max_new_tokens", "rows_at_once"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        require(0 <= self.temperature < math.inf, "temperature", self.temperature, "0 (greedy) or more")
        require(0 < self.top_p <= 1, "top_p", self.top_p, "above 0, at most 1")
        greedy = self.temperature == 0 and self.k > 1
        require(not greedy, "k", self.k, "1 at temperature 0, where all answers are the same")


@dataclass(frozen=True)
class Sampled:
    """The answers to one prompt, in the order in which they were drawn.

    `finished` tells which ended by themselves (not at the token limit). `error` says why there are none: the prompt
    cannot be shown to the model, or there is no gold answer to compare with.
    """

    sample: VisualSample
    responses: tuple[str, ...] = ()
    right: tuple[bool, ...] = ()
    finished: tuple[bool, ...] = ()
    error: str = ""

    @property
    def num_right(self) -> int:
        return sum(self.right)

    @property
    def pass_rate(self) -> float:
        """Share of right answers; NaN where none could be drawn."""
        return self.num_right / len(self.responses) if self.responses else math.nan

    def kept(self) -> tuple[str, ...]:
        """The distinct responses that are right and ended by themselves."""
        judged = zip(self.responses, self.right, self.finished, strict=True)
        return tuple(dict.fromkeys(response for response, right, finished in judged if right and finished))


def load_sampler(
    path: str,
    *,
    min_pixels: int = 4 * 28 * 28,
    max_pixels: int = 1280 * 28 * 28,
    max_prompt_tokens: int = 4096,
    instruction: str = "",
    device: str = "auto",
) -> VisionLanguageModel:
    """Load a model to sample from (directory, Hub id, zoo:teacher): bfloat16 on a GPU, float32 on a CPU.

    The pixel budget is the one that `reopold_vl.train` has by default. Raises RecipeError for a model that cannot be
    loaded.
    """
    from reopold_vl.models import ModelError, load_model, pick_device, pick_dtype

    try:
        dtype = pick_dtype("auto", pick_device(device))
        return load_model(
            path,
            dtype=dtype,
            compute=dtype,
            device=device,
            min_pixels=min_pixels,
            max_pixels=max_pixels,
            max_prompt_tokens=max_prompt_tokens,
            instruction=instruction,
        )
    except ModelError as error:
        raise RecipeError(str(error)) from error


def sample_block(
    model: VisionLanguageModel, samples: Sequence[VisualSample], sampling: Sampling, *, block: int = 0
) -> list[Sampled]:
    """`k` answers to each sample, judged by `reopold_vl.answers.is_correct`, in the order of `samples`.

    What is drawn is a function of the weights, the samples, `sampling` and the number `block`: blocks can be redone
    one by one, in any order.
    """
    encoded, failed = [], dict[int, str]()
    for place, sample in enumerate(samples):
        try:
            if not (sample.answer or "").strip():
                raise RowError("no answer to compare responses with")
            encoded.append((place, model.encoder(sample)))
        except ValueError as error:  # PromptError, ImageError: this sample's own fault, and it says so
            failed[place] = str(error)
    rollouts = model.engine(rows_at_once=sampling.rows_at_once).generate(
        [prompt for _, prompt in encoded],
        n=sampling.k,
        max_new_tokens=sampling.max_new_tokens,
        seed=derive_seed("teacher", sampling.seed, block),
        temperature=sampling.temperature,
        top_p=sampling.top_p,
    )
    found = {place: Sampled(samples[place], error=reason) for place, reason in failed.items()}
    for number, (place, _) in enumerate(encoded):
        answers = rollouts[number * sampling.k : (number + 1) * sampling.k]
        texts = tuple(model.tokenizer.decode(answer.response_ids, skip_special_tokens=True) for answer in answers)
        found[place] = Sampled(
            samples[place],
            texts,
            tuple(is_correct(text, samples[place]) for text in texts),
            tuple(answer.finish_reason == "stop" for answer in answers),
        )
    return [found[place] for place in range(len(samples))]


def pass_rates(
    model: VisionLanguageModel,
    samples: Sequence[VisualSample],
    sampling: Sampling,
    *,
    first_block: int = 0,
) -> list[float]:
    """Each prompt's share of right answers (difficulty for this model); NaN where none could be drawn.

    Blocks are numbered from `first_block`: a caller that goes on after a kill passes where it stopped.
    """
    rates: list[float] = []
    for number, start in enumerate(range(0, len(samples), BLOCK), first_block):
        block = sample_block(model, samples[start : start + BLOCK], sampling, block=number)
        rates += [sampled.pass_rate for sampled in block]
    return rates
