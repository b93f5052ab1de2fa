"""What the page can do, without the page: plain values in, plain JSON out. The named endpoints call this."""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from demo import credit as credits
from demo import vision
from demo.compare import Column, Columns, Sampling, one_line, race
from demo.contenders import Arena
from demo.errors import DemoError
from demo.picture import make_sample, read_picture
from demo.places import Places
from demo.vote import Ballot, Tally, record, shuffled, tally

if TYPE_CHECKING:
    from reopold_vl.types import VisualSample

MAX_BALLOTS = 1000


@dataclass(frozen=True)
class Answered:
    """A question with its answers; what the views below the answers work on. `credits` keeps what was scored."""

    sample: VisualSample
    columns: Columns
    credits: dict[str, credits.Credit] = field(default_factory=dict, compare=False)

    def __getitem__(self, role: str) -> Column:
        """The answer of that model; raises DemoError where it gave none."""
        column = next((column for column in self.columns if column.role == role), None)
        if column is None or column.rollout is None:
            raise DemoError(f"model {role!r:.40}: there is no answer of it")
        return column

    def stopped(self) -> Answered:
        """The same with unfinished answers marked as stopped."""
        columns = (c if c.finished else replace(c, state="stopped") for c in self.columns)
        return Answered(self.sample, tuple(columns))


@dataclass
class Service:
    """Models, directories and votes behind one page. `max_new_tokens` is the most that a visitor may ask for."""

    arena: Arena
    places: Places
    votes: Path
    max_new_tokens: int
    _ballots: OrderedDict[str, Ballot] = field(default_factory=OrderedDict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def sampling(self, temperature: float, top_p: float, seed: float, max_new_tokens: float) -> Sampling:
        """Checked settings; raises DemoError for values out of range."""
        for name, value in (("seed", seed), ("max_new_tokens", max_new_tokens)):
            if isinstance(value, bool) or not isinstance(value, int | float) or value != value // 1:
                raise DemoError(f"{name} is {value!r:.40}: allowed are whole numbers")
        if max_new_tokens > self.max_new_tokens:
            raise DemoError(f"max_new_tokens is {max_new_tokens}: allowed are 1 to {self.max_new_tokens}")
        return Sampling(temperature, top_p, int(seed), int(max_new_tokens))

    def sample(self, image: Any, question: Any, known: VisualSample | None = None) -> VisualSample:
        """The visitor's question; with the gold answer where picture and words are still those of `known`."""
        picture = None if image is None else read_picture(image)
        sample = make_sample(picture, question)
        self.check_length(sample)
        if known is None or picture is None or known.question != sample.question or not known.images:
            return sample
        same = known.images[0].size == picture.size and known.images[0].tobytes() == picture.tobytes()
        return replace(sample, answer=known.answer, choices=known.choices, source=known.source) if same else sample

    def check_length(self, sample: VisualSample) -> None:
        """Raise DemoError, with the numbers, for a question that is too long for the models."""
        encoder = self.arena.contenders[0].model.encoder
        tokens = len(encoder.processor.tokenizer(sample.question)["input_ids"])
        if tokens > encoder.max_prompt_tokens:
            raise DemoError(f"question: {tokens:,} tokens; allowed are {encoder.max_prompt_tokens:,} with the picture")

    def compare(self, sample: VisualSample, sampling: Sampling) -> Generator[Answered, None, None]:
        """All models answer; each value holds the answers so far."""
        with closing(race(self.arena, self.arena.contenders, sample, sampling)) as frames:
            for columns in frames:
                yield Answered(sample, columns)

    def answer(self, role: str, sample: VisualSample, sampling: Sampling) -> Answered:
        """One model's finished answer."""
        contender = self.arena[role]
        *_, columns = race(self.arena, [contender], sample, sampling)
        return Answered(sample, columns)

    def credit(self, answered: Answered, role: str) -> credits.Credit:
        """The answer of the model in `role` under the teacher, scored once. Raises ValueError where it cannot be."""
        if role not in answered.credits:
            column = answered[role]
            assert column.rollout is not None
            with _out_of_memory_is_one_line():
                answered.credits[role] = credits.credit_of(self.arena, column.role, column.rollout)
        return answered.credits[role]

    def vision(self, answered: Answered, role: str) -> vision.Sight:
        """The answer of the model in `role` with less to see. Raises ValueError where it cannot be scored."""
        column = answered[role]
        assert column.rollout is not None
        with _out_of_memory_is_one_line():
            return vision.sight_of(self.arena, column.role, column.rollout)

    def ballot(self, answered: Answered) -> tuple[str, Ballot]:
        """Hide who wrote what; the ballot waits under its name until it is voted on, the oldest are forgotten."""
        paths = {contender.role: contender.path for contender in self.arena.contenders}
        lean = [replace(column, rollout=None) for column in answered.columns]
        ballot, name = shuffled(answered.sample, lean, paths), secrets.token_hex(8)
        with self._lock:
            self._ballots[name] = ballot
            while len(self._ballots) > MAX_BALLOTS:
                self._ballots.popitem(last=False)
        return name, ballot

    def vote(self, name: Any, choice: str) -> tuple[Ballot, Tally]:
        """Record a vote, once; raises DemoError for a ballot that is unknown or was voted on."""
        with self._lock:
            ballot = self._ballots.get(name) if isinstance(name, str) else None
            if ballot is None:
                raise DemoError("vote: this comparison has been voted on, or is too old; ask again")
            ballot.winner(choice)
            del self._ballots[name]
        record(self.votes, ballot, choice)
        return ballot, self.tally()

    def tally(self) -> Tally:
        return tally(self.votes)


@contextmanager
def _out_of_memory_is_one_line() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise DemoError(one_line(error)) from error


def columns_json(arena: Arena, columns: Sequence[Column], sample: VisualSample) -> dict[str, Any]:
    """The answers so far as plain JSON."""
    from demo.views.answers import speed_up
    from reopold_vl.answers import extract_answer

    teacher = next((column for column in columns if column.role == "teacher"), None)
    return {
        "question": sample.question,
        "columns": [
            {
                "role": column.role,
                "model": arena[column.role].name,
                "parameters": arena[column.role].parameters,
                "state": column.state,
                "text": column.text,
                "answer": extract_answer(column.text, sample.choices),
                "tokens": len(column.times),
                "seconds": column.seconds,
                "first_token_seconds": column.first_token_seconds,
                "tokens_per_second": column.tokens_per_second,
                "speed_up": speed_up(column, teacher),
                "problem": column.problem,
            }
            for column in columns
        ],
    }


def tally_json(votes: Tally) -> dict[str, Any]:
    """Votes with the student's share of the decided ones and its interval."""
    preferred = votes.preferred
    return {
        "student": votes.student,
        "teacher": votes.teacher,
        "tie": votes.tie,
        "broken": votes.broken,
        "student_share": preferred[0] if preferred else None,
        "interval": list(preferred[1:]) if preferred else None,
    }
