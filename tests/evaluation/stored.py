"""Stored responses for tests: made by hand, of the embedded benchmark."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from eval.responses import GenerationSettings, replace_responses
from eval.types import Problem, Response

SETTINGS = GenerationSettings(
    max_new_tokens=56,
    temperature=0.0,
    top_p=1.0,
    seed=0,
    min_pixels=3136,
    max_pixels=100_000,
    max_prompt_tokens=4096,
    dtype="float32",
)


def response(number: int, text: str = "Answer: 4", *, answer: str = "4", **changes: Any) -> Response:
    """The answer to problem `number`; right as it stands."""
    kind = "even" if number % 2 == 0 else "odd"
    problem = Problem(
        f"p{number}", f"What is {number}?", answer, "integer", tags={"type": (kind,)}, extra={"n": number}
    )
    values = {
        "bench": "embedded",
        "model": "student",
        "problem": problem,
        "sample": 0,
        "key": f"{changes.get('model', 'student')}-{number}-{changes.get('sample', 0)}",
        "prompt": problem.question,
        "text": text,
        "finish_reason": "stop",
        "tokens": 5,
        "prompt_tokens": 20,
        "seconds": 0.5,
    }
    return Response(**{**values, **changes})


def write(directory: Path, responses: list[Response], name: str = "responses_embedded.jsonl") -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    replace_responses(directory / name, responses)
    return directory / name
