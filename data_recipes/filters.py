"""Which rows stay. Each filter has a name, a reason for what it takes out, and a setting that turns it off."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from data_recipes.check import Unreadable
from data_recipes.config import Filters
from data_recipes.contamination import ContaminationIndex, Hit
from data_recipes.seen import Seen
from data_recipes.types import Checked, Rejected

MEASURED = "measured_pass_rate"
"""The column that holds what the pass rate filter measured, where it is on."""

CountTokens = Callable[[Checked], int]
PassRates = Callable[[Sequence[Checked]], Sequence[float]]


@dataclass(frozen=True)
class Judged:
    """A row and what became of it: `rejected` says why it is out (None: it stays), `hits` where it leaks from."""

    row: Checked | Unreadable
    rejected: Rejected | None = None
    hits: tuple[Hit, ...] = ()

    @property
    def number(self) -> int:
        return self.row.number


@dataclass
class Funnel:
    """All filters in their order. Judging depends on the rows judged before (duplicates), and on nothing else."""

    filters: Filters
    seen: Seen
    index: ContaminationIndex | None = None
    count_tokens: CountTokens | None = None
    pass_rates: PassRates | None = None

    def judge(self, rows: Sequence[Checked | Unreadable]) -> list[Judged]:
        """Pass a block of rows through; the pass rates of those that are left are measured together."""
        judged = [self._judge(row) for row in rows]
        left = [position for position, one in enumerate(judged) if one.rejected is None]
        if self.pass_rates is None or not left:
            return judged
        low, high = self.filters.pass_rate_min, self.filters.pass_rate_max
        rates = self.pass_rates([row for position in left if isinstance(row := rows[position], Checked)])
        for position, rate in zip(left, rates, strict=True):
            row = judged[position].row
            if isinstance(row, Checked):
                judged[position] = Judged(replace(row, extra={**row.extra, MEASURED: rate}))
            if not low <= rate <= high:
                solved = "no answer could be drawn" if math.isnan(rate) else f"solved in {rate:.1%} of the attempts"
                reason = f"{solved}, asked for {low:.1%} to {high:.1%}"
                judged[position] = _out(judged[position].row, "pass_rate", reason)
        return judged

    def _judge(self, row: Checked | Unreadable) -> Judged:
        if isinstance(row, Unreadable):
            return Judged(row, row.rejected)
        for name, test in (("missing_image", self._image), ("missing_answer", self._answer), ("image_size", self._size),
                           ("prompt_length", self._length)):  # fmt: skip
            if reason := test(row):
                return _out(row, name, reason)
        if self.index is not None and (hits := self.index.hits(row, text=self.filters.contamination_text)):
            return _out(row, "contamination", _listed(hits), tuple(hits))
        for name, test in (("duplicate_question", self._question_again), ("duplicate_image", self._image_again)):
            if reason := test(row):
                return _out(row, name, reason)
        self.seen.add(row)
        return Judged(row)

    def _image(self, row: Checked) -> str:
        return "no image" if self.filters.require_image and not row.image_bytes else ""

    def _answer(self, row: Checked) -> str:
        return "no answer" if self.filters.require_answer and not (row.sample.answer or "").strip() else ""

    def _size(self, row: Checked) -> str:
        filters = self.filters
        for width, height in row.sizes:
            short, long = sorted((width, height))
            if short < filters.min_side:
                return f"image of {width} x {height} pixels: the shortest side must have {filters.min_side}"
            if filters.max_pixels and width * height > filters.max_pixels:
                return f"image of {width} x {height} pixels: at most {filters.max_pixels:,} in all are allowed"
            if filters.max_aspect and long > filters.max_aspect * short:
                return (
                    f"image of {width} x {height} pixels: one side is more than {filters.max_aspect:g} times the other"
                )
        return ""

    def _length(self, row: Checked) -> str:
        characters, most = prompt_characters(row), self.filters.max_prompt_chars
        if most and characters > most:
            return f"prompt of {characters:,} characters: at most {most:,} are allowed"
        most = self.filters.max_prompt_tokens
        if not most or self.count_tokens is None:
            return ""
        try:
            tokens = self.count_tokens(row)
        except ValueError as error:
            return f"no prompt can be made of it: {error}"
        return f"prompt of {tokens:,} tokens: at most {most:,} are allowed" if tokens > most else ""

    def _question_again(self, row: Checked) -> str:
        mode = self.filters.duplicate_question
        return self.seen.same_question(row, near=mode == "near") if mode != "off" else ""

    def _image_again(self, row: Checked) -> str:
        mode = self.filters.duplicate_image
        return self.seen.same_image(row, near=mode == "near") if mode != "off" else ""


def prompt_characters(row: Checked) -> int:
    """Characters of all text that the model is shown: system text, question, and choices that it does not hold."""
    sample = row.sample
    listed = (choice for choice in sample.choices or () if choice not in sample.question)
    return len(sample.system or "") + len(sample.question) + sum(map(len, listed))


def _out(row: Checked | Unreadable, name: str, reason: str, hits: tuple[Hit, ...] = ()) -> Judged:
    identity = row.sample.id if isinstance(row, Checked) else row.rejected.id
    return Judged(row, Rejected(row.number, name, reason, identity), hits)


def _listed(hits: Sequence[Hit]) -> str:
    more = f" and {len(hits) - 1} more" if len(hits) > 1 else ""
    return f"{hits[0]}{more}"
