"""Is this training row in a benchmark? By pixels, by the look of the picture, by the wording of the question.

Each test alone is weak: look-alike diagrams share perceptual hashes, templates ("How many items are there?") share
questions. So a picture counts by itself only when hash and thumbnail agree closely; a loosely similar picture counts
with the same question; a question counts by itself only when it is long, or specific, and no template of the benchmark.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from data_recipes.hashes import THUMBNAIL_BYTES, is_plain, thumbnail_gap
from data_recipes.near import HashIndex
from data_recipes.seen import NEAR_BITS, NEAR_GAP
from data_recipes.types import Checked

ALIKE_BITS, ALIKE_GAP = 12, 30.0
"""How far apart two pictures may be when the question is the same: half the size and JPEG at quality 50."""

LONG_QUESTION = 120
"""Characters of a question key from which on it counts without the picture."""

SPECIFIC_QUESTION, SPECIFIC_NUMBERS = 40, 2
"""Characters, and different numbers in it, from which on a shorter one does."""

ANCHOR = 32  # characters at the start of a question by which it is found inside a longer prompt
MAX_HITS = 20  # of one row that are listed

_NUMBERS = re.compile(r"\d+(?:\.\d+)?")


@dataclass(frozen=True)
class Item:
    """A benchmark's problem as far as it matters here; `answer` only tells templates from questions."""

    bench: str
    id: str
    question_key: str
    answer: str = ""


@dataclass(frozen=True)
class Picture:
    """An image of a problem: which item, hash of the pixels, perceptual hash, thumbnail."""

    item: int
    sha256: str
    phash: int
    thumbnail: bytes


@dataclass(frozen=True)
class Hit:
    """A problem that a row repeats, and by what: "pixels", "picture", "question and similar picture", "question"."""

    bench: str
    id: str
    by: str

    def __str__(self) -> str:
        return f"{self.bench} {self.id} (same {self.by})"


class ContaminationIndex:
    """Every problem of some benchmarks, to be looked up by picture and question."""

    def __init__(self, items: Sequence[Item], pictures: Sequence[Picture], benches: dict[str, dict]) -> None:
        """`benches` says of each benchmark what went in: {"problems", "origin", "revision", "split", ...}."""
        self.items, self.pictures, self.benches = tuple(items), tuple(pictures), benches
        self._index = HashIndex()
        self._thumbnails = np.frombuffer(b"".join(p.thumbnail for p in pictures), np.uint8).reshape(-1, THUMBNAIL_BYTES)
        self._pixels: dict[str, list[int]] = defaultdict(list)
        self._of_item: dict[int, list[int]] = defaultdict(list)
        for position, picture in enumerate(pictures):
            self._index.add(picture.phash)
            self._pixels[picture.sha256].append(position)
            self._of_item[picture.item].append(position)
        self._questions: dict[str, list[int]] = defaultdict(list)
        for number, item in enumerate(items):
            if item.question_key:
                self._questions[item.question_key].append(number)
        self._anchors: dict[str, list[str]] = defaultdict(list)
        for key, numbers in self._questions.items():
            if self._tells(key, numbers):
                self._anchors[key[:ANCHOR]].append(key)

    def hits(self, row: Checked, *, text: bool = True) -> list[Hit]:
        """The problems that the row repeats (at most MAX_HITS), strongest evidence first."""
        found: dict[int, str] = {}
        same_question = self._questions.get(row.question_key, []) if row.question_key else []
        for place in range(len(row.image_sha256)):
            for item, by in self._by_image(row, place, set(same_question)):
                found.setdefault(item, by)
        for item, by in self._by_both(row, same_question):
            found.setdefault(item, by)
        for item in self._by_question(row.question_key) if text else ():
            found.setdefault(item, "question")
        listed = list(found.items())[:MAX_HITS]
        return [Hit(self.items[item].bench, self.items[item].id, by) for item, by in listed]

    def _by_image(self, row: Checked, place: int, same_question: set[int]) -> Iterable[tuple[int, str]]:
        thumbnail = row.extra["thumbnails"][place]
        plain = is_plain(thumbnail)
        for position in self._pixels.get(row.image_sha256[place], ()):
            item = self.pictures[position].item
            if not plain or item in same_question:
                yield item, "pixels"
        if plain or not (near := self._index.search(row.image_phash[place], NEAR_BITS)):
            return
        for position, gap in zip(near, thumbnail_gap(thumbnail, self._thumbnails[near].tobytes()), strict=True):
            if gap <= NEAR_GAP:
                yield self.pictures[position].item, "picture"

    def _by_both(self, row: Checked, same_question: Sequence[int]) -> Iterable[tuple[int, str]]:
        candidates = [position for item in same_question for position in self._of_item[item]]
        for place, code in enumerate(row.image_phash):
            near = [at for at in candidates if (self.pictures[at].phash ^ code).bit_count() <= ALIKE_BITS]
            if not near or is_plain(thumbnail := row.extra["thumbnails"][place]):
                continue
            for position, gap in zip(near, thumbnail_gap(thumbnail, self._thumbnails[near].tobytes()), strict=True):
                if gap <= ALIKE_GAP:
                    yield self.pictures[position].item, "question and similar picture"

    def _by_question(self, key: str) -> Iterable[int]:
        """Telling questions that the row's question is, or holds inside (behind an instruction, say)."""
        for start in range(len(key) - ANCHOR + 1):
            for asked in self._anchors.get(key[start : start + ANCHOR], ()):
                if key.startswith(asked, start):
                    yield from self._questions[asked]

    def _tells(self, key: str, numbers: Sequence[int]) -> bool:
        """Whether a question says enough to count without its picture: see the module's docstring."""
        if len(key) < SPECIFIC_QUESTION or len({self.items[number].answer for number in numbers}) > 1:
            return False  # asked of several pictures with different answers: a template
        return len(key) >= LONG_QUESTION or len(set(_NUMBERS.findall(key))) >= SPECIFIC_NUMBERS
