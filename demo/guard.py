"""What stands before the page: no fetching of addresses for a visitor, no oversized request, no foreign resource."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from demo.picture import MAX_UPLOAD_BYTES

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

MAX_BODY_BYTES = 8 * 2**20
MAX_FORM_BYTES = MAX_UPLOAD_BYTES + 2**16  # one file, with what a form puts around it
# The framework builds functions from strings and styles elements inline, but nothing has to come from elsewhere.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; "
    "worker-src 'self' blob:; object-src 'none'; base-uri 'self'; form-action 'self'"
)


class Guard:
    """ASGI middleware around the page."""

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]]) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if fetches_address(scope["path"]):
            await _refuse(send, 403, "addresses are not fetched: upload the file")
            return
        headers = {name.lower(): value for name, value in scope["headers"]}
        if is_upload(scope["path"], headers):
            size = headers.get(b"content-length", b"")
            if not size.isdigit() or int(size) > MAX_FORM_BYTES:
                await _refuse(send, 413, f"an upload may have {MAX_UPLOAD_BYTES // 2**20} MB, and must say its size")
                return
        elif scope["method"] not in ("GET", "HEAD", "OPTIONS"):
            body = await _body(receive)
            if body is None:
                await _refuse(send, 413, f"a request may have {MAX_BODY_BYTES // 2**20} MB")
                return
            if names_address(body):
                await _refuse(send, 403, "addresses are not fetched: upload the file")
                return
            receive = _again(body, receive)
        await self.app(scope, receive, _with_policy(send))


def fetches_address(path: str) -> bool:
    """Whether a request asks the server to fetch something from elsewhere (file=http://..., proxy=...)."""
    lowered = path.lower()
    return "file=http" in lowered or "proxy=" in lowered or "file=//" in lowered


def is_upload(path: str, headers: dict[bytes, bytes]) -> bool:
    """Whether the request is a form with a file; all others are read as JSON, whatever type they claim to be."""
    form = headers.get(b"content-type", b"").lower().startswith(b"multipart/form-data")
    return form and path.rstrip("/").endswith("/upload")


def names_address(body: bytes) -> bool:
    """Whether a JSON request hands in a file as an address in place of an upload."""
    try:
        waiting = [json.loads(body)]
    except (ValueError, RecursionError):
        return False  # no JSON: the server's own error is the better answer
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            path = value.get("path")
            if isinstance(path, str) and "://" in path[:16]:
                return True
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
    return False


async def _body(receive: Receive) -> bytes | None:
    """The whole request, or None where it is too large."""
    parts: list[bytes] = []
    size = 0
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            break
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        more = message.get("more_body", False)
        if size > MAX_BODY_BYTES:
            return None
    return b"".join(parts)


def _again(body: bytes, receive: Receive) -> Receive:
    """The request once more for the application; afterwards whatever the client says (that it has gone)."""
    sent = False

    async def replay() -> MutableMapping[str, Any]:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


def _with_policy(send: Send) -> Send:
    async def add(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [
                *message.get("headers", []),
                (b"content-security-policy", POLICY.encode()),
                (b"x-content-type-options", b"nosniff"),
                (b"referrer-policy", b"no-referrer"),
            ]
        await send(message)

    return add


async def _refuse(send: Send, status: int, reason: str) -> None:
    body = json.dumps({"detail": reason}).encode()
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": body})
