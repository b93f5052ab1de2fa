"""Two or three models answer one question at once, each on its own clock.

Models on one device take turns, one token at a time: next is always the one that has computed the least so far. So
what runs on the screen is a race on equal hardware, and each clock counts only the time in which its own model
computed. Models on different devices run side by side, one thread a device.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from demo.contenders import Arena, Contender, Role
from demo.errors import DemoError
from demo.tokens import extend_texts

if TYPE_CHECKING:
    from reopold_vl.types import Rollout, VisualSample

State = Literal["waiting", "running", "stop", "length", "stopped", "failed"]
FINISHED = ("stop", "length", "stopped", "failed")
FRAME_SECONDS = 0.1  # a picture of the race at most this often: drawing it takes time from models on the same CPU


@dataclass(frozen=True)
class Sampling:
    """How answers are drawn; temperature 0 is greedy. Raises DemoError for values outside their range."""

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    max_new_tokens: int = 256

    def __post_init__(self) -> None:
        for name, low, high in (
            ("temperature", 0, 2),
            ("top_p", 0.01, 1),
            ("seed", 0, 2**31 - 1),
            ("max_new_tokens", 1, 2**15),
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
                raise DemoError(f"{name} is {value!r:.40}: allowed is {low} to {high}")
            if name in ("seed", "max_new_tokens") and value != int(value):
                raise DemoError(f"{name} is {value!r:.40}: allowed are whole numbers")


@dataclass(frozen=True)
class Column:
    """One model's answer so far.

    `seconds` is the time that its own computing took, `times` when each token was there on that clock (seconds; the
    first is the time to first token). `state` is a finish reason once the answer is over; `problem` says why it
    failed. `rollout` is what the credit view scores.
    """

    role: Role
    state: State = "waiting"
    pieces: tuple[str, ...] = ()
    times: tuple[float, ...] = ()
    seconds: float = 0.0
    prompt_tokens: int = 0
    problem: str = ""
    rollout: Rollout | None = field(default=None, repr=False, compare=False)

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    @property
    def finished(self) -> bool:
        return self.state in FINISHED

    @property
    def first_token_seconds(self) -> float | None:
        """Time to first token: image and prompt encoded, prefill, one token."""
        return self.times[0] if self.times else None

    @property
    def tokens_per_second(self) -> float | None:
        """Decoding rate after the first token."""
        if len(self.times) < 2 or self.times[-1] <= self.times[0]:
            return None
        return (len(self.times) - 1) / (self.times[-1] - self.times[0])


Columns = tuple[Column, ...]


def race(
    arena: Arena, contenders: Sequence[Contender], sample: VisualSample, sampling: Sampling
) -> Generator[Columns, None, None]:
    """Columns of all contenders, again and again while the answers grow; the last ones are finished.

    Closing the iterator stops the models at their next token. A model that cannot take the question has a column of
    state "failed" with the reason; DemoError is raised only where no model can take it.
    """
    columns: dict[Role, Column] = {contender.role: Column(contender.role) for contender in contenders}
    news: queue.SimpleQueue[Column] = queue.SimpleQueue()
    stop = threading.Event()
    by_device: dict[str, list[Contender]] = {}
    for contender in contenders:
        by_device.setdefault(contender.device, []).append(contender)
    # The threads hold the devices, not this generator: it may be left hanging by a reader who went away.
    threads = [
        threading.Thread(target=_run_device, args=(arena.alone(device), group, sample, sampling, news.put, stop))
        for device, group in by_device.items()
    ]
    for thread in threads:
        thread.daemon = True
        thread.start()
    try:
        yield from _frames(columns, news)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    if all(column.state == "failed" for column in columns.values()):
        raise DemoError(next(iter(columns.values())).problem)


def _frames(columns: dict[Role, Column], news: queue.SimpleQueue[Column]) -> Iterator[Columns]:
    """What arrived since the last frame, in one tuple; ends when all columns have finished."""
    shown = 0.0
    while not all(column.finished for column in columns.values()):
        column = news.get()
        columns[column.role] = column
        if news.empty() and (time.monotonic() - shown >= FRAME_SECONDS or column.finished):
            shown = time.monotonic()
            yield tuple(columns.values())


def _run_device(
    alone: threading.Lock,
    group: Sequence[Contender],
    sample: VisualSample,
    sampling: Sampling,
    tell: Callable[[Column], None],
    stop: threading.Event,
) -> None:
    """Decode for all models of one device in turns until each has finished or `stop` is set."""
    columns = {contender.role: Column(contender.role, "running") for contender in group}
    by_role = {contender.role: contender for contender in group}
    try:
        with alone:
            answers = {contender.role: _answer(contender, sample, sampling) for contender in group}
            while answers:
                role = min(answers, key=lambda role: columns[role].seconds)
                column = columns[role] = _step(columns[role], by_role[role], answers[role], sampling, stop)
                if column.finished:
                    answers.pop(role).close()
                tell(column)
    finally:  # whatever happened here, nobody waits for ever
        for column in columns.values():
            if not column.finished:
                tell(replace(column, state="failed", problem="something went wrong on the server"))


def _step(
    column: Column,
    contender: Contender,
    answer: Iterator[Rollout],
    sampling: Sampling,
    stop: threading.Event,
) -> Column:
    """The column with its next token, with the time that took on its clock."""
    if stop.is_set():
        return replace(column, state="stopped")
    began = time.perf_counter()
    try:
        rollout = next(answer)
    except (ValueError, RuntimeError) as error:  # bad input; out of memory is a RuntimeError
        return replace(column, state="failed", problem=one_line(error))
    seconds = column.seconds + time.perf_counter() - began
    ids = rollout.response_ids.tolist()
    ended = ids[-1] in contender.eos_ids
    return replace(
        column,
        state="stop" if ended else "length" if len(ids) == sampling.max_new_tokens else "running",
        pieces=extend_texts(contender.model.tokenizer, column.pieces, ids),
        times=(*column.times, seconds),
        seconds=seconds,
        prompt_tokens=len(rollout.prompt.ids),
        rollout=rollout,
    )


def _answer(contender: Contender, sample: VisualSample, sampling: Sampling) -> Generator[Rollout, None, None]:
    return contender.stream(
        sample,
        max_new_tokens=int(sampling.max_new_tokens),
        seed=int(sampling.seed),
        temperature=sampling.temperature,
        top_p=sampling.top_p,
    )


def one_line(error: Exception) -> str:
    """The error as one line for a visitor, without our name for the sample."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text.removeprefix("sample question: ")[:400]
