"""What flows through a training step: VisualSample -> Prompt -> Rollout -> ScoredBatch -> TokenSignal -> LossOutput.

Every type is frozen and complete from birth. Shapes: B rollouts, T response tokens ("batch time"),
P prompt tokens. Nothing here imports torch at run time unless it is loaded already (the tests check shapes
through jaxtyping, `--help` should not wait for torch).
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from jaxtyping import Bool, Float, Int

if TYPE_CHECKING or "torch" in sys.modules:
    from torch import Tensor

FinishReason = Literal["stop", "length"]
IMAGE_MARKER = "<image>"  # in a question: here goes the next image


@dataclass(frozen=True)
class VisualSample:
    """One image question: what recipes write, training draws, evaluation scores and the demo shows.

    `images` holds anything `reopold_vl.images.load_image` accepts: PIL images, paths, bytes, data URIs.
    `question` may contain one `<image>` marker per image to say where each one goes; without markers the
    images come first. `source` groups samples in reports (the question type, the data set's name).
    """

    id: str
    question: str
    answer: str | None = None
    images: tuple[Any, ...] = ()
    choices: tuple[str, ...] | None = None
    source: str = ""
    system: str | None = None


@dataclass(frozen=True)
class Prompt:
    """One sample as the models see it: ids with every image placeholder expanded, and the image tensors.

    `ids` and `token_types` are [P] int64 (`token_types` is 1 on image placeholders); `vision` maps
    `pixel_values` [patches, dim] and `image_grid_thw` [images, 3], and is empty for a text-only sample. Where the
    teacher has begun the answer, the last `begun` of the ids are its tokens, and a response goes on from there.
    """

    sample: VisualSample
    ids: Int[Tensor, " prompt"]
    token_types: Int[Tensor, " prompt"]
    vision: Mapping[str, Tensor] = field(default_factory=dict)
    begun: int = 0

    @property
    def begun_ids(self) -> Int[Tensor, " begun"]:
        """The tokens of the answer that were there before the response."""
        return self.ids[len(self.ids) - self.begun :]


@dataclass(frozen=True)
class Rollout:
    """One answer of the student: token ids with EOS where it was sampled, and what the engine knew of each.

    `logprobs` and `entropy` are the student's own at sampling time, in nats, over the full vocabulary at T = 1.
    """

    prompt: Prompt
    response_ids: Int[Tensor, " time"]
    logprobs: Float[Tensor, " time"]
    entropy: Float[Tensor, " time"]
    finish_reason: FinishReason


@dataclass(frozen=True)
class Answer:
    """What a model says to a sample: text without special tokens, and how it ended."""

    text: str
    finish_reason: FinishReason


@dataclass(frozen=True)
class TeacherScores:
    """log pi_T of the response tokens, [B, T] on the CPU; entries outside the response are 0.

    `spans` numbers the text spans of a teacher with another vocabulary: tokens of one rollout with the same number
    share a span, and `logprobs` then holds on each of them log pi_T of the whole span. None: each token is its own.
    """

    logprobs: Float[Tensor, "batch time"]
    spans: Int[Tensor, "batch time"] | None = None


@dataclass(frozen=True)
class ScoredBatch:
    """Everything an objective may look at; [B, T] over response tokens only, no gradient.

    `rewards` is R_t = teacher_logprobs - old_logprobs. `mask` is true on response tokens, EOS included; entries
    outside it are undefined and must not matter. The fields after it cost something and are there when the objective's
    `needs` names them.
    """

    old_logprobs: Float[Tensor, "batch time"]
    teacher_logprobs: Float[Tensor, "batch time"]
    entropy: Float[Tensor, "batch time"]
    rewards: Float[Tensor, "batch time"]
    mask: Bool[Tensor, "batch time"]
    groups: Int[Tensor, " batch"] | None = None
    """The same number for answers to the same prompt."""
    correct: Float[Tensor, " batch"] | None = None
    """1 for an answer that the grader finds right, 0 otherwise."""
    reference_logprobs: Float[Tensor, "batch time"] | None = None
    """The student's log-probs before training began."""
    divergence: Float[Tensor, "batch time"] | None = None
    """KL(pi_S || pi_T) over the whole vocabulary at each token's context, in nats."""
    blind_teacher_logprobs: Float[Tensor, "batch time"] | None = None
    """The teacher's log-probs of the same tokens when the picture is degraded or taken away."""
    blind_student_logprobs: Float[Tensor, "batch time"] | None = None
    """The student's, in the same way."""


@dataclass(frozen=True)
class TokenSignal:
    """How hard to push each token: `advantages` A_t where `mask` is true, and metrics named `area/name`.

    `ratio_bounds` (low, high) makes the loss PPO's pessimistic one, min(rho A, clip(rho, low, high) A); None is rho A.
    """

    advantages: Float[Tensor, "batch time"]
    mask: Bool[Tensor, "batch time"]
    metrics: Mapping[str, float] = field(default_factory=dict)
    ratio_bounds: tuple[float, float] | None = None


@dataclass(frozen=True)
class LossOutput:
    """The scalar to minimise (with gradient) and the metrics of this piece of the batch, left where they were made."""

    loss: Float[Tensor, ""]
    metrics: Mapping[str, Float[Tensor, ""]] = field(default_factory=dict)


class Objective(Protocol):
    """A frozen dataclass that is also a pure function: sees the whole batch, never a gradient.

    Class attributes say what it needs beyond that, where it does. `needs` (a frozenset) names the optional fields of
    ScoredBatch that it reads, `blind` ("pixelated" or "removed") how the picture is degraded for the `blind_` ones, and
    `sampler` ("student" or "teacher") who answers. A method `prefix_share(step)` is the share of its own answer that
    the teacher writes before the student goes on.
    """

    def __call__(self, batch: ScoredBatch, *, step: int) -> TokenSignal: ...


class Divergence(Protocol):
    """The second contract: an objective whose loss takes both models' whole distributions, not one advantage a token.

    Called like an Objective it says which tokens are trained on. `token_loss` is then computed in the gradient pass,
    tile by tile, never for all tokens at once: `student` (with gradient) and `teacher` (without) are finite
    log-probabilities over their common vocabulary, `advantages` what the signal gave for these tokens. Returns nats,
    to be minimised. It needs a local teacher of the student's vocabulary.
    """

    def __call__(self, batch: ScoredBatch, *, step: int) -> TokenSignal: ...

    def token_loss(
        self,
        student: Float[Tensor, "tokens vocab"],
        teacher: Float[Tensor, "tokens vocab"],
        *,
        ids: Int[Tensor, " tokens"],
        old_logprobs: Float[Tensor, " tokens"],
        advantages: Float[Tensor, " tokens"],
    ) -> Float[Tensor, " tokens"]: ...
