"""What a figure is: a number of ours beside a peer's, the goal, and whether what was measured is also correct."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from typing import Any

NOT_INSTALLED = "not installed"


@dataclass(frozen=True)
class Figure:
    """`goal` bounds `ratio` (ours / peer) or, where there is no peer to divide by, `ours`; `at_least` turns it around.

    `peer` is None where the peer is not installed. `checks` are the correctness measures that go with the figure: a
    name, what was found and what is allowed.
    """

    name: str
    unit: str
    ours: float
    peer: float | None
    peer_name: str
    goal: float
    of_ratio: bool = True
    at_least: bool = False
    checks: dict[str, tuple[float, float]] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def ratio(self) -> float | None:
        return None if self.peer is None or not self.peer else self.ours / self.peer

    @property
    def correct(self) -> bool:
        return all(found <= allowed for found, allowed in self.checks.values())

    @property
    def met(self) -> bool | None:
        """None where there is nothing to compare with; a wrong result misses any goal."""
        value = self.ratio if self.of_ratio else self.ours
        if not self.correct:
            return False
        if value is None:
            return None
        return value >= self.goal if self.at_least else value <= self.goal

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return {**asdict(self), "ratio": self.ratio, "correct": self.correct, "met": self.met}


def restored(record: Mapping[str, Any]) -> Figure:
    """The inverse of `Figure.record`."""
    found: dict[str, Any] = {each.name: record[each.name] for each in fields(Figure)}
    found["checks"] = {name: tuple(check) for name, check in record["checks"].items()}
    return Figure(**found)


def table(figures: list[Figure]) -> str:
    """Markdown, a row a figure."""
    lines = ["| figure | ours | peer | ratio | goal | met | correct |", "|---|---:|---:|---:|---:|---|---|"]
    shown = ""
    for each in figures:
        peer = NOT_INSTALLED if each.peer is None else f"{each.peer:.4g}"
        ratio = "" if each.ratio is None else f"{each.ratio:.3g}"
        sign = "≥" if each.at_least else "≤"
        goal = f"{'ratio ' if each.of_ratio else ''}{sign} {each.goal:g}"
        met = {True: "yes", False: "NO", None: "-"}[each.met]
        checks = "; ".join(f"{name} {found:.1e} (≤ {allowed:.0e})" for name, (found, allowed) in each.checks.items())
        lines.append(
            f"| {each.name}, {each.unit} | {each.ours:.4g} | {peer} ({each.peer_name}) | {ratio} | {goal} | {met} | "
            f"{'as above' if checks and checks == shown else checks or '-'} |"
        )
        shown = checks
    return "\n".join(lines) + "\n"


def savings_table(figures: list[Figure]) -> str:
    """Markdown, a row a saving: CPU seconds of the same work with it and without it, and the share that it saves."""
    lines = ["| saving | with | without | saves |", "|---|---:|---:|---:|"]
    for each in figures:
        assert each.peer is not None
        saved = 1 - each.ours / each.peer
        lines.append(f"| {each.name} | {each.ours:.3f} | {each.peer:.3f} | {saved:.0%} |")
    return "\n".join(lines) + "\n"


def in_turns(
    ours: Callable[[Any], Any], theirs: Callable[[Any], Any], turns: Iterable[Any]
) -> tuple[tuple[list[Any], float], tuple[list[Any], float]]:
    """What both give for each turn, and the CPU time of each side: other work on the machine slows both alike."""
    found: tuple[list[Any], list[Any]] = ([], [])
    seconds = [0.0, 0.0]
    turns = list(turns)
    for call in (ours, theirs):
        call(turns[0])
    for turn in turns:
        for side, call in enumerate((ours, theirs)):
            made, cost = cpu_seconds(partial(call, turn))
            found[side].append(made)
            seconds[side] += cost
    return (found[0], seconds[0]), (found[1], seconds[1])


def cpu_seconds(call: Callable[[], Any]) -> tuple[Any, float]:
    """What `call` gives, and the CPU time of this process for it: other processes on the machine do not count."""
    gc.collect()
    start = time.process_time()
    found = call()
    return found, time.process_time() - start
