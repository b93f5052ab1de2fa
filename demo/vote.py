"""Blind votes: which of two answers is better, asked before anybody knows whose they are."""

from __future__ import annotations

import hashlib
import json
import os
import random
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from demo.errors import DemoError

if TYPE_CHECKING:
    from demo.compare import Column
    from reopold_vl.types import VisualSample

Choice = Literal["A", "B", "tie"]
Winner = Literal["student", "teacher", "tie"]
_LOCK = threading.Lock()


@dataclass(frozen=True)
class Ballot:
    """Two finished answers behind the letters A and B; `order` says whose they are."""

    sample: VisualSample
    columns: tuple[Column, Column]
    paths: tuple[str, str]

    @property
    def order(self) -> tuple[str, str]:
        return self.columns[0].role, self.columns[1].role

    def winner(self, choice: str) -> Winner:
        """Raises DemoError for anything but A, B and tie."""
        if choice not in get_args(Choice):
            raise DemoError(f"vote is {choice!r:.40}: allowed are A, B, tie")
        if choice == "tie":
            return "tie"
        return "teacher" if self.order["AB".index(choice)] == "teacher" else "student"


@dataclass(frozen=True)
class Tally:
    """Votes so far. `preferred` is the student's share of the decided votes with its 95 % Wilson interval."""

    student: int = 0
    teacher: int = 0
    tie: int = 0
    broken: int = 0

    @property
    def total(self) -> int:
        return self.student + self.teacher + self.tie

    @property
    def preferred(self) -> tuple[float, float, float] | None:
        """(share, low, high); None while no vote was decided."""
        from reopold_vl.report.stats import wilson_interval

        decided = self.student + self.teacher
        if not decided:
            return None
        return self.student / decided, *wilson_interval(self.student, decided)


def shuffled(sample: VisualSample, columns: Sequence[Column], paths: dict[str, str]) -> Ballot:
    """Put the student's and the teacher's answers behind A and B by chance (not by the sampling seed)."""
    pair = [column for column in columns if column.role in ("student", "teacher")]
    random.SystemRandom().shuffle(pair)
    first, second = pair
    return Ballot(sample, (first, second), (paths[first.role], paths[second.role]))


def record(file: Path, ballot: Ballot, choice: str) -> Winner:
    """Append one vote, with question and both answers, as one line of JSON; whose vote it was is not stored."""
    winner = ballot.winner(choice)
    line = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "vote": winner,
        "choice": choice,
        "question": ballot.sample.question,
        "gold": ballot.sample.answer,
        "image_sha256": [_hash(image) for image in ballot.sample.images],
        "answers": [
            {"label": label, "role": column.role, "model": path, "text": column.text, "finish_reason": column.state}
            for label, column, path in zip("AB", ballot.columns, ballot.paths, strict=True)
        ],
    }
    data = json.dumps(line, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
    with _LOCK:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("ab") as out:  # one write, so that two pages cannot mix their lines
            if out.tell() and not _ends_with_newline(file):
                data = b"\n" + data
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
    return winner


def tally(file: Path) -> Tally:
    """Count the votes in the file; lines that hold none are counted as broken. No file, no votes."""
    counts = {"student": 0, "teacher": 0, "tie": 0, "broken": 0}
    if file.exists():
        for line in file.read_bytes().split(b"\n"):
            if line.strip():
                counts[_vote_in(line)] += 1
    return Tally(**counts)


def _vote_in(line: bytes) -> str:
    try:
        entry: Any = json.loads(line)
    except ValueError:
        return "broken"
    vote = entry.get("vote") if isinstance(entry, dict) else None
    return str(vote) if vote in get_args(Winner) else "broken"


def _ends_with_newline(file: Path) -> bool:
    with file.open("rb") as stored:
        stored.seek(-1, os.SEEK_END)
        return stored.read(1) == b"\n"


def _hash(image: Any) -> str:
    return hashlib.sha256(image.tobytes() + repr(image.size).encode()).hexdigest()
