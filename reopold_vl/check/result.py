"""What one check found, and what all of them found together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Status = Literal["ok", "warn", "fail", "skip"]


@dataclass(frozen=True)
class Result:
    """One line of the screen: `measured` says what was found, `advice` what to do about it (of a warning or failure).

    "skip" is a check that could not be made; `measured` says why, so that nothing is left out in silence.
    """

    name: str
    status: Status
    measured: str
    advice: str = ""

    def __str__(self) -> str:
        """One line for an error message: `end tokens: ... ; do this`."""
        return f"{self.name}: {self.measured}" + (f"; {self.advice}" if self.advice else "")


@dataclass(frozen=True)
class Report:
    """All results in the order in which they were found; `title` says of what."""

    title: str
    results: tuple[Result, ...]

    @property
    def green(self) -> bool:
        """Whether nothing failed; warnings and skipped checks leave it green."""
        return self.first_failure is None

    @property
    def first_failure(self) -> Result | None:
        return next((result for result in self.results if result.status == "fail"), None)

    def count(self, status: Status) -> int:
        return sum(result.status == status for result in self.results)

    def as_json(self) -> dict[str, Any]:
        """For machines: `{"green": ..., "title": ..., "results": [{"name", "status", "measured", "advice"}]}`."""
        results = [vars(result) for result in self.results]
        return {"green": self.green, "title": self.title, "results": [dict(result) for result in results]}


def small(number: float) -> str:
    """A number for people: 11, 0.0031, 3.1e-07 or 0."""
    return f"{number:.2g}"
