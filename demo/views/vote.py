"""Reveal and tally of the blind vote."""

from __future__ import annotations

from demo.contenders import Arena
from demo.views.markup import notice, percent, text
from demo.vote import Ballot, Tally


def reveal_view(arena: Arena, ballot: Ballot, choice: str, tally: Tally) -> str:
    """Whose answers these were, and how all votes stand."""
    names = " · ".join(
        f"<strong>{letter}</strong> was the {arena[role].title.lower()}"
        for letter, role in zip("AB", ballot.order, strict=True)
    )
    voted = "You found them equal." if choice == "tie" else f"You preferred {text(choice)}."
    return f'<p class="rv-sentence">{names}. {voted}</p>{tally_view(tally)}'


def tally_view(tally: Tally) -> str:
    """The student's share of the decided votes with its interval, as a bar."""
    if not tally.total:
        return notice("No votes yet on this machine.")
    if tally.preferred is None:
        return notice(f"{tally.total} votes so far, all of them ties.")
    share, low, high = tally.preferred
    broken = f"; {tally.broken} unreadable lines in the file" if tally.broken else ""
    return (
        f'<div class="rv-tally"><div class="rv-meter"><i style="width:{100 * share:.1f}%"></i>'
        f'<b style="left:{100 * low:.1f}%;width:{100 * (high - low):.1f}%"></b></div>'
        f"<p>The student was preferred in <strong>{tally.student} of {tally.student + tally.teacher}</strong> decided "
        f"votes: {percent(share, 0)}, 95 % interval {percent(low, 0)} to {percent(high, 0)}. Ties: {tally.tie}{broken}."
        "</p></div>"
    )
