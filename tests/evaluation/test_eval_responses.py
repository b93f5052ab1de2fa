"""Stored responses: keys, lines, what survives a death, and what is taken up by the next run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from stored import SETTINGS, response, write

from eval.responses import (
    ResponseError,
    append_responses,
    from_line,
    images_hash,
    read_responses,
    reclaim,
    response_key,
    to_line,
)
from eval.types import Problem


def key(**changes: object) -> str:
    values: dict = {
        "bench": "embedded",
        "problem_id": "p1",
        "prompt": "What is it?",
        "images": "hash",
        "settings": SETTINGS,
        "model": "weights",
        "sample": 0,
    }
    return response_key(**{**values, **changes})


def test_a_key_changes_with_all_that_an_answer_depends_on() -> None:
    warm = replace(SETTINGS, temperature=0.7)
    keys = [
        key(),
        *(key(**{name: "other"}) for name in ("bench", "problem_id", "prompt", "images", "model")),
        key(sample=1),
        key(settings=warm),
        *(key(settings=replace(warm, **{name: value})) for name, value in (("seed", 1), ("top_p", 0.5))),
        *(
            key(settings=replace(SETTINGS, **{name: 7}))
            for name in ("max_new_tokens", "min_pixels", "max_pixels", "max_prompt_tokens")
        ),
        key(settings=replace(SETTINGS, dtype="bfloat16")),
    ]
    assert len(set(keys)) == len(keys)
    assert all(len(item) == 64 for item in keys)


def test_a_greedy_answer_depends_on_neither_seed_nor_top_p() -> None:
    assert key(settings=replace(SETTINGS, seed=5, top_p=0.5)) == key()


def test_images_are_told_apart_by_content_not_by_place(tmp_path: Path) -> None:
    red, blue = Image.new("RGB", (4, 4), "red"), Image.new("RGB", (4, 4), "blue")
    red.save(tmp_path / "a.png")
    red.save(tmp_path / "b.png")
    content = (tmp_path / "a.png").read_bytes()
    same = [(tmp_path / "a.png",), (str(tmp_path / "b.png"),), (content,), ({"bytes": content, "path": "x"},)]
    assert len({images_hash(images) for images in same}) == 1
    different = [
        (),
        (red,),
        (blue,),
        (red, blue),
        (blue, red),
        (tmp_path / "missing.png",),
        ("data:image/png;base64,",),
    ]
    assert len({images_hash(images) for images in different}) == len(different)
    # Two images must not be taken for one that holds both.
    assert images_hash((b"ab", b"c")) != images_hash((b"a", b"bc"))


text = st.text(st.characters(codec=None), max_size=30)


@settings(max_examples=60, deadline=None)
@given(text, text, st.dictionaries(text, st.lists(text, max_size=2).map(tuple), max_size=2))
def test_any_text_comes_back(answer: str, prompt: str, tags: dict) -> None:
    problem = Problem("id", prompt, answer, "choice", choices=("a", answer), precision=2, tags=tags, images=(b"x",))
    stored = response(1, text=answer, prompt=prompt, problem=problem)
    line = to_line(stored)
    assert line.count(b"\n") == 1 and line.endswith(b"\n")
    assert from_line(line) == replace(stored, problem=replace(problem, images=()))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_file_cut_anywhere_keeps_its_whole_lines(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    responses = [response(number, text="line\u2028and\nbreak") for number in range(4)]
    lines = [to_line(item) for item in responses]
    whole = b"".join(lines)
    cut = data.draw(st.integers(0, len(whole)))
    path = tmp_path_factory.mktemp("cut") / "responses_x.jsonl"
    path.write_bytes(whole[:cut])
    ends = [sum(map(len, lines[: count + 1])) for count in range(4)]
    complete = sum(end - 1 <= cut for end in ends)  # the newline may be missing
    stored = read_responses(path)
    assert list(stored.responses) == responses[:complete]
    assert bool(stored.torn) == (cut not in (0, *ends, *(end - 1 for end in ends)))
    reclaim(path, [item.key for item in responses])
    append_responses(path, responses[complete:])
    assert read_responses(path).responses == tuple(responses)
    assert not read_responses(path).damaged


def test_broken_lines_are_counted_and_named(tmp_path: Path) -> None:
    good = to_line(response(1))
    path = tmp_path / "responses_x.jsonl"
    path.write_bytes(good + b'{"bench": 1}\n' + b"\xff\xfe\n" + to_line(response(2)) + good + b'{"bench"')
    stored = read_responses(path)
    assert [item.problem.id for item in stored.responses] == ["p1", "p2"]
    assert (stored.broken, stored.repeated, stored.torn) == ((2, 3), 1, 8)
    notes = "\n".join(stored.notes(path))
    assert "line 2, 3" in notes and "unfinished last line (8 bytes)" in notes and "'problem' is missing" in notes


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"[]", "no response"),
        (b"nothing", "no response"),
        (to_line(response(1)).replace(b'"stop"', b'"maybe"'), "finish_reason is 'maybe'"),
        (to_line(response(1)).replace(b'"sample": 0', b'"sample": "0"'), "sample is '0', not a int"),
        (to_line(response(1)).replace(b'"bench"', b'"bunch"'), "bunch"),
    ],
)
def test_what_is_no_response_says_why(line: bytes, reason: str) -> None:
    with pytest.raises(ResponseError, match=reason):
        from_line(line)


def test_other_answers_are_set_aside_and_taken_back(tmp_path: Path) -> None:
    path = write(tmp_path, [response(number) for number in range(5)])
    found, notes = reclaim(path, ["student-1-0", "student-3-0"])
    assert list(found) == ["student-1-0", "student-3-0"]
    assert "3 stored responses are to other problems or of other settings or another model" in notes[0]
    assert [item.key for item in read_responses(path).responses] == list(found)
    aside = tmp_path / "unused_embedded.jsonl"
    assert len(read_responses(aside).responses) == 3
    found, _ = reclaim(path, [f"student-{number}-0" for number in range(4)])
    assert sorted(found) == [f"student-{number}-0" for number in range(4)]
    assert [item.problem.id for item in read_responses(aside).responses] == ["p4"]


def test_a_missing_file_is_no_responses(tmp_path: Path) -> None:
    assert reclaim(tmp_path / "responses_x.jsonl", ["a"]) == ({}, [])
    assert list(tmp_path.iterdir()) == []
