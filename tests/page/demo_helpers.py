"""What several tests of the page need: a question, models that do not end, an evaluation and a rollout on disk."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reopold_vl.zoo.task import problem

if TYPE_CHECKING:
    import pytest

    from demo.contenders import Arena
    from eval.types import Response

QUESTION = "How many yellow shapes are there?"


def endless(arena: Arena, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the models write slowly and without end."""
    import dataclasses

    from reopold_vl.rollout.hf import HFEngine

    for contender in arena.contenders:
        monkeypatch.setattr(type(contender.model), "eos_ids", property(lambda model: (-1,)))
    stream = HFEngine.stream

    def slow(self: HFEngine, *args: Any, **named: Any) -> Any:
        for rollout in stream(dataclasses.replace(self, eos_ids=(-1,)), *args, **named):
            time.sleep(0.05)
            yield rollout

    monkeypatch.setattr(HFEngine, "stream", slow)


def until(condition: Any, seconds: float = 20.0) -> None:
    """Wait for it; fails after so many seconds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


TEXTS = {  # problem number: (student, teacher); None where it failed
    0: ("Answer: 3", "Answer: 3"),
    1: ("Answer: square", "Answer: circle"),
    2: ("Answer: 0", "Answer: 7"),
    3: ("no idea <script>alert(1)</script>", "Answer: 9"),
    4: (None, "Answer: 1"),
}


def response(number: int, text: str | None, model: str) -> Response:
    from eval.types import Problem, Response

    sample = problem("test", number).sample
    asked = Problem(sample.id, sample.question, sample.answer, "text", tags={"type": (sample.source,)})
    return Response(
        "embedded", model, asked, 0, f"{model}{number}", sample.question, text or "",
        finish_reason="failed" if text is None else "length" if number == 3 else "stop",
        tokens=9, seconds=0.01 if model == "small" else 0.03, error="too large" if text is None else "",
    )  # fmt: skip


def store_evaluation(directory: Path) -> Path:
    """What `eval.run` leaves behind, of a student that is called small and a teacher that is called large."""
    from eval.responses import replace_responses

    for side, (place, model) in enumerate(((directory, "small"), (directory / "baseline", "large"))):
        place.mkdir(parents=True)
        stored = [response(number, texts[side], model) for number, texts in TEXTS.items()]
        replace_responses(place / "responses_embedded.jsonl", stored)
    info = {"embedded": {"split": "test", "origin": "computed (embedded)"}}
    (directory / "run.json").write_text(json.dumps({"benches": info}), encoding="utf-8")
    return directory


ROLLOUT = {
    "step": 2, "question": "How many <i>?", "gold": "3", "images": ["data:image/png;base64,AAAA", 'x" onerror="y'],
    "tokens": ["a<b>", "<|im_end|>"], "rewards": [-2.5, 0.0], "student_logprobs": [-0.1, 0.0],
    "teacher_logprobs": [-2.6, 0.0], "kept": [True, False], "correct": True,
}  # fmt: skip
