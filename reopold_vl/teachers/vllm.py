"""A vLLM server as teacher. It scores a prompt's tokens (`prompt_logprobs`), so the answer is sent as prompt.

Two ways, chosen by what the server has. With `--enable-scale-out` the rollout's own token ids go in, beside the images.
Without it the answer goes in as text, as the last message of a chat, and is tokenised again: an answer that comes out
as other tokens cannot be scored: none of its tokens has a span then, nothing is learned from it, and the step's
`teacher/dropped` counts it. Either way the ids that the server scored are compared with ours, image tokens included.
Written against the source of vLLM 0.33.0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from reopold_vl.collate import pad_right
from reopold_vl.prompts import PromptEncoder, messages
from reopold_vl.teachers import SampleView, TeacherError
from reopold_vl.teachers.vllm_replies import answer_logprobs, chat_messages, takes_token_ids
from reopold_vl.types import Answer, Prompt, Rollout, TeacherScores, VisualSample
from reopold_vl.vllm_http import (
    CHAT,
    GENERATE,
    VLLMClient,
    VLLMError,
    content_parts,
    image_address,
    prompt_of,
    require_prompt,
    served_card,
    unexpanded_ids,
)


@dataclass(frozen=True)
class VLLMTeacher:
    """A model behind a vLLM server; make one with `connect`.

    `encoder` is that of the student, or of the teacher's own processor where the two see pictures differently: the
    server must build exactly its prompts. `exact` says that token ids go in as they are.
    """

    client: VLLMClient
    model: str
    encoder: PromptEncoder
    end_ids: tuple[int, ...]
    exact: bool
    max_model_len: int | None = None

    @property
    def name(self) -> str:
        return f"{self.model} at {self.client.base}"

    @property
    def num_parameters(self) -> None:
        """The server does not tell."""

    @property
    def eos_ids(self) -> None:
        """The server does not tell; answers end at the student's end tokens."""

    @property
    def image_factor(self) -> None:
        """The server does not tell; `view` counts its image tokens."""

    def vocabulary(self) -> None:
        """The server does not tell; every scored prompt and answer is compared token by token instead."""

    def same_prompt(self, prompt: Prompt) -> bool:
        """Never: the server encodes the samples itself."""
        return False

    def view(self, sample: VisualSample) -> SampleView:
        """The sample as the server's chat template and processor make it; image sizes are those of what it is sent.

        Raises TeacherError, or ValueError for a sample that cannot be encoded here.
        """
        ours = self.encoder(sample)
        images = self.encoder.images(sample)
        ids = self._prompt_of(self._chat(sample, [image_address(image) for image in images], max_tokens=1))
        text = self.encoder.render(sample)
        image_ids = set(ours.ids[ours.token_types == 1].tolist())
        if ids != ours.ids.tolist():  # what it shows instead, with neighbouring placeholders as one
            shown = [token for i, token in enumerate(ids) if token not in image_ids or i == 0 or ids[i - 1] != token]
            text = self.encoder.processor.tokenizer.decode(shown)
        return SampleView(
            text=text,
            prompt_tokens=len(ids),
            image_tokens=sum(token in image_ids for token in ids),
            image_sizes=tuple(image.size for image in images),
        )

    def score(self, rollouts: Sequence[Rollout]) -> TeacherScores:
        """See `Teacher.score`; answers that the server tokenises otherwise have no spans.

        Raises TeacherError where the server fails, where its prompt is not ours, and where no answer can be scored.
        """
        prompts = {id(rollout.prompt): rollout.prompt for rollout in rollouts}
        seen = dict(
            zip(prompts, self.client.map(lambda prompt: self._encode(prompt.sample), prompts.values()), strict=True)
        )
        rows = self.client.map(lambda rollout: self._row(rollout, *seen[id(rollout.prompt)]), rollouts)
        if rows and not any(row is not None for row in rows):
            raise TeacherError(f"{self.name}: not one of {len(rows)} answers keeps its tokens as text: {_REMEDY}")
        lengths = [len(rollout.response_ids) for rollout in rollouts]
        filled = [torch.zeros(length) if row is None else row for row, length in zip(rows, lengths, strict=True)]
        logprobs = pad_right(filled, 0.0)
        if all(row is not None for row in rows):
            return TeacherScores(logprobs)
        scored = pad_right(
            [torch.full((len(row),), answer is not None) for row, answer in zip(filled, rows, strict=True)], False
        )
        return TeacherScores(logprobs, spans=torch.where(scored, torch.arange(logprobs.shape[1]), -1))

    def answer(
        self, samples: Sequence[VisualSample], *, max_new_tokens: int, rows_at_once: int
    ) -> tuple[list[Answer | None], list[str]]:
        """See `Answerer.answer`: greedy chat completions, nothing of the server's own sampling settings.

        Raises TeacherError where the server fails; `rows_at_once` is the server's own business.
        """
        made = self.client.map(lambda sample: self._answer(sample, max_new_tokens), samples)
        return [item if isinstance(item, Answer) else None for item in made], [i for i in made if isinstance(i, str)]

    def _answer(self, sample: VisualSample, max_new_tokens: int) -> Answer | str:
        try:
            prompt, pictures = self._encode(sample)
        except ValueError as error:
            return f"{sample.id}: {error}"
        reply = self._chat(sample, pictures, max_tokens=max_new_tokens, stop_token_ids=list(self.end_ids))
        self._require_prompt(self._prompt_of(reply), prompt)
        try:
            choice = reply["choices"][0]
            ids, reason = choice["token_ids"], choice["finish_reason"]
            text = self.encoder.processor.tokenizer.decode(ids, skip_special_tokens=True)
        except (KeyError, IndexError, TypeError) as error:
            raise TeacherError(f"{self.name}: sample {sample.id}: the answer has no usable {error}") from error
        return Answer(text, "length" if reason == "length" else "stop")

    def _encode(self, sample: VisualSample) -> tuple[Prompt, list[str]]:
        """The prompt that the server must build, and the pictures that it is sent."""
        return self.encoder(sample), [image_address(image) for image in self.encoder.images(sample)]

    def _row(self, rollout: Rollout, prompt: Prompt, pictures: list[str]) -> torch.Tensor | None:
        """log pi_T [T] of one answer, or None where the server scored other tokens of the same text."""
        answer = rollout.response_ids.tolist()
        self._require_room(prompt, len(answer))
        if self.exact:
            reply = self._score_ids([*unexpanded_ids(self.encoder, prompt.sample), *answer], pictures)
        else:
            text = self.encoder.processor.tokenizer.decode(answer, clean_up_tokenization_spaces=False)
            reply = self._chat(prompt.sample, pictures, max_tokens=1, prefix=text, prompt_logprobs=0)
        ids = self._prompt_of(reply)
        if ids != [*prompt.ids.tolist(), *answer]:
            if self.exact or not self._retokenised(ids, prompt, answer):
                self._require_prompt(ids[: len(prompt.ids)], prompt)
                raise TeacherError(
                    f"{self.name}: sample {prompt.sample.id}: the server scored other tokens of the answer"
                )
            return None
        where = f"{self.name}: sample {prompt.sample.id}"
        return torch.tensor(answer_logprobs(reply.get("prompt_logprobs"), ids, len(answer), where=where))

    def _retokenised(self, ids: Sequence[int], prompt: Prompt, answer: Sequence[int]) -> bool:
        """Whether the server's prompt is ours and only the answer's text is cut into other tokens."""
        ours = prompt.ids.tolist()
        if list(ids[: len(ours)]) == ours:
            return True
        # The answer's first characters may have merged with the prompt's last token.
        decode = self.encoder.processor.tokenizer.decode
        return decode(list(ids)) == decode([*ours, *answer])

    def _score_ids(self, token_ids: list[int], pictures: Sequence[str]) -> dict[str, Any]:
        body = {
            "model": self.model,
            "token_ids": token_ids,
            "sampling_params": {"max_tokens": 1, "prompt_logprobs": 0, "detokenize": False},
            "return_token_ids": True,
        }
        return self._post(GENERATE, body | ({"content_parts": content_parts(pictures)} if pictures else {}))

    def _chat(
        self, sample: VisualSample, pictures: Sequence[str], *, max_tokens: int, prefix: str | None = None, **more: Any
    ) -> dict[str, Any]:
        conversation = chat_messages(messages(sample, self.encoder.instruction), pictures, prefix)
        settings = {"temperature": 0.0, "repetition_penalty": 1.0}  # else those of the model's generation settings
        body = {
            "model": self.model,
            "messages": conversation,
            "max_tokens": max_tokens,
            "add_generation_prompt": prefix is None,
            "continue_final_message": prefix is not None,
            "return_token_ids": True,
        }
        return self._post(CHAT, body | settings | more)

    def _require_room(self, prompt: Prompt, answer: int) -> None:
        needed = len(prompt.ids) + answer + 1  # the server wants to write one token
        if self.max_model_len is not None and needed > self.max_model_len:
            raise TeacherError(
                f"{self.name}: sample {prompt.sample.id} needs {needed} tokens and the server takes "
                f"{self.max_model_len}: raise vllm serve --max-model-len, or lower --rollout.max-new-tokens"
            )

    def _require_prompt(self, ids: Sequence[int], prompt: Prompt) -> None:
        try:
            require_prompt(ids, prompt, self.encoder.processor.tokenizer)
        except ValueError as error:
            raise TeacherError(f"{self.name}: {error}") from None

    def _prompt_of(self, reply: Mapping[str, Any]) -> list[int]:
        try:
            return prompt_of(reply)
        except VLLMError as error:
            raise TeacherError(f"{self.name}: {error}") from None

    def _post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return self.client.post(path, body)
        except VLLMError as error:
            raise TeacherError(str(error)) from error


_REMEDY = "start the server with --enable-scale-out, which takes token ids"


def connect(
    client: VLLMClient, *, encoder: PromptEncoder, end_ids: Sequence[int], served_model: str = ""
) -> VLLMTeacher:
    """The teacher behind a server: finds out what it serves, how long, and whether it takes token ids.

    Raises TeacherError for a server that cannot be reached, wants another token or serves another model.
    """
    try:
        card = served_card(client, served_model)
        model, longest = str(card["id"]), card.get("max_model_len")
        exact = takes_token_ids(client, model, end_ids[0])
    except VLLMError as error:
        raise TeacherError(str(error)) from error
    length = longest if isinstance(longest, int) else None
    return VLLMTeacher(client, model, encoder, tuple(end_ids), exact, length)
