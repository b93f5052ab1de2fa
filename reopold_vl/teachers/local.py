"""A teacher in this process, on any device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Int
from torch import Tensor

from reopold_vl.models import VisionLanguageModel
from reopold_vl.prompts import PromptEncoder
from reopold_vl.score import score_tokens
from reopold_vl.teachers import SampleView
from reopold_vl.types import Answer, Prompt, Rollout, TeacherScores, VisualSample


@dataclass(frozen=True)
class LocalTeacher:
    """A loaded model as teacher.

    `share_prompts` lets it take the student's prompts as they are, which is right only where `same_prompt` held on
    samples of the data; otherwise its own processor encodes each sample once more. `rows_at_once` bounds the rollouts
    of one forward pass.
    """

    model: VisionLanguageModel
    rows_at_once: int
    share_prompts: bool = False

    @property
    def name(self) -> str:
        return self.model.path

    @property
    def num_parameters(self) -> int:
        return self.model.num_parameters

    @property
    def eos_ids(self) -> tuple[int, ...]:
        return self.model.eos_ids

    @property
    def image_factor(self) -> int | None:
        return self.model.encoder.factor

    def vocabulary(self) -> Mapping[str, int]:
        return self.model.tokenizer.get_vocab()

    def view(self, sample: VisualSample) -> SampleView:
        """See `Teacher.view`; raises ValueError for a sample that cannot be encoded."""
        return view_of(self.model.encoder, sample)

    def same_prompt(self, prompt: Prompt) -> bool:
        """See `Teacher.same_prompt`; raises ValueError where the teacher cannot encode the sample at all."""
        own = self.model.encoder(prompt.sample)
        same = own.ids.equal(prompt.ids) and own.vision.keys() == prompt.vision.keys()
        return same and all(torch.equal(own.vision[name], prompt.vision[name]) for name in own.vision)

    def score(self, rollouts: Sequence[Rollout]) -> TeacherScores:
        """See `Teacher.score`; raises ValueError for a sample that the teacher cannot encode."""
        return TeacherScores(score_tokens(self.model, self.seen(rollouts), rows_at_once=self.rows_at_once).logprobs)

    def seen(self, rollouts: Sequence[Rollout]) -> Sequence[Rollout]:
        """The same answers to the prompts that the teacher is asked with."""
        return rollouts if self.share_prompts else as_seen_by(self.model, rollouts)

    def answer(
        self, samples: Sequence[VisualSample], *, max_new_tokens: int, rows_at_once: int
    ) -> tuple[list[Answer | None], list[str]]:
        """See `Answerer.answer`."""
        return self.model.answer(samples, max_new_tokens=max_new_tokens, rows_at_once=rows_at_once)


def as_seen_by(model: VisionLanguageModel, rollouts: Sequence[Rollout]) -> list[Rollout]:
    """The same answers to prompts that `model`'s own processor encoded (other patch size, other normalisation)."""
    seen: dict[int, Prompt] = {}
    for rollout in rollouts:
        if id(rollout.prompt) not in seen:
            own = model.encoder(rollout.prompt.sample)
            seen[id(rollout.prompt)] = begun(own, rollout.prompt.begun_ids) if rollout.prompt.begun else own
    return [replace(rollout, prompt=seen[id(rollout.prompt)]) for rollout in rollouts]


def begun(prompt: Prompt, ids: Int[Tensor, " begun"]) -> Prompt:
    """The prompt with an answer's first tokens, `ids`, behind it."""
    return replace(
        prompt,
        ids=torch.cat([prompt.ids, ids]),
        token_types=torch.cat([prompt.token_types, torch.zeros_like(ids)]),
        begun=prompt.begun + len(ids),
    )


def view_of(encoder: PromptEncoder, sample: VisualSample) -> SampleView:
    """How the encoder's model sees a sample. Raises ValueError for a sample that cannot be encoded."""
    text, images = encoder.render(sample), encoder.images(sample)
    prompt = encoder.expand(sample, text, images)
    grids = prompt.vision["image_grid_thw"].tolist() if "image_grid_thw" in prompt.vision else []
    return SampleView(
        text=text,
        prompt_tokens=len(prompt.ids),
        image_tokens=int((prompt.token_types == 1).sum()),
        image_sizes=tuple(image.size for image in images),
        image_grids=tuple(tuple(grid) for grid in grids),
    )
