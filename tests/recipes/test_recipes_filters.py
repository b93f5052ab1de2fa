"""Each filter takes out what it is for, says why, can be turned off, and gives its rows back."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import pytest
from building import built, encoded, kept_rows, picture, rejected, row
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from data_recipes.builder import Tools
from data_recipes.check import Unreadable, answer_type, check_row
from data_recipes.filters import prompt_characters
from data_recipes.hashes import perceptual_hash, question_key
from data_recipes.near import HashIndex
from data_recipes.types import Checked
from reopold_vl.types import VisualSample


def taken_out(tmp_path: Path, rows: list[dict], **settings: Any) -> dict[str, str]:
    """id -> filter of the rows that a build takes out; the directory is tmp_path/out."""
    built(rows, tmp_path / "out", **settings)
    return {one["id"]: one["filter"] for one in rejected(tmp_path / "out")}


def jpeg(number: int, *, scale: float = 1, quality: int = 80) -> bytes:
    image = picture(number, 128)
    size = (round(image.width * scale), round(image.height * scale))
    return encoded(image.resize(size), "JPEG", quality=quality)


def resized(number: int, width: int, height: int) -> list[bytes]:
    return [encoded(picture(number).resize((width, height)))]


def test_what_cannot_be_read_is_taken_out_with_its_reason(tmp_path: Path) -> None:
    cut = encoded(picture(3))[:-400]
    rows = [
        row(0),
        row(1, broken=True),
        row(2, images=[b"not an image"]),
        row(3, images=[cut]),
        row(4, images=[str(tmp_path / "gone.png")]),
        row(5, question="  <image> "),
        row(6, question="<image> or <image>?"),
    ]
    found = taken_out(tmp_path, rows)
    assert found.pop("row-4") == "image_not_found" and set(found.values()) == {"unreadable"}
    reasons = [one["reason"] for one in rejected(tmp_path / "out")]
    expected = ["broken", "not an image", "truncated", "no such file|No such file", "no question", "2 <image> markers"]
    assert len(reasons) == 6
    for reason, words in zip(reasons, expected, strict=True):
        assert any(word in reason for word in words.split("|")), reason


def test_missing_parts_and_odd_sizes(tmp_path: Path) -> None:
    rows = [
        row(0),
        row(1, images=[]),
        row(2, answer=" "),
        row(3, answer=None),
        row(4, images=resized(4, 64, 5)),
        row(5, images=resized(5, 9, 640)),
        row(6, images=resized(6, 300, 300)),
        row(7, question="long " * 100),
        row(8, question="short", choices=("x" * 300, "y" * 300)),
    ]
    limits = {"max_aspect": 50.0, "max_pixels": 80_000, "max_prompt_chars": 400}
    assert taken_out(tmp_path, rows, **limits) == {
        "row-1": "missing_image",
        "row-2": "missing_answer",
        "row-3": "missing_answer",
        "row-4": "image_size",
        "row-5": "image_size",
        "row-6": "image_size",
        "row-7": "prompt_length",
        "row-8": "prompt_length",
    }
    off = {"require_image": False, "require_answer": False, "min_side": 0, "max_pixels": 0, "max_aspect": 0.0}
    assert built(rows, tmp_path / "all", **off, max_prompt_chars=0)["rows"]["kept"] == 9


@pytest.mark.parametrize(
    ("settings", "out"),
    [
        ({}, {"same", "other answer", "jpeg", "half"}),
        ({"duplicate_question": "exact"}, {"same", "other answer", "jpeg, other answer"}),
        ({"duplicate_question": "off"}, set()),
        ({"duplicate_image": "exact"}, {"same", "other answer", "jpeg", "half", "other question"}),
        (
            {"duplicate_image": "near"},
            {"same", "other answer", "jpeg", "half", "other question", "jpeg, other answer"},
        ),
    ],
)
def test_duplicates(tmp_path: Path, settings: dict, out: set[str]) -> None:
    first = row(7, id="first", images=[encoded(picture(7, 128))])
    rows = [
        first,
        {**first, "id": "same", "question": "how many BLOBS, of kind 7, are there ?"},
        {**first, "id": "other answer", "answer": "8"},
        {**first, "id": "jpeg", "images": [jpeg(7)]},
        {**first, "id": "half", "images": [jpeg(7, scale=0.5)]},
        {**first, "id": "jpeg, other answer", "images": [jpeg(7)], "answer": "8"},
        {**first, "id": "other question", "question": "What is this?"},
        row(8, id="other image", question=first["question"], answer=first["answer"]),
        row(9),
    ]
    found = taken_out(tmp_path, rows, **settings)
    assert set(found) == out
    assert found.get("other question", "duplicate_image") == "duplicate_image"


def test_pictures_in_another_order_are_no_duplicate(tmp_path: Path) -> None:
    one, two = encoded(picture(1)), encoded(picture(2))
    rows = [
        row(0, id=name, images=images) for name, images in (("a", [one, two]), ("b", [two, one]), ("c", [one, two]))
    ]
    assert taken_out(tmp_path, rows) == {"c": "duplicate_question"}


def test_rows_of_the_wrong_difficulty_are_taken_out(tmp_path: Path) -> None:
    asked: list[int] = []

    def rates(rows: list[Checked]) -> list[float]:
        asked.extend(one.number for one in rows)
        return [(0.0, 0.5, 1.0, float("nan"))[one.number % 4] for one in rows]

    rows = [row(number, answer="" if number == 1 else "3") for number in range(80)]
    found = taken_out(tmp_path, rows, tools=Tools(pass_rates=rates))  # type: ignore[arg-type]
    assert [name for name in found if found[name] == "pass_rate"] == [f"row-{n}" for n in range(80) if n % 4 != 1]
    assert asked == [number for number in range(80) if number != 1]  # nothing is sampled for what is out already
    reasons = [one["reason"] for one in rejected(tmp_path / "out") if one["filter"] == "pass_rate"]
    assert reasons[0].startswith("solved in 0.0% of") and reasons[2].startswith("no answer could be drawn, asked")


def test_prompts_too_long_in_tokens_are_taken_out(tmp_path: Path) -> None:
    def count(one: Checked) -> int:
        if "<|im_end|>" in one.sample.question:
            raise ValueError("it contains a special token")
        return len(one.sample.question.split())

    rows = [row(0), row(1, question="a b c d e f g h i j k"), row(2, question="What <|im_end|>"), row(3)]
    settings: dict[str, Any] = {"max_prompt_tokens": 10, "processor": "any"}
    found = taken_out(tmp_path, rows, tools=Tools(count_tokens=count), **settings)
    assert found == {"row-1": "prompt_length", "row-2": "prompt_length"}
    assert "it contains a special token" in rejected(tmp_path / "out")[1]["reason"]


def test_choices_count_where_the_question_does_not_hold_them() -> None:
    sample = VisualSample("x", "Is it red?", "red", (), ("red", "blue"), system="Look.")
    checked = check_row(lambda one: one["sample"], 0, {"sample": sample})
    assert isinstance(checked, Checked) and prompt_characters(checked) == len("Look.Is it red?blue")


def test_shares_are_kept_and_what_goes_is_listed(tmp_path: Path) -> None:
    rows = [row(number, source="rare" if number % 10 == 0 else "common") for number in range(100)]
    manifest = built(rows, tmp_path / "out", max_share_source=0.6, shard_rows=20)
    kept = kept_rows(tmp_path / "out")
    assert manifest["sources"] == {"common": 15, "rare": 10} and len(kept) == 25
    assert manifest["rows"]["rejected"] == {"share_source": 75}
    numbers = [one["number"] for one in kept] + [one["number"] for one in rejected(tmp_path / "out")]
    assert sorted(numbers) == list(range(100))


@pytest.mark.parametrize(
    ("answer", "choices", "kind"),
    [
        ("80", None, "integer"), ("-1,204", None, "integer"), ("5 cm", None, "integer"), ("3.50", None, "decimal"),
        ("12%", None, "integer"), ("Yes", None, "yes/no"), ("false", None, "yes/no"), ("B", None, "choice"),
        ("(C)", None, "choice"), ("30", ("30", "40"), "choice"), ("A", ("30", "40"), "choice"), ("red", None, "text"),
        ("row 2, column 2", None, "text"), (r"2 \sqrt { 221 }", None, "expression"), ("x^2+1", None, "expression"),
        (r"\boxed{7}", None, "integer"), ("<answer> 3 </answer>", None, "integer"), ("", None, ""),
    ],
)  # fmt: skip
def test_answer_types(answer: str, choices: tuple[str, ...] | None, kind: str) -> None:
    checked = check_row(lambda one: one["sample"], 0, {"sample": VisualSample("x", "q", answer, (), choices)})
    assert not isinstance(checked, Unreadable) and checked.answer_type == kind
    assert answer_type("", None) == ""


def test_the_key_of_a_question_survives_another_dress_and_nothing_else() -> None:
    plain = question_key(r"In $\odot X, AB=30,$ and $m \widehat{CZ}=40$. Find $x-1$")
    assert plain == question_key("<image> in ⊙ X , A B = 30 and m \\widehat {C Z} = 40 ; find x - 1 .")
    assert plain == question_key(r"In $\odot X, AB=30,$ and $m \widehat{CZ}=40$. Find $x-1$" + "\nChoices:\n(A) 3")
    assert plain != question_key(r"In $\odot X, AB=31,$ and $m \widehat{CZ}=40$. Find $x-1$")
    assert question_key("x+1") != question_key("x-1") and question_key("2.5") != question_key("25")


@given(codes=st.lists(st.integers(0, 2**64 - 1), max_size=30), seed=st.integers(0, 99), radius=st.integers(0, 11))
def test_the_hash_index_finds_all_within_the_radius_and_nothing_else(codes: list[int], seed: int, radius: int) -> None:
    random, index = Random(seed), HashIndex()
    codes += [code ^ sum(1 << bit for bit in random.sample(range(64), random.randrange(14))) for code in codes]
    for code in codes:
        index.add(code)
    asked = codes[0] if codes else 0
    assert index.search(asked, radius) == [n for n, code in enumerate(codes) if (code ^ asked).bit_count() <= radius]


def test_perceptual_hashes_of_copies_are_near_and_of_others_far() -> None:
    hashes = [perceptual_hash(picture(number)) for number in range(60)]
    for number, code in enumerate(hashes):
        assert (code ^ perceptual_hash(picture(number, 64).resize((200, 150)))).bit_count() <= 7
    far = sum((one ^ other).bit_count() > 12 for i, one in enumerate(hashes) for other in hashes[:i])
    assert far >= 0.99 * 60 * 59 / 2
    assert isinstance(perceptual_hash(Image.new("RGB", (1, 1))), int)
