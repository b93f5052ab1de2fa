"""A teacher server in a thread of the test, on a free port, and one that spoils its answers on the way."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn

from reopold_vl.models import VisionLanguageModel
from reopold_vl.serving.app import build_app
from reopold_vl.serving.desk import Desk
from reopold_vl.serving.launch import bound
from reopold_vl.serving.requests import Limits
from reopold_vl.serving.worker import Worker

Spoil = Callable[[str, Any], Any]


@dataclass
class Served:
    """A running server: its address, its worker, and what it was asked."""

    url: str
    worker: Worker
    paths: list[str] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    """Answered in place of the next requests, first to last."""


@contextmanager
def served(
    model: VisionLanguageModel,
    *,
    token: str | None = None,
    limits: Limits = Limits(),  # noqa: B008  (frozen)
    max_batch: int = 8,
    spoil: Spoil | None = None,
) -> Iterator[Served]:
    """The model behind the real server over real HTTP; `spoil` changes the JSON of each answer, by its path."""
    worker = Worker(model, max_batch=max_batch)
    app = build_app(Desk(model, limits, name="tiny"), worker, token=token)
    with bound("127.0.0.1", 0) as listener:
        found = Served(f"http://127.0.0.1:{listener.getsockname()[1]}", worker)
        settings = uvicorn.Config(
            _watched(app, found, spoil), log_level="error", timeout_graceful_shutdown=5, lifespan="on"
        )
        server = uvicorn.Server(settings)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield found
        finally:
            server.should_exit = True
            thread.join(20)
            assert not thread.is_alive(), "the server does not end"


def _watched(app: Any, found: Served, spoil: Spoil | None) -> Any:
    async def watched(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        found.paths.append(scope["path"])
        if found.statuses and (status := found.statuses.pop(0)) != 200:
            await _say(send, status, {"error": "planted"})
        elif spoil is None:
            await app(scope, receive, send)
        else:
            status, body = await _collected(app, scope, receive)
            await _say(send, status, spoil(scope["path"], json.loads(body)))

    return watched


async def _collected(app: Any, scope: Any, receive: Any) -> tuple[int, bytes]:
    status, body = 0, bytearray()

    async def keep(message: Any) -> None:
        nonlocal status
        status = message.get("status", status)
        body.extend(message.get("body", b""))

    await app(scope, receive, keep)
    return status, bytes(body)


async def _say(send: Any, status: int, value: Any) -> None:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(data)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": data})
