"""Generating in tests: jobs of the embedded benchmark, answers by way of the disk, an engine short of memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
from stored import SETTINGS

from eval.benches import find_bench
from eval.generate import Generator, Job, plan, remaining
from eval.responses import GenerationSettings, read_responses, reclaim
from eval.types import Problem, Response
from reopold_vl.models import VisionLanguageModel, load_model
from reopold_vl.rollout.hf import HFEngine

BENCH = find_bench("embedded")
WARM = replace(SETTINGS, temperature=1.0, max_new_tokens=24)


@lru_cache
def embedded_student() -> VisionLanguageModel:
    """Loaded once for all tests: never changed."""
    return load_model("zoo:student", device="cpu", min_pixels=SETTINGS.min_pixels, max_pixels=SETTINGS.max_pixels)


@lru_cache
def embedded_problems() -> tuple[Problem, ...]:
    """Two problems of each type."""
    assert BENCH.rows is not None
    return tuple(BENCH.rows("test")[:22])


def jobs(problems: Iterable[Problem], n: int = 1) -> list[Job]:
    return [
        Job(problem, problem.question, sample, f"{problem.id}/{sample}") for problem in problems for sample in range(n)
    ]


def answers(
    model: VisionLanguageModel,
    wanted: Sequence[Job],
    path: Path,
    *,
    settings: GenerationSettings = SETTINGS,
    batch_size: int = 8,
    said: list[str] | None = None,
) -> dict[str, Response]:
    """All responses, those that lie in `path` taken up."""
    done, _ = reclaim(path, [job.key for job in wanted])
    tell = print if said is None else said.append
    generator = Generator(model, bench="embedded", settings=settings, batch_size=batch_size, tell=tell)
    batches = remaining(plan(wanted, model.encoder, batch_size=batch_size), done)
    for responses in generator.run(batches, path, done=dict(done)):
        done |= {item.key: item for item in responses}
    assert {item.key: item for item in read_responses(path).responses} == done  # all of it is on the disk
    return done


def texts(found: dict[str, Response]) -> dict[str, tuple[str, int, str]]:
    return {key: (item.text, item.tokens, item.finish_reason) for key, item in sorted(found.items())}


def cramped(monkeypatch: pytest.MonkeyPatch, rows: int, error: RuntimeError) -> None:
    """An engine without the memory for more than `rows` answers at once."""
    generate = HFEngine.generate

    def limited(self: HFEngine, prompts: Sequence, *, n: int, **settings: Any) -> list:
        if len(prompts) * n > rows:
            raise error
        return generate(self, prompts, n=n, **settings)

    monkeypatch.setattr(HFEngine, "generate", limited)
