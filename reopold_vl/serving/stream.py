"""One growing answer as server-sent events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from reopold_vl.serving.desk import Desk
from reopold_vl.serving.wire import event
from reopold_vl.serving.worker import Worker
from reopold_vl.types import Prompt, Rollout

END = "data: [DONE]\n\n"


async def events(desk: Desk, worker: Worker, prompt: Prompt, settings: dict[str, Any]) -> AsyncIterator[str]:
    """An event for each token: its id, the text that it adds and, with the last, the reason and the whole text.

    A character that several tokens share the bytes of comes with the last of them. Whoever closes the iterator (a
    client that went away) ends the generation at the next token.
    """
    loop, news, gone = asyncio.get_running_loop(), asyncio.Queue(), False

    def tell(what: Rollout | Exception | None) -> bool:
        loop.call_soon_threadsafe(news.put_nowait, what)
        return not gone

    worker.stream(prompt, tell, **settings)
    told, rollout = "", None
    try:
        while isinstance(what := await news.get(), Rollout):
            rollout = what
            text = await asyncio.to_thread(desk.text, rollout)
            new = "" if text.endswith("\ufffd") or not text.startswith(told) else text[len(told) :]
            told += new
            yield event({"token_id": int(rollout.response_ids[-1]), "text": new})
    finally:
        gone = True
    if what is not None or rollout is None:
        yield event({"error": " ".join(str(what).split())[:400]})
    else:
        whole = await asyncio.to_thread(desk.text, rollout)
        facts = {"finish_reason": rollout.finish_reason, "prompt_tokens": len(prompt.ids)}
        yield event({"text": whole[len(told) :], "whole_text": whole, **facts})
    yield END
