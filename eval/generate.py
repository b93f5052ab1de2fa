"""Answers of a model to problems: batches of similar length, images decoded one batch ahead, every batch on disk."""

from __future__ import annotations

import copy
import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

import torch

from eval.config import EvalError
from eval.responses import GenerationSettings, append_responses
from eval.types import Problem, Response
from reopold_vl.images import ImageError, image_size
from reopold_vl.models import VisionLanguageModel
from reopold_vl.prompts import PromptEncoder
from reopold_vl.stop import StopSignals
from reopold_vl.types import Prompt, Rollout

CHARACTERS_PER_TOKEN = 3.5


@dataclass(frozen=True)
class Job:
    """One answer to get: a problem in the words of its prompt, the number of the sample, and the response's key."""

    problem: Problem
    prompt: str
    sample: int
    key: str


def plan(jobs: Sequence[Job], encoder: PromptEncoder, *, batch_size: int) -> list[list[Job]]:
    """Batches of at most `batch_size` jobs: the longest prompts first, a problem's samples together where they fit.

    The plan is a function of the whole list, never of what is done already, so that a run that was stopped batches as
    one that was not. Length is estimated from text and image headers: nothing is decoded. The longest come first so
    that a lack of memory shows at once.
    """
    samples: dict[str, list[Job]] = {}
    for job in jobs:
        samples.setdefault(job.problem.id, []).append(job)
    groups = sorted(samples.values(), key=lambda group: -_length(group[0], encoder))
    batches: list[list[Job]] = []
    for group in groups:
        for start in range(0, len(group), batch_size):
            part = group[start : start + batch_size]
            if batches and len(batches[-1]) + len(part) <= batch_size:
                batches[-1].extend(part)
            else:
                batches.append(list(part))
    return batches


def _length(job: Job, encoder: PromptEncoder) -> float:
    """About how many tokens the prompt will have."""
    tokens = len(job.prompt) / CHARACTERS_PER_TOKEN
    for image in job.problem.images:
        try:
            width, height = image_size(image)
        except ImageError:
            continue
        tokens += min(max(width * height, encoder.min_pixels), encoder.max_pixels) / encoder.factor**2
    return tokens


def remaining(batches: Sequence[list[Job]], done: Mapping[str, Response]) -> list[list[Job]]:
    """What is left of the batches: those not begun, and the missing jobs of the others.

    The batch that was written last is repeated as a whole where it is incomplete: there the run was killed, and its
    missing answers must come out as they would have.
    """
    last = list(done)[-1] if done else None
    left = []
    for batch in batches:
        missing = [job for job in batch if job.key not in done]
        interrupted = bool(missing) and any(job.key == last for job in batch)
        if missing:
            left.append(batch if interrupted else missing)
    return left


