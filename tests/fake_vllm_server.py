"""`vllm serve` over real HTTP, answered by `FakeCore`: the addresses, JSON shapes and refusals of vLLM 0.33.0."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch
import uvicorn
from fake_vllm import NEGATIVE_INFINITY, FakeCore, Refused, decode_address
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

SAMPLING_DEFAULTS = {
    "n": 1,
    "temperature": 1.0,
    "top_p": 1.0,
    "seed": None,
    "max_tokens": 16,
    "stop_token_ids": None,
    "ignore_eos": False,
    "logit_bias": None,
    "logprobs": None,
    "prompt_logprobs": None,
    "detokenize": True,
}


@dataclass
class FakeServer:
    """One server. `faults` are planted errors, `asked` everything that was asked of it: (path, body)."""

    core: FakeCore
    name: str = "teacher"
    scale_out: bool = True
    dev_mode: bool = True
    key: str | None = None
    faults: set[str] = field(default_factory=set)
    busy: int = 0
    """This many requests are refused with 503 first."""
    repetition_penalty: float = 1.0
    """Of the model's generation settings, which requests without one of their own get."""
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def app(self) -> Starlette:
        posts = {
            "/v1/chat/completions": self.chat,
            "/inference/v1/generate": self.generate,
            "/collective_rpc": self.collective_rpc,
            "/reset_prefix_cache": lambda body: {"success": self.core.reset_prefix_cache()},
            "/reset_encoder_cache": lambda body: self.core.reset_encoder_cache(),
            "/reset_mm_cache": lambda body: None,
        }
        routes = [Route(path, self.endpoint(path, answer), methods=["POST"]) for path, answer in posts.items()]
        return Starlette(
            routes=[*routes, Route("/v1/models", self.endpoint("/v1/models", self.models), methods=["GET"])]
        )

    def endpoint(self, path: str, answer: Any) -> Any:
        async def handle(request: Request) -> Response:
            body = json.loads(await request.body() or b"{}")
            self.asked.append((path, body))
            try:
                self.admit(request)
                made = await run_in_threadpool(answer, body)
            except Refused as refused:
                error = {"message": str(refused), "type": "BadRequestError", "param": None, "code": refused.status}
                return JSONResponse({"error": error}, refused.status)
            return Response() if made is None else JSONResponse(made)

        return handle

    def admit(self, request: Request) -> None:
        if self.key is not None and request.headers.get("authorization") != f"Bearer {self.key}":
            raise Refused(401, "Unauthorized")
        if self.busy > 0:
            self.busy -= 1
            raise Refused(503, "Generation is paused. Please retry after it resumes.")

    def models(self, body: dict[str, Any]) -> dict[str, Any]:
        card = {"id": self.name, "object": "model", "owned_by": "vllm", "max_model_len": self.core.max_model_len}
        return {"object": "list", "data": [card]}

    def require_model(self, body: dict[str, Any]) -> None:
        if body.get("model") not in (None, self.name):
            raise Refused(404, f"The model `{body['model']}` does not exist.")

    def chat(self, body: dict[str, Any]) -> dict[str, Any]:
        self.require_model(body)
        if body.get("add_generation_prompt", True) and body.get("continue_final_message"):
            raise Refused(400, "Cannot set both `continue_final_message` and `add_generation_prompt` to True.")
        images = [
            decode_address(part["image_url"]["url"])
            for message in body["messages"]
            for part in (message["content"] if isinstance(message["content"], list) else [])
            if part["type"] == "image_url"
        ]
        conversation = [
            message
            if isinstance(message["content"], str)
            else {
                **message,
                "content": [{"type": "image"} if part["type"] == "image_url" else part for part in message["content"]],
            }
            for message in body["messages"]
        ]
        tokenizer = self.core.processor.tokenizer
        text = tokenizer.apply_chat_template(
            conversation,
            chat_template=self.core.processor.chat_template,
            tokenize=False,
            add_generation_prompt=body.get("add_generation_prompt", True),
            continue_final_message=body.get("continue_final_message", False),
        )
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        params = SimpleNamespace(**{name: body.get(name, default) for name, default in SAMPLING_DEFAULTS.items()})
        penalty = body.get("repetition_penalty", self.repetition_penalty)
        assert penalty == 1.0, "the request leaves sampling to the model's generation settings"
        return self.respond(ids, images, params, body)

    def generate(self, body: dict[str, Any]) -> dict[str, Any]:
        if not self.scale_out:
            raise Refused(403, "Scale-out endpoints are disabled. Restart vllm serve with --enable-scale-out.")
        self.require_model(body)
        unknown = set(body["sampling_params"]) - set(SAMPLING_DEFAULTS) - {"top_k", "min_p"}
        assert not unknown, unknown
        params = SimpleNamespace(**SAMPLING_DEFAULTS | body["sampling_params"])
        parts = [] if "old" in self.faults else body.get("content_parts") or []
        assert all(part["type"] == "image_url" and set(part) <= {"type", "url", "uuid"} for part in parts)
        return self.respond(body["token_ids"], [decode_address(part["url"]) for part in parts], params, body)

    def respond(self, ids: list[int], images: list[Any], params: Any, body: dict[str, Any]) -> dict[str, Any]:
        core = self.core
        ids, vision = core.expand(ids, images)
        core.require_room(ids)
        if params.prompt_logprobs is None:
            assert not core.prefixes_of_old_weights, "prefixes of the old weights are still cached"
        seeds = [None if params.seed is None else params.seed + index for index in range(params.n)]
        made = [core.sample(ids, vision, params, seed) for seed in seeds]
        choices = [
            {
                "index": index,
                "finish_reason": answer["finish_reason"],
                "stop_reason": None,
                "token_ids": answer["token_ids"],
                "logprobs": None
                if params.logprobs is None
                else {
                    "content": [
                        {"token_id": token, "logprob": value, "rank": 1, "top_logprobs": []}
                        for token, value in zip(answer["token_ids"], answer["logprobs"], strict=True)
                    ]
                },
            }
            for index, answer in enumerate(made)
        ]
        scored = None if params.prompt_logprobs is None else self.scored(ids, vision)
        told = body.get("return_token_ids") and "no ids" not in self.faults
        return {
            "choices": choices[::-1],
            "model": self.name,
            "prompt_logprobs": scored,
            "prompt_token_ids": ids if told else None,
            "usage": {"prompt_tokens": len(ids)},
        }

    def scored(self, ids: list[int], vision: dict[str, torch.Tensor]) -> list[Any]:
        entries: list[Any] = [None]
        for entry in self.core.prompt_logprobs(ids, vision)[1:]:
            ((token, value),) = (entry or {}).items()
            shown = NEGATIVE_INFINITY if value == float("-inf") else value
            entries.append({str(token): {"logprob": shown, "rank": 1, "decoded_token": None}})
        if "short" in self.faults:
            entries = entries[:-1]
        if "hole" in self.faults:
            entries[-1] = None
        if "other token" in self.faults:
            entries[-1] = {str(ids[-1] + 1): {"logprob": -1.0, "rank": 1, "decoded_token": None}}
        if "null" in self.faults:
            entries[-1] = {str(ids[-1]): {"logprob": None, "rank": 1, "decoded_token": None}}
        return entries

    def collective_rpc(self, body: dict[str, Any]) -> dict[str, Any]:
        if not self.dev_mode:
            raise Refused(404, "Not Found")
        assert body["method"] == "reload_weights"
        self.core.reload_weights(**body["kwargs"])
        return {"results": [None]}


@contextmanager
def serving(server: FakeServer) -> Iterator[str]:
    """The server on a free port of this machine, in a thread; yields its address."""
    runner = uvicorn.Server(uvicorn.Config(server.app(), host="127.0.0.1", port=0, log_level="error"))
    thread = threading.Thread(target=runner.run, daemon=True)
    thread.start()
    while not runner.started:
        assert thread.is_alive()
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{runner.servers[0].sockets[0].getsockname()[1]}"
    finally:
        runner.should_exit = True
        thread.join()
