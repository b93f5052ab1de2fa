"""The benchmark's promises: deterministic, consistent, balanced over types, and no image shared between splits."""

from __future__ import annotations

import hashlib
import re

import numpy as np
import pytest

from reopold_vl.zoo import digits, task
from reopold_vl.zoo.hasty import hasty_steps

SPLITS = ("train", "validation", "test")


def image_hashes(split: digits.Split, num: int) -> list[str]:
    made = (task.problem(split, i).sample.images[0] for i in range(num))
    return [hashlib.sha256(image.tobytes()).hexdigest() for image in made]


def test_digits_are_sklearns() -> None:
    source = pytest.importorskip("sklearn.datasets").load_digits()
    pixels, labels = digits.load()
    assert np.array_equal(pixels, source.images)
    assert np.array_equal(labels, source.target)


def test_handwriting_is_dealt_to_one_split_each() -> None:
    _, labels = digits.load()
    dealt = [n for split in SPLITS for members in digits.samples_by_label(split) for n in members]
    assert sorted(dealt) == list(range(len(labels)))
    for split in SPLITS:
        for label, members in enumerate(digits.samples_by_label(split)):
            assert len(members) >= 15
            assert all(labels[n] == label for n in members)


def test_splits_share_no_image() -> None:
    hashes = {split: set(image_hashes(split, 660)) for split in SPLITS}
    assert not hashes["train"] & hashes["test"]
    assert not hashes["train"] & hashes["validation"]
    assert not hashes["validation"] & hashes["test"]


@pytest.mark.parametrize("split", SPLITS)
def test_a_grid_belongs_to_one_split_only(split: digits.Split) -> None:
    """Shapes alone cannot be told apart by handwriting: their words decide the split, whatever the index or seed."""
    for index in range(110):
        assert task.split_of(task.problem(split, index, seed=3).question.grid) == split


def test_problems_are_a_pure_function() -> None:
    first, second = task.problems("test", 33), task.problems("test", 33)
    for one, other in zip(first, second, strict=True):
        assert (one.id, one.question, one.answer) == (other.id, other.question, other.answer)
        assert one.images[0].tobytes() == other.images[0].tobytes()
    assert task.problem("test", 20).sample.id == task.problems("test", 21)[-1].id
    assert task.problems("test", 33, seed=1)[5].id != first[5].id


def test_test_split_is_large_balanced_and_unique() -> None:
    made = task.problems("test")
    assert len(made) == 2_200
    assert len({sample.id for sample in made}) == len(made)
    assert len({sample.images[0].tobytes() for sample in made}) == len(made)
    assert {kind: sum(s.source == kind for s in made) for kind in task.TYPES} == dict.fromkeys(task.TYPES, 200)


@pytest.mark.parametrize("kind", task.TYPES)
def test_steps_end_in_the_answer(kind: str) -> None:
    for index in range(60):
        item = task.problem("train", index, kind=kind)
        assert item.steps.count("Answer:") == 1
        assert item.steps.endswith(f"Answer: {item.sample.answer}")
        assert task.final_answer(item.steps) == item.sample.answer
        assert item.sample.images[0].size == (84, 84)
        for chain in re.findall(r"(?<![\d,])\d+(?:[+-]\d+)+(?:=\d+(?:[+-]\d+)*)+", item.steps):
            values = {sum(int(term) for term in re.findall(r"[+-]?\d+", side)) for side in chain.split("=")}
            assert len(values) == 1, item.steps


@pytest.mark.parametrize("kind", task.TYPES)
def test_no_constant_answer_goes_far(kind: str) -> None:
    answers = [task.problem("train", index, kind=kind).sample.answer for index in range(300)]
    assert max(answers.count(answer) for answer in set(answers)) / len(answers) < 0.42


def test_hasty_answers_have_the_same_form_and_are_often_wrong() -> None:
    for kind in task.TYPES:
        items = [task.problem("train", index, kind=kind) for index in range(200)]
        right = [task.final_answer(hasty_steps(item)) == item.sample.answer for item in items]
        assert 0.05 < sum(right) / len(right) < 0.9, kind


def test_final_answer_takes_the_last_one() -> None:
    assert task.final_answer("Answer: 3. No. Answer: row 2, column 1 ") == "row 2, column 1"
    assert task.final_answer("3") == ""