class Generator:
    """Gets answers from one model and stores them; `tell` takes one line for the user."""

    def __init__(
        self,
        model: VisionLanguageModel,
        *,
        bench: str,
        settings: GenerationSettings,
        batch_size: int,
        tell: Callable[[str], object] = print,
    ) -> None:
        self.model = model
        self.bench = bench
        self.settings = settings
        self.rows = batch_size
        self.tell = tell
        # Decoding happens while the other thread encodes, and a tokenizer is not made for two threads.
        self._decoder = copy.deepcopy(model.tokenizer)

    def run(
        self, batches: Sequence[list[Job]], path: Path, *, done: Mapping[str, Response], stop: StopSignals | None = None
    ) -> Iterator[list[Response]]:
        """Answer the batches one after the other, appending each to `path`; yields what was new in each.

        Raises EvalError where not even a single answer fits into memory.
        """
        with ThreadPoolExecutor(1, "encode") as pool:
            try:
                ahead = pool.submit(self._encode, batches[0]) if batches else None
                for index, batch in enumerate(batches):
                    assert ahead is not None
                    begun = time.perf_counter()
                    prompts = ahead.result()
                    ahead = pool.submit(self._encode, batches[index + 1]) if index + 1 < len(batches) else None
                    answers = self._answer(batch, prompts)
                    seconds = (time.perf_counter() - begun) / len(batch)
                    responses = [
                        self._response(job, prompts[job.problem.id], answers.get(job.key), seconds)
                        for job in batch
                        if job.key not in done
                    ]
                    with stop.deferred() if stop else nullcontext():
                        append_responses(path, responses)
                    yield responses
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _encode(self, batch: Sequence[Job]) -> dict[str, Prompt | str]:
        """Each problem's prompt, or why it has none."""
        encoded: dict[str, Prompt | str] = {}
        for job in batch:
            if job.problem.id in encoded:
                continue
            try:
                encoded[job.problem.id] = self.model.encoder(job.problem.put_as(job.prompt))
            except ValueError as error:
                encoded[job.problem.id] = " ".join(str(error).split())
        return encoded

    def _answer(self, batch: Sequence[Job], prompts: Mapping[str, Prompt | str]) -> dict[str, Rollout]:
        """The rollouts by key; out of memory halves the number of rows, for the rest of the run as well."""
        answers: dict[str, Rollout] = {}
        waiting = [[job for job in batch if isinstance(prompts[job.problem.id], Prompt)]]
        while waiting:
            part = waiting.pop(0)
            if not part:
                continue
            if len(part) > self.rows:
                waiting = [part[i : i + self.rows] for i in range(0, len(part), self.rows)] + waiting
                continue
            reason = ""
            try:
                answers |= self._sample(part, prompts)
            except RuntimeError as error:
                if not _is_out_of_memory(error):
                    raise
                reason = str(error).strip().splitlines()[0]
            if reason:  # out of the except clause, whose traceback holds on to the tensors
                self._halve(len(part), reason)
                waiting.insert(0, part)
        return answers

    def _sample(self, part: Sequence[Job], prompts: Mapping[str, Prompt | str]) -> dict[str, Rollout]:
        """One batch through the rollout engine; its random numbers follow from the seed and the batch's keys."""
        engine = self.model.engine(rows_at_once=len(part))
        groups = [list(group) for _, group in groupby(part, key=lambda job: job.problem.id)]
        answers: dict[str, Rollout] = {}
        for n in sorted({len(group) for group in groups}):
            equal = [group for group in groups if len(group) == n]
            rollouts = engine.generate(
                [prompt for group in equal if isinstance(prompt := prompts[group[0].problem.id], Prompt)],
                n=n,
                max_new_tokens=self.settings.max_new_tokens,
                seed=_seed(self.settings.seed, [job.key for group in equal for job in group]),
                temperature=self.settings.temperature,
                top_p=self.settings.top_p,
            )
            jobs = [job for group in equal for job in group]
            answers |= {job.key: rollout for job, rollout in zip(jobs, rollouts, strict=True)}
        return answers

    def _halve(self, rows: int, reason: str) -> None:
        if rows == 1:
            raise EvalError(
                f"out of memory with a single answer ({reason}): lower --max-pixels or --max-new-tokens, or take "
                "--dtype bfloat16; what has been answered is stored"
            )
        self.rows = rows // 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self.tell(f"out of memory with {rows} answers at once: going on with {self.rows} ({reason})")

    def _response(self, job: Job, prompt: Prompt | str, rollout: Rollout | None, seconds: float) -> Response:
        problem = replace(job.problem, images=())
        common = {"bench": self.bench, "model": self.model.path, "problem": problem, "sample": job.sample}
        common |= {"key": job.key, "prompt": job.prompt}
        if isinstance(prompt, str) or rollout is None:
            return Response(**common, text="", finish_reason="failed", error=str(prompt))
        return Response(
            **common,
            text=self._decoder.decode(rollout.response_ids, skip_special_tokens=True),
            finish_reason=rollout.finish_reason,
            tokens=len(rollout.response_ids),
            prompt_tokens=len(prompt.ids),
            seconds=round(seconds, 6),
        )


def _seed(seed: int, keys: Sequence[str]) -> int:
    digest = hashlib.sha256("\n".join([str(seed), *keys]).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1  # torch takes 63 bits


def _is_out_of_memory(error: RuntimeError) -> bool:
    # On a CPU torch raises a plain RuntimeError, which only its text tells apart.
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
