"""The one thread that owns the model: what waits is joined into forward passes, growing answers move token by token."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

import torch

from reopold_vl.collate import collate_rollouts, prompt_groups
from reopold_vl.models import VisionLanguageModel
from reopold_vl.score import score_tokens
from reopold_vl.types import Prompt, Rollout

Value = TypeVar("Value")


class ServerStopped(RuntimeError):
    """The server ends; what was asked for is not computed any more."""


@dataclass(frozen=True)
class Scored:
    """One answer's log-probs [T] in nats and, where asked for, the k likeliest ids and their log-probs [T, k]."""

    logprobs: list[float]
    top_ids: list[list[int]]
    top_logprobs: list[list[float]]


@dataclass(frozen=True)
class _Job:
    rollouts: Sequence[Rollout]
    top: int
    done: Future[list[Scored]] = field(default_factory=Future)


class Worker:
    """Requests come from any thread, the model computes in one: at most `max_batch` rows a forward pass.

    Scoring requests that wait while the model is busy share the next passes. A stream's next token and the next
    scoring pass take turns, so that neither waits for the other's end.
    """

    def __init__(self, model: VisionLanguageModel, *, max_batch: int) -> None:
        self.model, self.max_batch = model, max_batch
        self.passes = 0
        self._waiting: deque[_Job] = deque()
        self._lock = threading.Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._stopped = False

    def score(self, rollouts: Sequence[Rollout], *, top: int) -> Future[list[Scored]]:
        """Log-probs of each rollout's response, in their order."""
        job = _Job(rollouts, top)
        with self._lock:
            self._waiting.append(job)
        self._submit(self._score_waiting)
        return job.done

    def generate(
        self, prompts: Sequence[Prompt], *, max_new_tokens: int, temperature: float, top_p: float, seed: int
    ) -> Future[list[Rollout]]:
        """One answer to each prompt, in their order."""
        engine = self.model.engine(rows_at_once=self.max_batch)
        settings = {"max_new_tokens": max_new_tokens, "temperature": temperature, "top_p": top_p, "seed": seed}
        return self._submit(lambda: engine.generate(prompts, n=1, **settings))

    def stream(
        self,
        prompt: Prompt,
        tell: Callable[[Rollout | Exception | None], bool],
        *,
        max_new_tokens: int,
        temperature: float,
        top_p: float,
        seed: int,
    ) -> None:
        """Hand `tell` the growing answer after every token, then None, or the error that ended it; `tell` returns
        False to end it early."""
        settings = {"max_new_tokens": max_new_tokens, "temperature": temperature, "top_p": top_p, "seed": seed}
        answer = self.model.engine(rows_at_once=1).stream(prompt, **settings)
        self._submit(lambda: self._advance(answer, tell))

    def stop(self) -> None:
        """Finish the pass in hand, refuse what waits, and end the thread."""
        self._stopped = True
        self._thread.shutdown(wait=True, cancel_futures=True)
        for job in self._waiting:
            if job.done.set_running_or_notify_cancel():
                job.done.set_exception(ServerStopped("the server stops"))

    def _submit(self, call: Callable[[], Value]) -> Future[Value]:
        try:
            return self._thread.submit(call)
        except RuntimeError:  # the executor's way to say that it was shut down
            raise ServerStopped("the server stops") from None

    def _score_waiting(self) -> None:
        """Score as many of the waiting jobs as fit into one pass (at least one job, which may take several)."""
        jobs: list[_Job] = []
        with self._lock:
            rows = 0
            while self._waiting and (not jobs or rows + len(self._waiting[0].rollouts) <= self.max_batch):
                jobs.append(self._waiting.popleft())
                rows += len(jobs[-1].rollouts)
        jobs = [job for job in jobs if job.done.set_running_or_notify_cancel()]  # whoever asked may have gone
        if not jobs:
            return  # an earlier turn took it along
        try:
            scored = iter(self._score([rollout for job in jobs for rollout in job.rollouts], max(j.top for j in jobs)))
            for job in jobs:
                job.done.set_result([_cut(next(scored), job.top) for _ in job.rollouts])
        except (RuntimeError, ValueError) as error:  # out of memory is a RuntimeError
            for job in jobs:
                job.done.set_exception(error)
        finally:  # whatever happened, nobody waits for ever
            for job in jobs:
                if not job.done.done():
                    job.done.set_exception(RuntimeError("something went wrong while scoring"))

    def _score(self, rollouts: Sequence[Rollout], top: int) -> Iterator[Scored]:
        self.passes += len(list(prompt_groups(rollouts, self.max_batch)))
        logprobs = score_tokens(self.model, rollouts, rows_at_once=self.max_batch).logprobs
        tops = likeliest(self.model, rollouts, top, rows_at_once=self.max_batch) if top else [([], [])] * len(rollouts)
        for row, rollout, (ids, values) in zip(logprobs, rollouts, tops, strict=True):
            yield Scored(row[: len(rollout.response_ids)].tolist(), ids, values)

    def _advance(self, answer: Iterator[Rollout], tell: Callable[[Rollout | Exception | None], bool]) -> None:
        try:
            rollout = next(answer, None)
        except (RuntimeError, ValueError) as error:
            tell(error)
            return
        if not tell(rollout) or rollout is None:
            return
        if self._stopped:
            tell(ServerStopped("the server stops"))
            return
        self._submit(lambda: self._advance(answer, tell))


def _cut(scored: Scored, top: int) -> Scored:
    """What one job asked for of a pass that another job wanted more alternatives of."""
    return Scored(
        scored.logprobs, [ids[:top] for ids in scored.top_ids], [values[:top] for values in scored.top_logprobs]
    )


@torch.no_grad()
def likeliest(
    model: VisionLanguageModel, rollouts: Sequence[Rollout], top: int, *, rows_at_once: int
) -> list[tuple[list[list[int]], list[list[float]]]]:
    """The `top` likeliest tokens in each response token's place: ids and log-probs in nats, [T, top] a rollout."""
    found: list[tuple[list[list[int]], list[list[float]]]] = []
    for piece in prompt_groups(rollouts, rows_at_once):
        batch = collate_rollouts(rollouts[piece], pad_id=model.pad_id).to(model.policy.device)
        states = model.policy.response_states(batch)
        for row, mask in zip(states, batch.mask, strict=True):  # a row at a time: [T, vocabulary] is large enough
            values, ids = model.policy.next_logits(row[mask]).float().log_softmax(-1).topk(top)
            found.append((ids.tolist(), values.tolist()))
    return found
