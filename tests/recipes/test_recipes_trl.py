"""TRL's data set formats as its documentation gives them, unchanged; also out of parquet, where structs are filled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from data_recipes.recipes.trl import read
from data_recipes.stream import open_stream
from data_recipes.types import RowError

TEXT = {"type": "text", "text": "What is this?"}
IMAGE = {"type": "image"}


def user(content: Any = "How many?") -> dict[str, Any]:
    return {"role": "user", "content": content}


def assistant(content: Any = "Four.") -> dict[str, Any]:
    return {"role": "assistant", "content": content}


SYSTEM = {"role": "system", "content": "Think."}


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"prompt": "How many?"}, (None, "How many?", None)),
        ({"prompt": [SYSTEM, user()]}, ("Think.", "How many?", None)),
        ({"prompt": "How many?", "completion": " Four."}, (None, "How many?", " Four.")),
        ({"prompt": [user()], "completion": [assistant()]}, (None, "How many?", "Four.")),
        ({"messages": [SYSTEM, user(), assistant()]}, ("Think.", "How many?", "Four.")),
        ({"prompt": [user()], "chosen": [assistant()], "rejected": [assistant("No.")]}, (None, "How many?", "Four.")),
        ({"chosen": [user(), assistant()], "rejected": [user(), assistant("No.")]}, (None, "How many?", "Four.")),
        ({"prompt": "How many?", "completion": "Four.", "label": True}, (None, "How many?", "Four.")),
        ({"prompt": [user()], "solution": "$4$", "completion": "So 4."}, (None, "How many?", "$4$")),
        ({"conversations": [{"from": "human", "value": "Hm?"}, {"from": "gpt", "value": "4"}]}, (None, "Hm?", "4")),
    ],
)
def test_every_type_and_format(row: dict[str, Any], expected: tuple[str | None, ...]) -> None:
    for images in ([b"png"], b"png", {"bytes": b"png", "path": None}):
        sample = read(row | {"images": images})
        assert (sample.system, sample.question, sample.answer) == expected and sample.images == (b"png",)


def test_image_parts_become_markers_in_their_place() -> None:
    sample = read({"prompt": [user([IMAGE, TEXT, IMAGE])], "images": [b"1", b"2"]})
    assert sample.question == "<image>What is this?<image>" and sample.images == (b"1", b"2")
    inside = read({"messages": [user([{"type": "image", "image": "a.png"}, TEXT]), assistant([TEXT])]})
    assert inside.images == (Path("a.png"),) and inside.answer == "What is this?"
    by_url = read({"prompt": [user([{"type": "image_url", "image_url": {"url": "data:;base64,eA=="}}, TEXT])]})
    assert by_url.images == (b"x",)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": [user(), assistant()]}, "must end with the user's turn"),
        ({"messages": [user(), assistant(), user("And?"), assistant()]}, "found 'user' after user, assistant"),
        ({"messages": [user(), SYSTEM, assistant()]}, "found 'system' after user"),
        ({"messages": [assistant()]}, "without a user turn"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "role is 'tool': allowed are system"),
        ({"messages": ["hello"]}, "a message must be an object"),
        ({"prompt": [user([IMAGE, IMAGE, TEXT])]}, "2 <image> markers for 1 images"),
        ({"prompt": [user([{"type": "video"}])]}, "must be a text or an image, not 'video'"),
        ({"prompt": [user("x")], "completion": [user("y")]}, "must end with the assistant's turn"),
        ({"prompt": "x", "completion": "bad", "label": False}, "label is false"),
        ({"messages": [user("x"), assistant([IMAGE])]}, "images belong into the user's turn"),
        ({"prompt": []}, "no question"),
    ],
)
def test_rows_that_have_no_one_question_and_answer(row: dict[str, Any], message: str) -> None:
    with pytest.raises(RowError, match=message):
        read({"images": [b"png"]} | row)


def test_structs_out_of_parquet_carry_nulls(tmp_path: Path) -> None:
    import datasets

    messages = [user([IMAGE, TEXT]), assistant([{"type": "text", "text": "A cat."}])]
    picture = {"bytes": b"png", "path": None}
    features = datasets.Features(
        {
            "messages": datasets.List(
                {
                    "role": datasets.Value("string"),
                    "content": datasets.List({"type": datasets.Value("string"), "text": datasets.Value("string")}),
                }
            ),
            "images": datasets.List(datasets.Image()),
        }
    )
    table = datasets.Dataset.from_dict({"messages": [messages], "images": [[picture]]}, features=features)
    table.to_parquet(str(tmp_path / "train.parquet"))
    stream = open_stream("trl", data_path=tmp_path)
    ((_, row),) = stream.rows
    assert row["messages"][0]["content"][0] == {"type": "image", "text": None}
    sample = stream.recipe.read(row)
    assert (sample.question, sample.answer, sample.images) == ("<image>What is this?", "A cat.", (b"png",))
