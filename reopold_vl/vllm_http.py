"""What speaks to a vLLM server: JSON over HTTP with retries, prompts as vLLM wants them, token ids checked.

Written against the source of vLLM 0.33.0 (`entrypoints/scale_out`, `entrypoints/openai/chat_completion`).
"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any, TypeVar

from reopold_vl.prompts import PromptEncoder
from reopold_vl.types import Prompt, VisualSample

if TYPE_CHECKING:
    from PIL.Image import Image

GENERATE = "/inference/v1/generate"  # token ids in, token ids out; behind --enable-scale-out
CHAT = "/v1/chat/completions"
LONGEST_WAIT = 30.0  # seconds between two attempts

Item = TypeVar("Item")
Result = TypeVar("Result")


class VLLMError(ValueError):
    """A vLLM server that cannot be reached, refuses, or answers something else; `status` is HTTP's, 0 without one."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class VLLMClient:
    """A server's address without `/v1`, and how patiently to talk to it.

    `timeout` is in seconds for each attempt; connection errors, 429 and 5xx are tried again `retries` times, after
    `wait` seconds and twice as long each time. `at_once` requests are under way together: vLLM batches them.
    """

    url: str
    token: str | None = None
    timeout: float = 300.0
    retries: int = 5
    wait: float = 0.5
    at_once: int = 32

    @property
    def base(self) -> str:
        return self.url.removeprefix("vllm+").rstrip("/").removesuffix("/v1").rstrip("/")

    def get(self, path: str) -> dict[str, Any]:
        return self._patiently("GET", path, None)

    def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The server's JSON object ({} where it sends no content). Raises VLLMError."""
        return self._patiently("POST", path, body)

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
        """`function` of all items, `at_once` at a time, in their order; the first error ends it."""
        with ThreadPoolExecutor(self.at_once) as pool:
            futures = [pool.submit(function, item) for item in items]
            try:
                return [future.result() for future in futures]
            finally:
                for future in futures:
                    future.cancel()

    def _patiently(self, method: str, path: str, body: Mapping[str, Any] | None) -> dict[str, Any]:
        for attempt in range(self.retries + 1):
            try:
                return self._once(method, path, body)
            except VLLMError as error:
                again = error.status in (0, 429) or error.status >= 500
                if not again or attempt == self.retries:
                    raise
            time.sleep(min(self.wait * 2**attempt, LONGEST_WAIT))
        raise AssertionError("unreachable")

    def _once(self, method: str, path: str, body: Mapping[str, Any] | None) -> dict[str, Any]:
        import requests

        try:
            reply = requests.request(
                method,
                self.base + path,
                json=body,
                auth=self._authorise,  # and not headers: a .netrc would replace the token
                timeout=self.timeout,
                allow_redirects=False,
            )
        except requests.RequestException as error:
            cause = first_line(error).rpartition(": ")[2].strip("'\")(")
            raise VLLMError(f"{self.base}: cannot be reached: {type(error).__name__}, {cause}") from error
        if not 200 <= reply.status_code < 300:
            raise VLLMError(f"{self.base}{path}: HTTP {reply.status_code}: {_reason(reply)}", reply.status_code)
        if not reply.content:
            return {}
        try:
            value = reply.json()
        except ValueError as error:
            raise VLLMError(f"{self.base}{path}: the answer is not JSON: {first_line(error)}", 200) from error
        if not isinstance(value, dict):
            raise VLLMError(f"{self.base}{path}: the answer is no JSON object", 200)
        return value

    def _authorise(self, request: Any) -> Any:
        if self.token:
            request.headers["Authorization"] = f"Bearer {self.token}"
        return request


def _reason(reply: Any) -> str:
    """vLLM's own message ({"error": {"message": ...}}), else the beginning of the body."""
    try:
        return " ".join(str(reply.json()["error"]["message"]).split())[:500]
    except (ValueError, KeyError, TypeError):
        return " ".join(reply.text.split())[:200]


def first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0][:300]


def served_card(client: VLLMClient, wanted: str = "") -> dict[str, Any]:
    """What the server says of the model that it serves (the first, or `wanted`): `id` is its name, `max_model_len` its
    context. Raises VLLMError where there is no such model."""
    cards = client.get("/v1/models").get("data")
    known = {str(card.get("id")): card for card in cards if isinstance(card, dict)} if isinstance(cards, list) else {}
    name = wanted or next(iter(known), "")
    if name not in known:
        raise VLLMError(f"{client.base} serves {', '.join(known) or 'no model'}: asked for {wanted or 'any'}", 404)
    return known[name]


def unexpanded_ids(encoder: PromptEncoder, sample: VisualSample) -> list[int]:
    """The prompt with one placeholder an image: vLLM looks for it and puts that image's own tokens there.

    Ids that are expanded already would be expanded again (vLLM's `multimodal/processing`).
    """
    return list(encoder.processor.tokenizer(encoder.render(sample))["input_ids"])


def image_address(image: Image) -> str:
    """A picture as the data URI of a PNG: not one pixel is lost."""
    buffer = BytesIO()
    image.save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def content_parts(pictures: Sequence[str]) -> list[dict[str, str]]:
    """Images' addresses as `/inference/v1/generate` takes them, in the order of their placeholders."""
    return [{"type": "image_url", "url": picture} for picture in pictures]


def prompt_of(reply: Mapping[str, Any]) -> list[int]:
    """The prompt as vLLM's model saw it, every placeholder expanded. Raises VLLMError where the server keeps it."""
    ids = reply.get("prompt_token_ids")
    if not isinstance(ids, list) or not all(isinstance(token, int) for token in ids):
        raise VLLMError("the answer has no prompt_token_ids: the server's vLLM is too old to be checked", 200)
    return ids


def require_prompt(found: Sequence[int], prompt: Prompt, tokenizer: Any) -> None:
    """Raises ValueError unless vLLM's expanded prompt is ours, naming the first difference."""
    expected = prompt.ids.tolist()
    if list(found) == expected:
        return
    image_ids = set(prompt.ids[prompt.token_types == 1].tolist())
    ours, theirs = (sum(token in image_ids for token in ids) for ids in (expected, found))
    about = f"sample {prompt.sample.id}: vLLM's prompt has {len(found)} tokens, ours {len(expected)}"
    if image_ids and ours != theirs:
        advice = "give both the same pixel limits (vllm serve --mm-processor-kwargs) and the same processor"
        if theirs == len(prompt.sample.images):
            advice = "the server did not look at the images (is its vLLM older than 0.33?)"
        raise ValueError(f"{about}; {theirs} of its tokens are the image's, of ours {ours}: {advice}")
    at = next(
        (i for i, (a, b) in enumerate(zip(found, expected, strict=False)) if a != b), min(map(len, (found, expected)))
    )
    shown = [tokenizer.decode(list(ids[at : at + 8])) for ids in (found, expected)]
    raise ValueError(f"{about}; at token {at} vLLM has {shown[0]!r}, we {shown[1]!r}: other template or tokenizer")
