"""Blind votes: by chance, once, whole lines, and a tally with its interval."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from demo.compare import Column
from demo.contenders import Arena
from demo.errors import DemoError
from demo.examples import held_out
from demo.service import Answered, Service
from demo.views.vote import reveal_view, tally_view
from demo.vote import Ballot, Tally, record, shuffled, tally
from reopold_vl.report.stats import wilson_interval

COLUMNS = (
    Column("before", "stop", ("never shown",)),
    Column("student", "stop", ("small \u2028 <b>",)),
    Column("teacher", "stop", ("large",)),
)
PATHS = {"before": "b", "student": "s", "teacher": "t"}


def ballot() -> Ballot:
    return shuffled(held_out(0), COLUMNS, PATHS)


def test_both_orders_come_up() -> None:
    orders = {ballot().order for _ in range(60)}
    assert orders == {("student", "teacher"), ("teacher", "student")}


def test_a_vote_goes_to_who_wrote_the_answer(tmp_path: Path) -> None:
    file = tmp_path / "new" / "votes.jsonl"
    given = ballot()
    assert record(file, given, "B") == given.order[1]
    assert record(file, given, "tie") == "tie"
    line = json.loads(file.read_bytes().split(b"\n")[0])
    assert line["question"] == held_out(0).question and line["gold"] == held_out(0).answer
    assert [answer["role"] for answer in line["answers"]] == list(given.order)
    assert {answer["text"] for answer in line["answers"]} == {"small \u2028 <b>", "large"}
    assert {answer["model"] for answer in line["answers"]} == {"s", "t"}
    with pytest.raises(DemoError, match="vote is 'C': allowed are A, B, tie"):
        record(file, given, "C")
    assert tally(file).total == 2


def test_many_at_once_lose_nothing(tmp_path: Path) -> None:
    file = tmp_path / "votes.jsonl"
    file.write_bytes(b'{"vote": "student"}\n{"vote": "stud')  # a writer that was killed
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda _: record(file, ballot(), "A"), range(64)))
    counted = tally(file)
    assert counted.total == 65 and counted.broken == 1


def test_the_interval_is_wilsons_over_decided_votes() -> None:
    votes = Tally(student=12, teacher=18, tie=5)
    assert votes.total == 35
    assert votes.preferred == (0.4, *wilson_interval(12, 30))
    assert Tally(tie=3).preferred is None
    assert "12 of 30" in tally_view(votes) and "Ties: 5" in tally_view(votes)
    assert "all of them ties" in tally_view(Tally(tie=3)) and "No votes yet" in tally_view(Tally())


def test_lines_that_hold_no_vote_are_counted(tmp_path: Path) -> None:
    file = tmp_path / "votes.jsonl"
    file.write_bytes(b'{"vote": "student"}\n[]\n{"vote": "me"}\n{"vote": ["tie"]}\n\xff\n\n')
    assert tally(file) == Tally(student=1, broken=4)
    assert tally(tmp_path / "none.jsonl") == Tally()


def test_ballots_are_kept_without_tensors_and_not_for_ever(
    service: Service, arena: Arena, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from demo import service as module

    monkeypatch.setattr(module, "MAX_BALLOTS", 3)
    own = replace(service, votes=tmp_path / "votes.jsonl", _ballots=type(service._ballots)())
    names = [own.ballot(Answered(held_out(0), COLUMNS))[0] for _ in range(5)]
    assert len(set(names)) == 5
    with pytest.raises(DemoError, match="too old"):
        own.vote(names[0], "A")
    given, votes = own.vote(names[-1], "A")
    assert votes.total == 1 and all(column.rollout is None for column in given.columns)
    assert "was the teacher" in reveal_view(arena, given, "A", votes)
    with pytest.raises(DemoError, match="voted on"):
        own.vote(names[-1], "A")
    with pytest.raises(DemoError, match="allowed are A, B, tie"):
        own.vote(names[-2], "C")
    assert own.vote(names[-2], "tie")[1].total == 2
