"""The teacher server as any HTTP client sees it: what it answers, what it refuses, how it ends."""

from __future__ import annotations

import base64
import json
import socket
import struct
import threading
import zlib
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import requests
import torch
from serving_help import Served, served
from tiny import load_tiny, mixed_samples, picture, plain_distribution

from reopold_vl.models import VisionLanguageModel
from reopold_vl.serving.requests import Limits
from reopold_vl.serving.wire import decode_logprob, encode_logprobs, encode_png, first_difference, vocabulary_hash
from reopold_vl.serving.worker import Worker
from reopold_vl.types import Rollout

LIMITS = Limits(body_bytes=300_000, items=3, rows=4, tokens=200, images=2, image_pixels=200 * 200, new_tokens=20)
MOST = str(LIMITS.image_pixels)


@pytest.fixture(scope="module")
def model(tiny_dirs: dict[str, Path]) -> VisionLanguageModel:
    return load_tiny(tiny_dirs["qwen2_5_vl"])


@pytest.fixture(scope="module")
def server(model: VisionLanguageModel) -> Iterator[Served]:
    with served(model, limits=LIMITS) as found:
        yield found


@pytest.fixture(scope="module")
def item(model: VisionLanguageModel) -> dict[str, Any]:
    """A prompt with one picture and two answers to it."""
    sample = mixed_samples()[0]
    images = [encode_png(image) for image in model.encoder.images(sample)]
    ids = model.tokenizer(model.encoder.render(sample))["input_ids"]
    return {"prompt_token_ids": ids, "images": images, "responses": [[5, 6, 7], [8]]}


def post(server: Served, path: str, value: Any) -> requests.Response:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return requests.post(server.url + path, data=data, timeout=30)


def refusal(response: requests.Response, status: int) -> str:
    """The one line of an error; asserts its status."""
    assert response.status_code == status, response.text
    assert list(response.json()) == ["error"]
    assert "\n" not in response.json()["error"]
    return response.json()["error"]


def test_health_and_info(server: Served, model: VisionLanguageModel) -> None:
    assert requests.get(server.url + "/health", timeout=30).json() == {"status": "ok"}
    info = requests.get(server.url + "/v1/info", timeout=30).json()
    vocabulary = requests.get(server.url + "/v1/vocabulary", timeout=30).json()
    assert info["server"] == "reopold_vl.serve_teacher" and info["dtype"] == "float32" and info["image_factor"] == 28
    assert info["vocabulary_sha256"] == vocabulary_hash(vocabulary) == vocabulary_hash(model.tokenizer.get_vocab())
    assert info["limits"]["items"] == 3 and info["eos_ids"] == list(model.eos_ids)


def test_scores_and_the_likeliest_tokens_are_plain_transformers(
    server: Served, model: VisionLanguageModel, item: dict[str, Any]
) -> None:
    reply = post(server, "/v1/score", {"items": [item], "top_logprobs": 4}).json()["items"][0]
    prompt = model.encoder(mixed_samples()[0])
    assert reply["prompt_tokens"] == len(prompt.ids) and reply["image_tokens"] == int((prompt.token_types == 1).sum())
    assert reply["image_grids"] == prompt.vision["image_grid_thw"].tolist()
    for choice, ids in zip(reply["choices"], item["responses"], strict=True):
        rollout = Rollout(prompt, torch.tensor(ids), torch.zeros(len(ids)), torch.zeros(len(ids)), "length")
        with torch.no_grad():
            plain = plain_distribution(model.policy.model, rollout)
        assert choice["token_ids"] == ids
        torch.testing.assert_close(
            torch.tensor(choice["logprobs"]), plain.log_prob(torch.tensor(ids)), rtol=0, atol=1e-5
        )
        top = plain.logits.topk(4)
        assert choice["top_ids"] == top.indices.tolist()
        torch.testing.assert_close(torch.tensor(choice["top_logprobs"]), top.values, rtol=0, atol=1e-5)
    alone = post(server, "/v1/score", {"items": [item]}).json()["items"][0]["choices"][0]
    assert "top_ids" not in alone and alone["logprobs"] == pytest.approx(reply["choices"][0]["logprobs"], abs=1e-6)


def test_answers_by_ids_and_by_question_are_the_models_own(
    server: Served, model: VisionLanguageModel, item: dict[str, Any]
) -> None:
    sample = mixed_samples()[0]
    expected = model.answer([sample], max_new_tokens=9, rows_at_once=1)[0][0]
    assert expected is not None
    by_ids = {name: item[name] for name in ("prompt_token_ids", "images")}
    asked = {"question": sample.question, "images": item["images"]}
    reply = post(server, "/v1/generate", {"items": [by_ids, asked], "max_new_tokens": 9}).json()
    assert [choice["text"] for choice in reply["choices"]] == [expected.text] * 2
    assert {choice["finish_reason"] for choice in reply["choices"]} == {expected.finish_reason}
    warm = {"items": [asked], "max_new_tokens": 9, "temperature": 5.0}
    drawn = [
        post(server, "/v1/generate", {**warm, "seed": seed}).json()["choices"][0]["token_ids"] for seed in (1, 1, 2)
    ]
    assert drawn[0] == drawn[1] != drawn[2]
    bad = {"question": "<|im_end|>"}
    mixed = post(server, "/v1/generate", {"items": [bad, asked], "max_new_tokens": 9}).json()["choices"]
    assert "special token" in mixed[0]["error"] and mixed[1]["text"] == expected.text


