"""A teacher behind `python -m reopold_vl.serve_teacher`: token ids and PNGs go there, log-probs come back checked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch

from reopold_vl.collate import pad_right
from reopold_vl.images import fit_image, load_image
from reopold_vl.prompts import PromptEncoder, question_text, shrink_image
from reopold_vl.serving.wire import SERVER, encode_png, first_difference, vocabulary_hash
from reopold_vl.teachers import SampleView, TeacherError
from reopold_vl.teachers.http import Connection
from reopold_vl.teachers.server_replies import checked_logprobs, require_ours
from reopold_vl.types import Answer, Prompt, Rollout, TeacherScores, VisualSample

FIRST_RETRIES = 2  # a wrong address should not take minutes to be told
BODY_SHARE = 0.75  # of the server's limit: pieces are cut by an estimate


@dataclass(frozen=True)
class ServerTeacher:
    """A teacher server as `connect` found it: `info` is what it says of itself, `encoder` the student's.

    Prompts are rendered by the student's chat template and sent as ids with one placeholder an image; the pictures are
    fitted to the server's own grid within the student's pixel budget. `requests_in_flight` go out at once.
    """

    connection: Connection
    info: Mapping[str, Any]
    encoder: PromptEncoder
    requests_in_flight: int = 4

    @property
    def name(self) -> str:
        return f"{self.info['model']} at {self.connection.url}"

    @property
    def num_parameters(self) -> int | None:
        return self.info["num_parameters"]

    @property
    def eos_ids(self) -> tuple[int, ...]:
        return tuple(self.info["eos_ids"])

    @property
    def image_factor(self) -> int:
        return self.info["image_factor"]

    @cached_property
    def _vocabulary(self) -> dict[str, int]:
        words = self.connection.get("/v1/vocabulary")
        if not isinstance(words, dict) or not all(type(index) is int for index in words.values()):
            raise TeacherError(f"{self.connection.url}/v1/vocabulary: that is no vocabulary")
        return words

    def vocabulary(self) -> Mapping[str, int]:
        return self._vocabulary

    def view(self, sample: VisualSample) -> SampleView:
        """See `Teacher.view`; the server renders its own chat template."""
        found = self.connection.post("/v1/prompt", {**self._pictures(sample), **self._question(sample)})
        try:
            return SampleView(
                text=str(found["text"]),
                prompt_tokens=int(found["prompt_tokens"]),
                image_tokens=int(found["image_tokens"]),
                image_sizes=tuple((int(width), int(height)) for width, height in found["image_sizes"]),
                image_grids=tuple(tuple(map(int, grid)) for grid in found["image_grids"]),
            )
        except (KeyError, TypeError, ValueError):
            raise TeacherError(f"{self.connection.url}/v1/prompt: that is no view of a sample") from None

    def same_prompt(self, prompt: Prompt) -> bool:
        """Never: the server makes its own."""
        return False

    def score(self, rollouts: Sequence[Rollout]) -> TeacherScores:
        """See `Teacher.score`. Raises TeacherError for anything but one log-prob for each of the very tokens sent."""
        groups: dict[int, list[int]] = {}
        for index, rollout in enumerate(rollouts):
            groups.setdefault(id(rollout.prompt), []).append(index)
        sent = [(rows, self._item([rollouts[row] for row in rows])) for rows in groups.values()]
        pieces = self._pieces([item for _, item in sent])
        with ThreadPoolExecutor(self.requests_in_flight) as pool:
            found = [item for answer in pool.map(self._scored, pieces) for item in answer]
        logprobs: dict[int, torch.Tensor] = {}
        for (rows, _), values in zip(sent, found, strict=True):
            logprobs.update(zip(rows, map(torch.tensor, values), strict=True))
        return TeacherScores(pad_right([logprobs[row] for row in range(len(rollouts))], 0.0))

    def answer(
        self, samples: Sequence[VisualSample], *, max_new_tokens: int, rows_at_once: int
    ) -> tuple[list[Answer | None], list[str]]:
        """See `Answerer.answer`. A picture that this side cannot read is a reason; a server that fails, an error."""
        items: dict[int, dict[str, Any]] = {}
        reasons: dict[int, str] = {}
        for index, sample in enumerate(samples):
            try:
                self.encoder.render(sample)  # the same samples are refused as by a teacher in this process
                items[index] = {**self._pictures(sample), **self._question(sample)}
            except ValueError as error:
                reasons[index] = f"{sample.id}: {error}"
        most = min(rows_at_once, self.info["limits"]["items"])
        pieces = self._pieces(list(items.values()), most=most)
        with ThreadPoolExecutor(self.requests_in_flight) as pool:
            replies = pool.map(lambda piece: self._answered(piece, max_new_tokens), pieces)
            found = dict(zip(items, (choice for reply in replies for choice in reply), strict=True))
        reasons |= {index: f"{samples[index].id}: {said}" for index, said in found.items() if isinstance(said, str)}
        answers = [said if isinstance(said := found.get(index), Answer) else None for index in range(len(samples))]
        return answers, [reasons[index] for index in sorted(reasons)]

    def stream(self, sample: VisualSample, **settings: Any) -> Iterator[dict[str, Any]]:
        """Events of one growing answer: {"token_id", "text"} for each token, then {"whole_text", "finish_reason"}.

        `settings` are max_new_tokens, temperature, top_p and seed. Raises TeacherError.
        """
        item = {**self._pictures(sample), **self._question(sample)}
        for event in self.connection.events("/v1/generate", {"items": [item], "stream": True, **settings}):
            if "error" in event:
                raise TeacherError(f"{self.connection.url}/v1/generate: {event['error']}")
            yield event

    def _question(self, sample: VisualSample) -> dict[str, Any]:
        """The question as the student reads it, with choices and instruction spelled out."""
        return {"question": question_text(sample, self.encoder.instruction), "system": sample.system}

    def _pictures(self, sample: VisualSample) -> dict[str, Any]:
        encoder = self.encoder
        budget = {"min_pixels": encoder.min_pixels, "max_pixels": encoder.max_pixels}
        loaded = [load_image(image, allow_url=encoder.allow_url) for image in sample.images]
        if self.info["image_grid"]:
            fitted = [fit_image(image, factor=self.image_factor, **budget) for image in loaded]
        else:
            fitted = [shrink_image(image, encoder.max_pixels) for image in loaded]
        return {"images": [encode_png(image) for image in fitted], **budget}

    def _item(self, rollouts: Sequence[Rollout]) -> dict[str, Any]:
        """One prompt with all of its answers: each picture is sent once."""
        sample = rollouts[0].prompt.sample
        ids = self.encoder.processor.tokenizer(self.encoder.render(sample), add_special_tokens=False)["input_ids"]
        responses = [rollout.response_ids.tolist() for rollout in rollouts]
        return {"prompt_token_ids": ids, **self._pictures(sample), "responses": responses}

    def _pieces(self, items: Sequence[dict[str, Any]], most: int | None = None) -> list[list[dict[str, Any]]]:
        """Items in requests that the server's limits allow, and enough requests to keep it busy."""
        limits = self.info["limits"]
        most = min(limits["items"], most or limits["items"], max(1, -(-len(items) // self.requests_in_flight)))
        pieces: list[list[dict[str, Any]]] = [[]]
        rows = size = 0
        for item in items:
            more, weight = len(item.get("responses", "x")), estimated_bytes(item)
            full = len(pieces[-1]) == most or rows + more > limits["rows"]
            if pieces[-1] and (full or size + weight > BODY_SHARE * limits["body_bytes"]):
                pieces.append([])
                rows = size = 0
            pieces[-1].append(item)
            rows, size = rows + more, size + weight
        return [piece for piece in pieces if piece]

    def _scored(self, items: Sequence[dict[str, Any]]) -> list[list[list[float]]]:
        """Log-probs of each item's responses."""
        reply = self.connection.post("/v1/score", {"items": items})
        place = f"{self.connection.url}/v1/score"
        found = reply.get("items") if isinstance(reply, dict) else None
        if not isinstance(found, list) or len(found) != len(items):
            raise TeacherError(f"{place}: {len(items)} prompts were sent, and not as many came back")
        if reply.get("vocabulary_sha256") != self.info["vocabulary_sha256"]:
            raise TeacherError(f"{place}: the server's vocabulary has changed (was it started with another model?)")
        return [checked_logprobs(place, item, one) for item, one in zip(items, found, strict=True)]

    def _answered(self, items: Sequence[dict[str, Any]], max_new_tokens: int) -> list[Answer | str]:
        reply = self.connection.post("/v1/generate", {"items": items, "max_new_tokens": max_new_tokens})
        choices = reply.get("choices") if isinstance(reply, dict) else None
        if not isinstance(choices, list) or len(choices) != len(items):
            raise TeacherError(f"{self.connection.url}/v1/generate: not one answer for each of {len(items)} prompts")
        try:
            return [
                str(one["error"]) if "error" in one else Answer(one["text"], one["finish_reason"]) for one in choices
            ]
        except (KeyError, TypeError):
            raise TeacherError(f"{self.connection.url}/v1/generate: an answer without text") from None


def connect(
    url: str,
    *,
    encoder: PromptEncoder,
    token: str | None = None,
    timeout_seconds: float = 300.0,
    retries: int = 8,
    requests_in_flight: int = 4,
) -> ServerTeacher:
    """The teacher at `url` for a student with this encoder.

    Raises TeacherError where nobody answers, where the server is none of ours, where it refuses the token, and where
    its vocabulary is not the student's, naming the first token that differs.
    """
    connection = Connection(url.rstrip("/"), token, timeout_seconds, retries)
    try:
        info = replace(connection, retries=min(retries, FIRST_RETRIES)).get("/v1/info")
    except TeacherError as error:
        if ": 404," in str(error) or "is not JSON" in str(error):
            raise TeacherError(f"{connection.url} is no teacher server: start one with python -m {SERVER}") from None
        raise
    teacher = ServerTeacher(connection, info, encoder, requests_in_flight)
    require_ours(connection.url, info)
    ours = encoder.processor.tokenizer.get_vocab()
    if info["vocabulary_sha256"] != vocabulary_hash(ours):
        index, mine, its = first_difference(ours, teacher.vocabulary()) or (0, None, None)
        raise TeacherError(
            f"{teacher.name}: tokenizers differ: id {index} is {mine!r} for the student and {its!r} there"
        )
    if encoder.max_pixels > info["limits"]["image_pixels"]:
        allowed = info["limits"]["image_pixels"]
        raise TeacherError(
            f"{teacher.name}: images.max_pixels is {encoder.max_pixels}, the server allows {allowed} (its --max-pixels)"
        )
    return teacher


def estimated_bytes(item: Mapping[str, Any]) -> int:
    """About how long the item is as JSON."""
    ids = len(item.get("prompt_token_ids", ())) + sum(map(len, item.get("responses", ())))
    return 200 + 8 * ids + sum(map(len, item["images"])) + 6 * len(item.get("question", ""))
