"""What flows through an evaluation: row -> Problem -> Response -> Verdict -> Graded. All frozen, none needs torch.

A `Problem` without its images is plain JSON and travels inside every stored response, so that responses can be scored
again, years later, with neither the benchmark nor a model at hand.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from reopold_vl.types import VisualSample

AnswerKind = Literal["choice", "choices", "integer", "float", "number", "list", "yes_no", "expression", "text"]
"""What a right answer looks like: one option; a set of options; a whole number; a number with `precision` decimals; any
number; a list of numbers; yes or no; a formula or number in LaTeX; words."""

Scorer = Literal["strict", "official"]
"""`strict`: an answer counts when it is stated, never by luck. `official`: the benchmark's published rule."""

Status = Literal["answered", "unparsed", "refusal"]

FinishReason = Literal["stop", "length", "failed"]
"""`length`: cut off at the token limit (truncated). `failed`: the problem could not be shown to the model."""


@dataclass(frozen=True)
class Problem:
    """One item of a benchmark: what is asked and what it takes to score an answer.

    `question` is the benchmark's own question without hints (prompts are made of it by `Benchmark.prompts`); `answer`
    is the gold answer as the benchmark stores it, None where it is hidden. `choices` are the options' texts in order
    (letters A, B, ... go with the order). `unit` and `precision` (decimals) are the benchmark's where it has them.
    `tags` are what the benchmark breaks its accuracy down by, such as {"skills": ("algebra", "geometry")}; an item may
    count under several values. `extra` holds JSON values that official metrics, prompts or exporters need. `images`
    is anything `reopold_vl.images.load_image` takes; it is not stored with responses.
    """

    id: str
    question: str
    answer: str | None
    kind: AnswerKind
    choices: tuple[str, ...] = ()
    unit: str = ""
    precision: int | None = None
    tags: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)
    images: tuple[Any, ...] = ()

    def put_as(self, prompt: str) -> VisualSample:
        """What a model is shown: the prompt and the images, without the choices (the prompt lists them as it should)
        and without the gold answer."""
        from reopold_vl.types import VisualSample

        return VisualSample(self.id, prompt, images=self.images)


@dataclass(frozen=True)
class Response:
    """One stored answer of a model: a line of `responses_<bench>.jsonl`.

    `sample` numbers the answers to one problem (0 .. n-1). `key` identifies what was asked of whom: a hash of
    benchmark, id, prompt, images, generation settings and model. `tokens` counts the answer's tokens, EOS included.
    `seconds` is the wall clock of the batch divided by its rows. `error` says why a problem could not be shown to the
    model (`finish_reason` is then "failed" and `text` empty).
    """

    bench: str
    model: str
    problem: Problem
    sample: int
    key: str
    prompt: str
    text: str
    finish_reason: FinishReason
    tokens: int = 0
    prompt_tokens: int = 0
    seconds: float = 0.0
    error: str = ""


@dataclass(frozen=True)
class Verdict:
    """What a scorer found: the answer as extracted (None: nothing found), by which rule, and whether it is right.

    `status` is "refusal" where the model declined to answer and "unparsed" where no final answer can be recognised;
    under `strict` neither is ever right.
    """

    extraction: str | None
    rule: str
    correct: bool
    status: Status = "answered"


@dataclass(frozen=True)
class Graded:
    """A response with its verdict. Failed inputs have none and stay out of the accuracy, counted and listed."""

    response: Response
    verdict: Verdict | None

    @property
    def correct(self) -> bool:
        return self.verdict is not None and self.verdict.correct
