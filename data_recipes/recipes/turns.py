"""Conversations -> system turn, question, images and reply; in OpenAI's, TRL's and ShareGPT's spelling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from data_recipes.recipes.reading import text
from data_recipes.types import RowError
from reopold_vl.types import IMAGE_MARKER

ROLES = {"system": "system", "user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant"}


@dataclass(frozen=True)
class Turns:
    """One exchange; `images` are those that the message parts themselves hold, in their order."""

    system: str | None
    question: str
    reply: str | None
    images: tuple[Any, ...] = ()


def read_turns(messages: Any) -> Turns:
    """At most one system turn, one user turn and at most one reply, in this order.

    Messages are `{"role", "content"}` or `{"from", "value"}`; content is text or a list of text and image parts.
    Raises RowError for anything else, conversations of several questions among them.
    """
    if not isinstance(messages, list | tuple):
        raise RowError(f"a conversation must be a list of messages, not {messages!r:.60}")
    said: dict[str, str] = {}
    images: list[Any] = []
    for message in messages:
        role = _role(message)
        if role in said or _rank(role) < max(map(_rank, said), default=-1):
            raise RowError(
                f"a conversation must be [system,] user[, assistant]; found {role!r} after {', '.join(said)}"
            )
        content = message.get("content", message.get("value"))
        parts = content if isinstance(content, list | tuple) else [{"type": "text", "text": content}]
        before = len(images)
        said[role] = "".join(_part(part, images) for part in parts)
        if len(images) > before and role != "user":
            raise RowError(f"images belong into the user's turn, not into the {role} turn")
    if "user" not in said:
        raise RowError("a conversation without a user turn")
    return Turns(said.get("system"), said["user"], said.get("assistant"), tuple(i for i in images if i is not None))


def _rank(role: str) -> int:
    return list(ROLES.values()).index(role)


def _role(message: Any) -> str:
    if not isinstance(message, dict):
        raise RowError(f"a message must be an object with role and content, not {message!r:.60}")
    role = message.get("role", message.get("from"))
    if not isinstance(role, str) or role not in ROLES:
        raise RowError(f"a message's role is {role!r:.40}: allowed are {', '.join(ROLES)}")
    return ROLES[role]


def _part(part: Any, images: list[Any]) -> str:
    """The text of a part; an image part becomes a marker, and the image it holds (or None) goes to `images`."""
    if isinstance(part, str):
        return part
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "text":
        return text(part.get("text"), "text")
    if kind == "image":
        images.append(next((part[key] for key in ("image", "path", "url") if part.get(key)), None))
        return IMAGE_MARKER
    if kind == "image_url":
        held = part.get("image_url")
        images.append(held.get("url") if isinstance(held, dict) else held)
        return IMAGE_MARKER
    raise RowError(f"a message part must be a text or an image, not {kind!r:.40}")
