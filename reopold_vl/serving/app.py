"""HTTP: routes, the token, the body's limit, errors of one line."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from reopold_vl.serving.desk import Desk
from reopold_vl.serving.requests import (
    Item,
    Limits,
    RequestError,
    parse_generate,
    parse_json,
    parse_prompt,
    parse_score,
)
from reopold_vl.serving.stream import events
from reopold_vl.serving.wire import encode_logprobs
from reopold_vl.serving.worker import Scored, ServerStopped, Worker
from reopold_vl.types import Rollout

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

Parsed = TypeVar("Parsed")
Value = TypeVar("Value")
Handler = Callable[["Request"], Awaitable["Response"]]


def build_app(desk: Desk, worker: Worker, *, token: str | None) -> Starlette:
    """The application; its end stops the worker. With `token` everything but /health asks for it."""
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    info = desk.info()

    async def parsed(request: Request, parse: Callable[[Any, Limits], Parsed]) -> Parsed:
        body = await read_body(request, desk.limits.body_bytes)
        return await _aside(lambda: parse(parse_json(body), desk.limits))

    async def health(request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def tell_info(request: Request) -> Response:
        return JSONResponse(info)

    async def vocabulary(request: Request) -> Response:
        return JSONResponse(desk.vocabulary())

    async def score(request: Request) -> Response:
        wanted = await parsed(request, parse_score)
        groups = await _aside(lambda: [desk.rollouts(item, f"items[{i}]") for i, item in enumerate(wanted.items)])
        rollouts = [rollout for group in groups for rollout in group]
        scored = iter(await asyncio.wrap_future(worker.score(rollouts, top=wanted.top_logprobs)))
        results = [_scored_item(desk, group, scored) for group in groups]
        return JSONResponse({"model": desk.name, "vocabulary_sha256": info["vocabulary_sha256"], "items": results})

    async def prompt(request: Request) -> Response:
        item = await parsed(request, parse_prompt)
        return JSONResponse(await _aside(lambda: desk.view(item)))

    async def generate(request: Request) -> Response:
        from starlette.responses import StreamingResponse

        wanted = await parsed(request, parse_generate)
        settings = {name: getattr(wanted, name) for name in ("max_new_tokens", "temperature", "top_p", "seed")}
        prompts = await _aside(lambda: [_prompt_or_reason(desk, item, i) for i, item in enumerate(wanted.items)])
        good = [entry for entry in prompts if not isinstance(entry, str)]
        if wanted.stream:
            if not good:
                raise RequestError(str(prompts[0]))
            return StreamingResponse(events(desk, worker, good[0], settings), media_type="text/event-stream")
        rollouts = iter(await asyncio.wrap_future(worker.generate(good, **settings)) if good else [])
        choices = [
            {"error": entry} if isinstance(entry, str) else _generated(desk, next(rollouts)) for entry in prompts
        ]
        return JSONResponse({"model": desk.name, "choices": choices})

    async def body_of_error(request: Request, error: Exception) -> Response:
        status = getattr(error, "status", None) or getattr(error, "status_code", None) or 500
        status = 503 if isinstance(error, ServerStopped) else status
        text = " ".join(str(getattr(error, "detail", error)).split())[:400] or type(error).__name__
        headers = {"connection": "close"} if status == 413 else None  # the rest of the body is not read
        return JSONResponse({"error": text}, status_code=status, headers=headers)

    async def unforeseen(request: Request, error: Exception) -> Response:  # the log has the traceback
        return JSONResponse({"error": f"something went wrong on the server ({type(error).__name__})"}, status_code=500)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(worker.stop)

    from starlette.exceptions import HTTPException

    kinds = (RequestError, HTTPException, RuntimeError)
    return Starlette(
        routes=[
            Route("/health", health),
            Route("/v1/info", _guarded(tell_info, token)),
            Route("/v1/vocabulary", _guarded(vocabulary, token)),
            Route("/v1/score", _guarded(score, token), methods=["POST"]),
            Route("/v1/prompt", _guarded(prompt, token), methods=["POST"]),
            Route("/v1/generate", _guarded(generate, token), methods=["POST"]),
        ],
        exception_handlers={**dict.fromkeys(kinds, body_of_error), Exception: unforeseen},
        lifespan=lifespan,
    )


def _guarded(handler: Handler, token: str | None) -> Handler:
    async def checked(request: Request) -> Response:
        if token is not None:
            given = request.headers.get("authorization", "")
            if not hmac.compare_digest(given.encode(), f"Bearer {token}".encode()):
                raise RequestError(
                    "a bearer token is wanted, and this is not it" if given else "a token is wanted", 401
                )
        return await handler(request)

    return checked


async def read_body(request: Request, limit: int) -> bytes:
    """The body, of which no more than `limit` bytes are ever held; raises RequestError 413."""
    declared = request.headers.get("content-length", "0")
    too_large = RequestError(f"the body is larger than the {limit} bytes allowed", 413)
    if not declared.isdigit() or int(declared) > limit:
        raise too_large if declared.isdigit() else RequestError("content-length is no number")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise too_large
    return bytes(body)


async def _aside(call: Callable[[], Value]) -> Value:
    """Pictures and tokens are prepared in a thread: the server goes on listening."""
    return await asyncio.to_thread(call)


def _prompt_or_reason(desk: Desk, item: Item, index: int) -> Any:
    """The item's prompt, or why there is none: one picture that cannot be used must not cost the other answers."""
    try:
        return desk.prompt(item, f"items[{index}]")
    except RequestError as error:
        return str(error)


def _scored_item(desk: Desk, rollouts: list[Rollout], scored: Any) -> dict[str, Any]:
    choices = []
    for rollout in rollouts:
        found: Scored = next(scored)
        choice: dict[str, Any] = {
            "token_ids": rollout.response_ids.tolist(),
            "logprobs": encode_logprobs(found.logprobs),
        }
        if found.top_ids:
            choice["top_ids"] = found.top_ids
            choice["top_logprobs"] = [encode_logprobs(values) for values in found.top_logprobs]
        choices.append(choice)
    return {**desk.facts(rollouts[0].prompt), "choices": choices}


def _generated(desk: Desk, rollout: Rollout) -> dict[str, Any]:
    return {
        "text": desk.text(rollout),
        "token_ids": rollout.response_ids.tolist(),
        "finish_reason": rollout.finish_reason,
        "prompt_tokens": len(rollout.prompt.ids),
    }
