"""The race: same answers as alone, turns by time, failures and stops that leave nothing hanging."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demo.compare import Column, Sampling, race
from demo.contenders import Arena
from demo.errors import DemoError
from demo.examples import held_out
from demo.tokens import extend_texts, token_texts
from reopold_vl.types import VisualSample


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_answers_are_those_of_the_engine(arena: Arena, temperature: float) -> None:
    sampling = Sampling(temperature=temperature, seed=3, max_new_tokens=40)
    *_, columns = race(arena, arena.contenders, held_out(7), sampling)
    for contender, column in zip(arena.contenders, columns, strict=True):
        model = contender.model
        (rollout,) = model.engine(rows_at_once=1).generate(
            [model.encoder(held_out(7))], n=1, max_new_tokens=40, seed=3, temperature=temperature
        )
        assert column.rollout is not None and column.rollout.response_ids.equal(rollout.response_ids)
        assert column.state == rollout.finish_reason and len(column.times) == len(rollout.response_ids)
        assert column.text == model.tokenizer.decode(rollout.response_ids, skip_special_tokens=True)
        assert list(column.times) == sorted(column.times) and column.seconds == column.times[-1]


def test_answers_grow(arena: Arena) -> None:
    texts = [columns[-1].text for columns in race(arena, arena.contenders, held_out(0), Sampling())]
    assert all(later.startswith(earlier) for earlier, later in pairwise(texts))


def test_turns_go_to_whoever_computed_least(arena: Arena, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that takes twice as long for a token has half as many when the other one is done."""
    from reopold_vl.rollout.hf import HFEngine

    teacher = arena["teacher"].model.policy
    stream = HFEngine.stream

    def slowed(self: HFEngine, *args: Any, **named: Any) -> Any:
        for rollout in stream(self, *args, **named):
            time.sleep(0.06 if self.policy is teacher else 0.02)
            yield rollout

    monkeypatch.setattr(HFEngine, "stream", slowed)
    pair = [arena["student"], arena["teacher"]]
    for student, other in race(arena, pair, held_out(0), Sampling()):
        if student.finished:
            assert not other.finished
            assert abs(other.seconds - student.seconds) < 0.2
            assert len(other.times) < 0.7 * len(student.times)
            break


def test_the_token_limit_cuts(arena: Arena) -> None:
    *_, columns = race(arena, arena.contenders, held_out(0), Sampling(max_new_tokens=5))
    assert {column.state for column in columns} == {"length"} and {len(c.times) for c in columns} == {5}


def test_closing_ends_the_threads(arena: Arena) -> None:
    before = threading.active_count()
    running = race(arena, arena.contenders, held_out(0), Sampling())
    next(running)
    running.close()
    assert threading.active_count() == before and not arena.alone("cpu").locked()


def test_one_model_that_fails_does_not_take_the_others_along(arena: Arena, monkeypatch: pytest.MonkeyPatch) -> None:
    from reopold_vl.rollout.hf import HFEngine

    stream, teacher = HFEngine.stream, arena["teacher"].model.policy

    def broken(self: HFEngine, *args: Any, **named: Any) -> Any:
        for rollout in stream(self, *args, **named):
            if self.policy is teacher:
                raise RuntimeError("out of memory")
            yield rollout

    monkeypatch.setattr(HFEngine, "stream", broken)
    *_, (before, student, failed) = race(arena, arena.contenders, held_out(0), Sampling())
    assert before.state == student.state == "stop"
    assert failed.state == "failed" and failed.problem == "out of memory"


def test_where_all_fail_the_reason_is_raised(arena: Arena) -> None:
    sample = VisualSample("question", "<image> and <image>?", images=(held_out(0).images[0],))
    with pytest.raises(DemoError, match=r"^2 <image> markers for 1 images$"):
        list(race(arena, arena.contenders, sample, Sampling()))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_unforeseen_error_leaves_nobody_waiting(arena: Arena, monkeypatch: pytest.MonkeyPatch) -> None:
    from reopold_vl.rollout.hf import HFEngine

    def odd(self: HFEngine, *args: Any, **named: Any) -> Any:
        raise KeyError("odd")
        yield

    monkeypatch.setattr(HFEngine, "stream", odd)
    with pytest.raises(DemoError, match="something went wrong"):
        list(race(arena, arena.contenders, held_out(0), Sampling()))
    assert not arena.alone("cpu").locked()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": -1}, "temperature is -1: allowed is 0 to 2"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"top_p": 0}, "top_p is 0: allowed is 0.01 to 1"),
        ({"seed": 1.5}, "seed is 1.5: allowed are whole numbers"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"temperature": "hot"}, "temperature is 'hot'"),
        ({"seed": True}, "seed is True"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(DemoError, match=message):
        Sampling(**settings)


@settings(deadline=None, max_examples=60)
@given(text=st.text(max_size=30))
def test_pieces_read_as_the_whole(arena: Arena, text: str) -> None:
    tokenizer = arena["teacher"].model.tokenizer
    ids = tokenizer(text)["input_ids"]
    pieces = token_texts(tokenizer, ids)
    assert len(pieces) == len(ids)
    assert "".join(pieces) == tokenizer.decode(ids, skip_special_tokens=True)
    grown: tuple[str, ...] = ()
    for end in range(1, len(ids) + 1):
        grown = extend_texts(tokenizer, grown, ids[:end])
    assert grown == pieces


def test_half_a_character_is_not_lost(arena: Arena) -> None:
    tokenizer = arena["teacher"].model.tokenizer
    ids = tokenizer("a🙂b")["input_ids"]
    assert "\ufffd" in "".join(token_texts(tokenizer, ids[:-2]))
    assert "".join(token_texts(tokenizer, ids)) == "a🙂b"


def test_rates_of_a_column() -> None:
    column = Column("student", "stop", ("a", "b", "c"), (0.5, 0.6, 0.7), 0.7)
    assert column.first_token_seconds == 0.5
    assert column.tokens_per_second == pytest.approx(10)
    assert replace(column, times=(0.5,)).tokens_per_second is None
    assert replace(column, times=()).first_token_seconds is None
