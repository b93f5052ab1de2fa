"""Which rows a run trains on, watches and is judged by; and the draw of each step."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from cli_help import small_rows
from hypothesis import given, settings
from hypothesis import strategies as st

from reopold_vl.data import DataError
from reopold_vl.images import load_image
from reopold_vl.splits import Splits, draw, embedded_splits, file_splits
from reopold_vl.types import VisualSample


def samples(num: int) -> list[VisualSample]:
    return [VisualSample(str(index), "?", "1") for index in range(num)]


def drawn(num: int, count: int, steps: int, seed: int = 0) -> list[list[str]]:
    return [[sample.id for sample in draw(samples(num), count, seed=seed, step=step)] for step in range(steps)]


def test_draw_is_a_function_of_seed_and_step() -> None:
    forwards = drawn(10, 4, 6)
    backwards = [[s.id for s in draw(samples(10), 4, seed=0, step=step)] for step in reversed(range(6))]
    assert forwards == backwards[::-1]  # no hidden state
    assert drawn(10, 4, 6, seed=1) != forwards
    assert len({tuple(step) for step in forwards}) == 6


@settings(max_examples=30, deadline=None)
@given(num=st.integers(1, 30), count=st.integers(1, 40), seed=st.integers(0, 99))
def test_every_sample_comes_once_an_epoch(num: int, count: int, seed: int) -> None:
    order = [name for step in drawn(num, count, 3 * num // count + 2, seed) for name in step]
    for epoch in range(len(order) // num):
        assert Counter(order[epoch * num : (epoch + 1) * num]) == Counter(map(str, range(num)))


def test_a_step_may_straddle_two_epochs() -> None:
    steps = drawn(10, 4, 5)
    assert all(len(step) == 4 for step in steps)
    flat = [name for step in steps for name in step]
    assert sorted(flat[:10]) == sorted(flat[10:]) == sorted(map(str, range(10)))
    assert flat[:10] != flat[10:]  # each epoch has an order of its own


def test_draw_is_the_same_on_every_machine() -> None:
    """Resumed on another machine, a run must see the same samples: numpy promises it, this notices."""
    assert drawn(7, 5, 2, seed=3) == DRAWN


DRAWN = [["5", "6", "2", "1", "4"], ["3", "0", "2", "1", "4"]]  # seven in the first epoch


# The embedded benchmark


def pixels(sample: VisualSample) -> bytes:
    return load_image(sample.images[0]).tobytes()


def test_embedded_splits_share_no_image() -> None:
    splits = embedded_splits(validation_rows=110, test_rows=330, train_rows=330)
    seen = [{pixels(sample) for sample in part} for part in (splits.train, splits.validation, splits.test)]
    assert all(len(part) > 0.9 * num for part, num in zip(seen, (330, 110, 330), strict=True))
    assert not seen[0] & seen[1] and not seen[0] & seen[2] and not seen[1] & seen[2]


def test_embedded_splits_have_the_size_asked_for() -> None:
    splits = embedded_splits(validation_rows=0, test_rows=22)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (10_000, 0, 22)
    assert embedded_splits(validation_rows=3, test_rows=0).test == []
    assert len({sample.id for sample in splits.test}) == 22


def test_embedded_training_problems_are_a_sequence() -> None:
    train = embedded_splits(validation_rows=0, test_rows=0, train_rows=5).train
    assert [sample.id for sample in train] == [sample.id for sample in train[0:5]] == [train[i].id for i in range(5)]
    assert pixels(train[3]) == pixels(train[3])
    with pytest.raises(IndexError):
        train[5]
    with pytest.raises(IndexError):
        train[-1]


# The user's own rows


def split(path: Path, **changes: Any) -> Splits:
    given: dict[str, Any] = {
        "test_path": None,
        "validation_rows": 220,
        "test_rows": 2200,
        "min_rows": 4,
        "limit": None,
        "allow_url": False,
        "seed": 0,
    }
    return file_splits(str(path), **{**given, **changes})


def ids(part: Sequence[VisualSample]) -> set[str]:
    return {sample.id for sample in part}


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_rows(tmp_path_factory.mktemp("rows"), 50)


def test_at_most_a_fifth_is_held_out(rows: Path) -> None:
    splits = split(rows)
    parts = (splits.train, splits.validation, splits.test)
    assert [len(part) for part in parts] == [40, 1, 9]  # 10 rows held out, in the ratio 220 to 2,200
    assert len(ids(splits.train) | ids(splits.validation) | ids(splits.test)) == 50
    assert "40 rows to train on, 1 for validation, 9 for the test" in splits.notes[-1]
    assert "50 rows, 0 skipped" in splits.notes[0]


def test_fewer_are_held_out_when_fewer_are_asked_for(rows: Path) -> None:
    splits = split(rows, validation_rows=2, test_rows=3)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (45, 2, 3)
    splits = split(rows, validation_rows=0, test_rows=0)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (50, 0, 0)


def test_a_batch_is_left_to_train_on(rows: Path) -> None:
    splits = split(rows, min_rows=48)
    assert len(splits.train) == 48 and len(splits.validation) + len(splits.test) == 2
    with pytest.raises(DataError, match="lower --prompts-per-step"):
        split(rows, min_rows=51)


def test_the_same_seed_holds_out_the_same_rows(rows: Path) -> None:
    first, second, other = split(rows), split(rows), split(rows, seed=1)
    assert ids(first.test) == ids(second.test) and [s.id for s in first.test] == [s.id for s in second.test]
    assert ids(first.test) != ids(other.test)


def test_a_test_file_of_its_own(rows: Path, tmp_path: Path) -> None:
    own = small_rows(tmp_path, 8)
    splits = split(rows, test_path=str(own), validation_rows=5, test_rows=6)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (45, 5, 6)
    assert any(str(own) in note for note in splits.notes)


def test_rows_with_a_common_image_stay_on_one_side(tmp_path: Path) -> None:
    path = small_rows(tmp_path, 12)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    many = [{**line, "question": f"{line['question']} ({turn})"} for line in lines for turn in range(3)]
    path.write_text("".join(json.dumps(line) + "\n" for line in many))
    splits = split(path, validation_rows=3, test_rows=3)
    held = {pixels(sample) for sample in (*splits.validation, *splits.test)}
    assert len(splits.validation) + len(splits.test) == 6
    assert not held & {pixels(sample) for sample in splits.train}


def test_limit(rows: Path) -> None:
    splits = split(rows, limit=20)
    assert len(splits.train) + len(splits.validation) + len(splits.test) == 20