def test_a_stream_grows_token_by_token(server: Served, model: VisionLanguageModel) -> None:
    request = {"items": [{"question": "How many?"}], "max_new_tokens": 12, "stream": True}
    with requests.post(server.url + "/v1/generate", json=request, stream=True, timeout=30) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = [line.decode() for line in response.iter_lines() if line]
    assert lines[-1] == "data: [DONE]"
    *tokens, last = [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
    whole = post(server, "/v1/generate", {**request, "stream": False}).json()["choices"][0]
    assert [event["token_id"] for event in tokens] == whole["token_ids"]
    assert "".join(event["text"] for event in [*tokens, last]) == whole["text"] == last["whole_text"]
    assert last["finish_reason"] == whole["finish_reason"]
    bad = {**request, "items": [{"question": "<|im_end|>"}]}
    assert "special token" in refusal(post(server, "/v1/generate", bad), 400)


def test_a_reader_who_goes_away_ends_the_answer(server: Served) -> None:
    request = {"items": [{"question": "How many?"}], "max_new_tokens": 20, "temperature": 9.0, "stream": True}
    with requests.post(server.url + "/v1/generate", json=request, stream=True, timeout=30) as response:
        next(response.iter_lines())
    assert requests.get(server.url + "/health", timeout=30).ok
    assert post(server, "/v1/generate", {**request, "stream": False}).ok  # the model is free again


def wrong(item: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {"items": [{**item, **changes}]}


BAD_ITEMS: dict[str, tuple[dict[str, Any], str]] = {
    "no ids": ({"prompt_token_ids": []}, "prompt_token_ids: allowed is a list of token ids"),
    "ids of text": ({"prompt_token_ids": ["a"]}, "allowed are whole numbers from 0"),
    "true": ({"prompt_token_ids": [True]}, "allowed are whole numbers from 0"),
    "fractions": ({"responses": [[1.0]]}, "allowed are whole numbers from 0"),
    "negative": ({"responses": [[-1]]}, "allowed are whole numbers from 0"),
    "past the end": ({"responses": [[99999]]}, r"token id 99999 is past the last one, \d+"),
    "no responses": ({"responses": []}, "responses: allowed is a list of lists"),
    "an empty response": ({"responses": [[]]}, r"responses\[0\]: allowed is a list of token ids"),
    "no picture": ({"images": []}, "1 image placeholders for 0 images"),
    "no base64": ({"images": ["%%%"]}, r"images\[0\]: it is not base64"),
    "no PNG": ({"images": [base64.b64encode(b"GIF89a").decode()]}, "it is not a PNG"),
    "a torn PNG": ({"images": [encode_png(picture(56, 56, 1))[:200]]}, r"images\[0\]: "),
    "a number": ({"images": [1]}, "allowed is the base64 of a PNG"),
    "a typo": ({"prompt": "x"}, "'prompt': allowed are images, max_pixels"),
    "an impossible budget": ({"max_pixels": 0}, f"max_pixels is 0: allowed is 1 to {MOST}"),
}


@pytest.mark.parametrize("name", BAD_ITEMS)
def test_a_wrong_item_is_named(server: Served, item: dict[str, Any], name: str) -> None:
    changes, message = BAD_ITEMS[name]
    import re

    assert re.search(message, refusal(post(server, "/v1/score", wrong(item, **changes)), 400))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("/v1/score", b"{", "not JSON"),
        ("/v1/score", b"[" * 100_000, "not JSON"),
        ("/v1/score", b"\xff\xfe", "not JSON"),
        ("/v1/score", [], "not a JSON object"),
        ("/v1/score", {}, "items: allowed is a list"),
        ("/v1/score", {"items": [1]}, r"items[0]: allowed is an object"),
        ("/v1/score", {"items": [], "x": 1}, "'x'"),
        ("/v1/generate", {"items": [{"question": 1}], "max_new_tokens": 4}, "question: allowed is text"),
        ("/v1/generate", {"items": [{"question": "\ud800"}], "max_new_tokens": 4}, "surrogate"),
        ("/v1/generate", {"items": [{"question": "?"}]}, "max_new_tokens is None: allowed is 1 to 20"),
        ("/v1/generate", {"items": [{"question": "?"}], "max_new_tokens": 21}, "max_new_tokens is 21"),
        ("/v1/generate", {"items": [{"question": "?"}] * 2, "max_new_tokens": 2, "stream": True}, "allowed is 1 with"),
        ("/v1/generate", {"items": [{"question": "?"}], "max_new_tokens": 2, "top_p": 0}, "top_p is 0"),
        ("/v1/generate", {"items": [{"question": "?"}], "max_new_tokens": 2, "temperature": "hot"}, "temperature is"),
        ("/v1/prompt", {"prompt_token_ids": [1]}, "no question"),
        ("/v1/prompt", {"question": "In <image>?"}, "1 <image> markers for 0 images"),
    ],
)
def test_a_wrong_request_is_named(server: Served, path: str, value: Any, message: str) -> None:
    assert message in refusal(post(server, path, value), 400)


