"""Teacher responses and pass rates: the embedded teacher on the embedded task, resumed anywhere, errors counted."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest

from data_recipes.recipes.reading import EXTRA
from data_recipes.sampling import Sampled, Sampling
from data_recipes.stream import Stream, open_stream
from data_recipes.teacher import load_sampler, pass_rates, sample_block, teacher_stream
from data_recipes.types import RecipeError, RowError
from reopold_vl.answers import is_correct
from reopold_vl.types import VisualSample

SAMPLING = Sampling(k=2, max_new_tokens=56, rows_at_once=128, seed=5)
ROWS = 40


@pytest.fixture(scope="module")
def teacher() -> Any:
    return load_sampler("zoo:teacher", device="cpu")


@pytest.fixture(scope="module")
def stream(teacher: Any) -> Stream:
    base = open_stream("embedded", split="validation", limit=ROWS)
    return teacher_stream(base, teacher, SAMPLING, max_responses=2)


@pytest.fixture(scope="module")
def rows(stream: Stream) -> list[Any]:
    return list(stream.rows)


def test_kept_responses_are_right_and_the_rest_is_counted(stream: Stream, rows: list[Any]) -> None:
    kept, refused = [], []
    for number, row in rows:
        try:
            sample = stream.recipe.read(row)
        except RowError as error:
            assert error.filter == "no_response"
            refused.append((number, str(error)))
            continue
        extra = row[EXTRA]
        assert is_correct(extra["response"], sample) and "Answer:" in extra["response"]
        assert extra["num_samples"] == 2 and extra["pass_rate"] == extra["num_right"] / 2 > 0
        kept.append((number // 2, sample, extra["response"]))
    assert {number // 2 for number, _ in refused} | {number for number, _, _ in kept} == set(range(ROWS))
    assert all("no right and finished response: " in reason for _, reason in refused)
    assert len(kept) > ROWS / 2, "the embedded teacher solves most problems"
    assert len({(number, response) for number, _, response in kept}) == len(kept), "equal responses are kept once"
    assert len({sample.id for _, sample, _ in kept}) == len(kept)
    assert stream.recipe.extra[0] == "response" and "zoo:teacher" in stream.origin


@pytest.mark.parametrize("skip", [0, 33, 64, 71])
def test_going_on_anywhere_gives_the_same_rows(stream: Stream, rows: list[Any], skip: int) -> None:
    again = list(itertools.islice(stream.rows_from(skip), 3))
    expected = [(number, row.get(EXTRA)) for number, row in rows if number >= skip][:3]
    assert [(number, row.get(EXTRA)) for number, row in again] == expected


def test_pass_rates_and_blocks(teacher: Any) -> None:
    base = open_stream("embedded", split="validation", limit=35)
    samples = [base.recipe.read(row) for _, row in base.rows]
    rates = pass_rates(teacher, samples, SAMPLING)
    assert len(rates) == 35 and set(rates) <= {0.0, 0.5, 1.0}
    assert pass_rates(teacher, samples[32:], SAMPLING, first_block=1) == rates[32:]


def test_blocks_draw_their_own_answers(teacher: Any) -> None:
    base = open_stream("embedded", split="validation", limit=8)
    samples = [base.recipe.read(row) for _, row in base.rows]
    hot = Sampling(k=2, temperature=2.0, max_new_tokens=40, seed=5)
    first, again, other = (sample_block(teacher, samples, hot, block=block) for block in (0, 0, 1))
    assert [one.responses for one in first] == [one.responses for one in again] != [one.responses for one in other]


def test_what_cannot_be_sampled_says_why(teacher: Any) -> None:
    samples = [
        VisualSample("none", "q?", None),
        VisualSample("gone", "q?", "1", ("/no/such/file.png",)),
        VisualSample("fine", "How many stars are there?", "1"),
    ]
    none, gone, fine = sample_block(teacher, samples, SAMPLING)
    assert "no answer" in none.error and "no such file" in gone.error and len(fine.responses) == 2 and not fine.error
    rates = pass_rates(teacher, samples, SAMPLING)
    assert [math.isnan(rate) for rate in rates] == [True, True, False]


def test_only_right_and_finished_responses_are_kept() -> None:
    sampled = Sampled(
        VisualSample("a", "q", "1"), ("x", "y", "x", "z"), (True, False, True, True), (True, True, True, False)
    )
    assert sampled.kept() == ("x",) and sampled.num_right == 3 and sampled.pass_rate == 0.75


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Sampling(k=0), "k is 0: allowed is 1 or more"),
        (lambda: Sampling(k=2, temperature=0), "allowed is 1 at temperature 0"),
        (lambda: Sampling(temperature=math.nan), "temperature is nan"),
        (lambda: Sampling(top_p=0), "top_p is 0"),
        (lambda: load_sampler("zoo:professor"), "zoo:student and zoo:teacher"),
    ],
)
def test_wrong_settings_are_one_line(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        make()


def test_without_model_or_files_the_recipe_says_what_it_needs() -> None:
    with pytest.raises(RecipeError, match=r"give --data-path .* sample a teacher"):
        open_stream("teacher_responses")