def huge_png() -> str:
    """A header that says 60,000 x 60,000 pixels in a hundred bytes."""
    file = BytesIO()
    picture(1, 1, 0).save(file, format="PNG")
    data = bytearray(file.getvalue())
    data[16:24] = struct.pack(">II", 60_000, 60_000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return base64.b64encode(data).decode()


def test_too_much_is_refused_with_413(server: Served, item: dict[str, Any]) -> None:
    for changes, message in (
        ({"responses": [[1]] * 5}, "5 responses: allowed are 4"),
        ({"responses": [[1] * 201]}, "201 tokens: allowed are 200"),
        ({"responses": [[1] * 195]}, "tokens: allowed are 200"),
        ({"images": item["images"] * 3}, "3 entries: allowed are 2"),
        ({"images": [encode_png(picture(201, 200, 1))]}, "201 x 200 pixels, allowed are 40000"),
    ):
        assert message in refusal(post(server, "/v1/score", wrong(item, **changes)), 413)
    assert "4 entries: allowed are 3" in refusal(post(server, "/v1/score", {"items": [item] * 4}), 413)
    assert "exceeds limit" in refusal(post(server, "/v1/score", wrong(item, images=[huge_png()])), 400)
    long = {"items": [{"question": "a" * 10_000}], "max_new_tokens": 2}
    assert "characters" in refusal(post(server, "/v1/generate", long), 413)


def raw(server: Served, head: str, body: bytes = b"") -> bytes:
    """What the server says before the rest of a body was sent."""
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as line:
        line.sendall(f"POST /v1/score HTTP/1.1\r\nHost: x\r\n{head}\r\n\r\n".encode() + body)
        return line.recv(65536)


def test_a_large_body_is_refused_before_it_is_read(server: Served) -> None:
    assert b"413" in raw(server, "Content-Length: 999999999")
    chunk = b"%x\r\n" % 200_000 + b" " * 200_000 + b"\r\n"
    assert b"413" in raw(server, "Transfer-Encoding: chunked", chunk * 2)
    assert b"400" in raw(server, "Content-Length: many")
    assert requests.get(server.url + "/health", timeout=30).ok


def test_unknown_paths_and_methods(server: Served) -> None:
    assert refusal(requests.get(server.url + "/v1/models", timeout=30), 404) == "Not Found"
    assert refusal(requests.get(server.url + "/v1/score", timeout=30), 405) == "Method Not Allowed"


def test_everything_but_health_wants_the_token(model: VisionLanguageModel) -> None:
    with served(model, token="geheim") as found:
        assert requests.get(found.url + "/health", timeout=30).ok
        for path in ("/v1/info", "/v1/vocabulary"):
            for header in (None, "Bearer falsch", "geheim", "Basic geheim", "Bearer gehe\u00efm"):
                headers = {"authorization": header.encode("latin-1")} if header else {}
                assert "token" in refusal(requests.get(found.url + path, headers=headers, timeout=30), 401)
            assert requests.get(found.url + path, headers={"authorization": "Bearer geheim"}, timeout=30).ok
        for path in ("/v1/score", "/v1/prompt", "/v1/generate"):
            assert "token" in refusal(post(found, path, {}), 401)


def test_out_of_memory_is_one_line_and_not_the_end(
    model: VisionLanguageModel, item: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with served(model) as found:

        def full(*args: Any, **kwargs: Any) -> None:
            raise RuntimeError("CUDA out of memory.\nTried to allocate")

        with monkeypatch.context() as patch:
            patch.setattr("reopold_vl.serving.worker.score_tokens", full)
            assert "out of memory" in refusal(post(found, "/v1/score", {"items": [item]}), 500)
        assert post(found, "/v1/score", {"items": [item]}).ok


def test_a_request_that_was_given_up_costs_the_others_nothing(
    model: VisionLanguageModel,
) -> None:
    prompt = model.encoder(mixed_samples()[0])
    rollout = Rollout(prompt, torch.tensor([5, 6]), torch.zeros(2), torch.zeros(2), "length")
    worker = Worker(model, max_batch=8)
    busy = threading.Event()
    worker._submit(busy.wait)
    gone, other = worker.score([rollout], top=0), worker.score([rollout], top=0)
    assert gone.cancel()
    busy.set()
    assert len(other.result(timeout=30)[0].logprobs) == 2 and worker.passes == 1
    worker.stop()


def test_numbers_survive_the_wire() -> None:
    values = torch.tensor([-1e-30, -0.1, -87.3365, -3e38, -torch.inf]).tolist()
    sent = json.loads(json.dumps(encode_logprobs(values)))
    assert [decode_logprob(value) for value in sent] == values
    assert encode_logprobs([float("nan")]) == [None]
    assert first_difference({"a": 0, "b": 1}, {"a": 0, "c": 1, "d": 2}) == (1, "b", "c")
    assert first_difference({"a": 0}, {"a": 0}) is None
