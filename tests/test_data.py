"""Rows of every supported shape become samples; every other row is skipped by number, and nothing fails half-way."""

from __future__ import annotations

import base64
import json
import os
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from reopold_vl.data import DataError, load_samples
from reopold_vl.holdout import split_holdout
from reopold_vl.images import load_image
from reopold_vl.types import VisualSample

SHARED = os.environ.get("REOPOLD_VL_SHARED")
SAMPLES = Path(SHARED or "", "samples")
needs_samples = pytest.mark.skipif(
    not SHARED or not SAMPLES.is_dir(), reason="REOPOLD_VL_SHARED names no folder with samples/ of real rows"
)


def png(colour: str = "red") -> bytes:
    file = BytesIO()
    Image.new("RGB", (6, 5), colour).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    for name in ("red", "blue"):
        (tmp_path / "images" / f"{name}.png").write_bytes(png(name))
    return tmp_path


def write(folder: Path, rows: list[Any], name: str = "rows.jsonl") -> Path:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_parquet(path: Path, columns: dict[str, list[Any]], image: str | None = "image", many: bool = False) -> Path:
    import datasets

    path.parent.mkdir(exist_ok=True, parents=True)
    rows = datasets.Dataset.from_dict(columns)
    if image:
        rows = rows.cast_column(image, datasets.List(datasets.Image()) if many else datasets.Image())
    rows.to_parquet(str(path))
    return path


RED = {"image": "images/red.png", "question": "What colour?", "answer": "red"}


def only(folder: Path, row: dict[str, Any], **options: Any) -> VisualSample:
    return load_samples(write(folder, [row]), **options).samples[0]


def reason(folder: Path, row: Any, **options: Any) -> str:
    loaded = load_samples(write(folder, [RED, row, RED]), **options)
    assert len(loaded.samples) == 2
    assert [skip.row for skip in loaded.skipped] == [1]
    assert "\n" not in loaded.skipped[0].reason
    return loaded.skipped[0].reason


def test_a_plain_row(folder: Path) -> None:
    sample = only(folder, RED)
    assert sample == VisualSample("rows/0", "What colour?", "red", (folder / "images/red.png",), None, "rows")
    assert load_image(sample.images[0]).getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize("image", ["path", "list", "data uri", "dict", "file url", "absolute"])
def test_image_cells(folder: Path, image: str) -> None:
    path = folder / "images/red.png"
    cell: Any = {
        "path": "images/red.png",
        "list": ["images/red.png"],
        "data uri": "data:image/png;base64," + base64.b64encode(png()).decode(),
        "dict": {"bytes": None, "path": "images/red.png"},
        "file url": path.as_uri(),
        "absolute": str(path),
    }[image]
    for column in ("image", "images"):
        sample = only(folder, {column: cell, "question": "q", "answer": "a"})
        assert [load_image(held).getpixel((0, 0)) for held in sample.images] == [(255, 0, 0)]


def test_several_images_keep_their_order_and_markers(folder: Path) -> None:
    pair = ["images/red.png", "images/blue.png"]
    sample = only(folder, {"images": pair, "question": "<image> or <image>?", "answer": "a"})
    assert [held.stem for held in sample.images] == ["red", "blue"]
    assert sample.question == "<image> or <image>?"
    assert reason(folder, {"image": pair, "question": "<image>?", "answer": "a"}) == "1 <image> markers for 2 images"


@pytest.mark.parametrize("question", ["question", "problem", "query", "prompt"])
@pytest.mark.parametrize("answer", ["answer", "solution", "ground_truth"])
def test_column_names(folder: Path, question: str, answer: str) -> None:
    sample = only(folder, {"image": "images/red.png", question: "q?", answer: " 5 "})
    assert (sample.question, sample.answer) == ("q?", " 5 ")


def test_optional_columns(folder: Path) -> None:
    row = {**RED, "id": 7, "type": "colour", "choices": ["red", 2, 2.50]}
    sample = only(folder, row)
    assert (sample.id, sample.source, sample.choices) == ("7", "colour", ("red", "2", "2.5"))
    sample = only(folder, {**row, "source": "web", "choices": [], "id": None})
    assert (sample.id, sample.source, sample.choices) == ("rows/0", "web", None)
    assert only(folder, {**RED, "options": ["x"]}).choices == ("x",)


def test_a_system_column(folder: Path) -> None:
    assert only(folder, {**RED, "system": " Be brief. "}).system == " Be brief. "
    for nothing in ("", None):
        assert only(folder, {**RED, "system": nothing}).system is None
    turns = [{"role": "system", "content": "In the prompt."}, {"role": "user", "content": "What?"}]
    prompt = {"image": "images/red.png", "prompt": turns, "answer": "red"}
    assert only(folder, {**prompt, "system": "Beside it."}).system == "In the prompt."
    assert only(folder, {**prompt, "prompt": turns[1:], "system": "Beside it."}).system == "Beside it."
    assert "system must be one text" in reason(folder, {**RED, "system": ["a", "b"]})


def test_ids_are_unique(folder: Path) -> None:
    rows = [{**RED, "id": "a"}, {**RED, "id": "a"}, {**RED, "id": "b"}]
    assert [sample.id for sample in load_samples(write(folder, rows)).samples] == ["a", "a rows/1", "b"]


def test_json_answers_stay_as_written(folder: Path) -> None:
    path = folder / "rows.jsonl"
    answers = ["3", "3.50", "12345678901234567890123", '"2020-01-01"', "[4]", "true", '"\\\\frac12 "']
    lines = [f'{{"image": "images/red.png", "question": "q", "answer": {answer}}}' for answer in answers]
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join([*lines, "", ""]).encode())
    found = [sample.answer for sample in load_samples(path).samples]
    assert found == ["3", "3.50", "12345678901234567890123", "2020-01-01", "4", "True", "\\frac12 "]


def test_trl_prompts(folder: Path) -> None:
    base = {"images": ["images/red.png"], "answer": "red"}
    parts = [{"type": "image"}, {"type": "text", "text": "What"}, {"type": "text", "text": " colour?"}]
    sample = only(folder, {**base, "prompt": [{"role": "user", "content": parts}]})
    assert (sample.question, sample.system) == ("<image>What colour?", None)
    messages = [
        {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
        {"role": "user", "content": "What?"},
    ]
    sample = only(folder, {**base, "prompt": messages})
    assert (sample.question, sample.system) == ("What?", "Be brief.")


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "one user turn.*'assistant'"),
        ([{"role": "user", "content": "a"}, {"role": "user", "content": "b"}], "one user turn.*'user'"),
        ([{"role": "system", "content": "a"}], "no question"),
        (["hello"], "one user turn.*None"),
        ([{"role": "user", "content": [{"type": "video"}]}], "message part.*'video'"),
        (
            [{"role": "user", "content": [{"type": "image", "image": "x.png"}, {"type": "text", "text": "a"}]}],
            "image column",
        ),
    ],
)
def test_prompts_that_are_not_one_question(folder: Path, messages: list[Any], expected: str) -> None:
    import re

    good = {"image": "images/red.png", "prompt": "What colour?", "answer": "red"}
    loaded = load_samples(write(folder, [good, {**good, "prompt": messages}]))
    assert len(loaded.samples) == 1
    assert re.search(expected, loaded.skipped[0].reason)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"image": None}, "no image"),
        ({"image": ""}, "no image"),
        ({"image": {"bytes": None, "path": None}}, "no image"),
        ({"image": []}, "no image"),
        ({"image": ["images/red.png", None]}, "nothing to load"),
        ({"image": "images/green.png"}, "green.png.*no such file"),
        ({"image": "rows.jsonl"}, "not an image"),
        ({"image": "https://example.org/a.png"}, "allow_url"),
        ({"image": "data:image/png;base64,aGVsbG8="}, "not an image"),
        ({"question": " "}, "no question"),
        ({"question": None}, "no question"),
        ({"question": "<image>"}, "no question"),
        ({"answer": ""}, "no answer"),
        ({"answer": None}, "no answer"),
        ({"answer": ["a", "b"]}, "answer must be one text or number, not a list of 2"),
        ({"choices": "a or b"}, "choices must be a list"),
    ],
)
def test_bad_rows_are_skipped_by_number(folder: Path, change: dict[str, Any], expected: str) -> None:
    import re

    assert re.search(expected, reason(folder, {**RED, **change}))


def test_rows_that_are_no_objects_or_no_json(folder: Path) -> None:
    path = write(folder, [RED, [1, 2], RED])
    path.write_bytes(path.read_bytes() + b'{"image": \n\xff\xfe\n' + b"[" * 200_000 + b"\n")
    loaded = load_samples(path)
    assert len(loaded.samples) == 2
    assert [skip.row for skip in loaded.skipped] == [1, 3, 4, 5]
    assert "object" in loaded.skipped[0].reason
    assert all("not valid JSON" in skip.reason for skip in loaded.skipped[1:])


def test_pixel_bomb_is_a_skip(folder: Path) -> None:
    Image.new("1", (20_000, 20_000)).save(folder / "bomb.png")
    assert "pixels" in reason(folder, {**RED, "image": "bomb.png"})


def test_text_only_rows_only_when_asked(folder: Path) -> None:
    text = {"question": "1 + 1?", "answer": 2}
    with pytest.raises(DataError, match="no column holds the image"):
        load_samples(write(folder, [text]))
    assert only(folder, text, require_image=False).images == ()
    loaded = load_samples(write(folder, [RED, {**text, "image": None}]), require_image=False)
    assert [len(sample.images) for sample in loaded.samples] == [1, 0]


@pytest.mark.parametrize("missing", ["image", "question", "answer"])
@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_missing_column_is_named_with_those_found(folder: Path, missing: str, kind: str) -> None:
    row = {key: value for key, value in RED.items() if key != missing}
    path = write(folder, [row])
    if kind == "parquet":
        path = write_parquet(folder / "rows.parquet", {key: [value] for key, value in row.items()}, image=None)
    with pytest.raises(DataError) as caught:
        load_samples(path)
    assert f"no column holds the {missing}" in str(caught.value)
    assert f"found: {', '.join(row)}" in str(caught.value)


@pytest.mark.parametrize("content", ["", "\n\n", "[]"])
def test_an_empty_file(folder: Path, content: str) -> None:
    (folder / "rows.json").write_text(content)
    with pytest.raises(DataError, match=r"0 usable rows \(0 rows, 0 skipped\).*--prompts-per-step"):
        load_samples(folder / "rows.json")


def test_too_few_rows_say_why_and_what_to_lower(folder: Path) -> None:
    path = write(folder, [RED, *[{**RED, "answer": ""}] * 5])
    with pytest.raises(DataError) as caught:
        load_samples(path, min_rows=4)
    message = str(caught.value)
    assert "1 usable rows (6 rows, 5 skipped (row 1: no answer; row 2: no answer; row 3: no answer; ...)" in message
    assert "at least 4" in message
    assert "--prompts-per-step" in message
    assert "\n" not in message


def test_json_list_and_limit(folder: Path) -> None:
    path = folder / "rows.json"
    path.write_text(json.dumps([{**RED, "answer": ""}, RED, RED, RED], indent=1))
    loaded = load_samples(path, limit=2)
    assert [sample.id for sample in loaded.samples] == ["rows/1", "rows/2"]
    assert loaded.summary() == "3 rows, 1 skipped (row 0: no answer)"
    assert load_samples(write(folder, [RED] * 1234)).summary() == "1,234 rows, 0 skipped"
    path.write_text("[1,")
    with pytest.raises(DataError, match=r"rows\.json: not valid JSON"):
        load_samples(path)


def test_paths_that_cannot_be_read(folder: Path) -> None:
    write(folder, [RED])
    with pytest.raises(DataError, match=r"no such file or directory; near it: rows\.jsonl"):
        load_samples(folder / "row.jsonl")
    with pytest.raises(DataError, match=r"no such file or directory$"):
        load_samples(folder / "no" / "rows.jsonl")
    (folder / "rows.csv").write_text("a,b")
    with pytest.raises(DataError, match=r"allowed: \.parquet, \.jsonl, \.json"):
        load_samples(folder / "rows.csv")
    with pytest.raises(DataError, match=r"holds a \.parquet or \.jsonl"):
        load_samples(folder / "images")
    (folder / "bad.parquet").write_bytes(b"PAR1 but nothing more")
    with pytest.raises(DataError, match=r"bad\.parquet: unreadable parquet") as caught:
        load_samples(folder / "bad.parquet")
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match=r"holds parquet and jsonl files \(bad.parquet, rows.jsonl\)"):
        load_samples(folder)


@pytest.mark.parametrize("name", ["rows.parquet", "odd [1] *.parquet"])
def test_parquet_keeps_encoded_bytes(folder: Path, name: str) -> None:
    cells = [{"bytes": png("red"), "path": "elsewhere.png"}, None, {"bytes": png("blue"), "path": None}]
    path = write_parquet(folder / name, {"image": cells, "problem": ["q"] * 3, "answer": [1, 2, 3]})
    loaded = load_samples(path)
    assert [sample.images for sample in loaded.samples] == [(png("red"),), (png("blue"),)]
    assert [sample.answer for sample in loaded.samples] == ["1", "3"]
    assert [str(skip) for skip in loaded.skipped] == ["row 1: no image"]


def test_parquet_leaves_no_cache_behind(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_parquet(
        folder / "r.parquet", {"image": [str(folder / "images/red.png")], "question": ["q"], "answer": ["a"]}
    )
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", folder / "cache")
    load_samples(path)
    assert not (folder / "cache").exists()


def test_parquet_lists_messages_and_hub_layout(folder: Path) -> None:
    both = [{"bytes": png(name), "path": None} for name in ("red", "blue")]
    parts = [{"type": "image", "text": None}, {"type": "image", "text": None}, {"type": "text", "text": "same?"}]
    columns = {"images": [both], "prompt": [[{"role": "user", "content": parts}]], "answer": ["no"]}
    for shard in ("train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001"):
        write_parquet(folder / "hub" / "data" / f"{shard}.parquet", columns, image="images", many=True)
    loaded = load_samples(folder / "hub")
    assert [s.id for s in loaded.samples] == ["data/train-00000-of-00002/0", "data/train-00001-of-00002/0"]
    assert loaded.samples[0].question == "<image><image>same?"
    assert loaded.samples[0].images == (png("red"), png("blue"))
    assert loaded.samples[0].source == "hub"


def test_a_directory_of_jsonl_names_the_file_of_a_skip(folder: Path) -> None:
    write(folder, [RED], "a.jsonl")
    write(folder, [{**RED, "answer": ""}], "b.jsonl")
    assert load_samples(folder).summary() == "2 rows, 1 skipped (b row 0: no answer)"


def rows(groups: list[list[str]]) -> list[VisualSample]:
    return [VisualSample(str(n), "q", "a", tuple(png(c) for c in group)) for n, group in enumerate(groups)]


def test_holdout_shares_no_image() -> None:
    samples = rows([["red"], ["blue"], ["red", "green"], ["green"], ["black"], ["white"], ["blue"]])
    for seed in range(10):
        split = split_holdout(samples, 3, seed)
        seen = {image for sample in split.train for image in sample.images}
        assert not any(image in seen for sample in split.held_out for image in sample.images)
        assert split.shared == 0
        assert 0 < len(split.held_out) <= 3
        assert sorted(split.train + split.held_out, key=lambda sample: sample.id) == samples
        assert split == split_holdout(samples, 3, seed)
    assert len({split_holdout(samples, 3, seed).held_out for seed in range(10)}) > 1


def test_holdout_knows_equal_files_under_other_names(folder: Path) -> None:
    (folder / "copy.png").write_bytes(png("red"))
    paths = (folder / "copy.png", folder / "images/red.png", folder / "images/blue.png")
    samples = [VisualSample(str(n), "q", "a", (path,)) for n, path in enumerate(paths)]
    for seed in range(5):
        assert [sample.id for sample in split_holdout(samples, 1, seed).held_out] == ["2"]


def test_holdout_counts_what_it_cannot_keep_apart() -> None:
    split = split_holdout(rows([["red"]] * 5), 2)
    assert (len(split.train), len(split.held_out), split.shared) == (3, 2, 2)
    text = [VisualSample(str(n), question, "a") for n, question in enumerate("aab")]
    assert [sample.id for sample in split_holdout(text, 1).held_out] == ["2"]
    assert split_holdout(text, 0).held_out == ()
    for num in (-1, 3):
        with pytest.raises(DataError, match=f"held-out rows: {num} of 3"):
            split_holdout(text, num)


@needs_samples
@pytest.mark.parametrize("form", ["items.jsonl", "data.parquet"])
@pytest.mark.parametrize(
    ("name", "count", "answer", "choices"),
    [
        ("geometry3k", 10, "80", ("30", "40", "60", "80")),
        ("clevr_count", 40, "<answer> 5 </answer>", None),
        ("mathvision", 112, "B", ("A", "B", "C", "D", "E")),
    ],
)
def test_real_rows(name: str, count: int, answer: str, choices: tuple[str, ...] | None, form: str) -> None:
    loaded = load_samples(SAMPLES / name / form)
    assert (len(loaded.samples), loaded.skipped) == (count, ())
    first = loaded.samples[0]
    assert (first.answer, first.choices) == (answer, choices)
    assert len({sample.id for sample in loaded.samples}) == count
    for sample in loaded.samples[:3]:
        assert all(min(load_image(image).size) > 50 for image in sample.images)
    if name == "geometry3k":
        assert first.question.startswith("<image>In $\\odot X")
    other = load_samples(SAMPLES / name / ("data.parquet" if form == "items.jsonl" else "items.jsonl"))
    assert [(s.question, s.answer) for s in loaded.samples] == [(s.question, s.answer) for s in other.samples]


@needs_samples
def test_real_rows_without_an_image_or_question_are_listed() -> None:
    loaded = load_samples(SAMPLES / "mathverse" / "data.parquet")
    reasons = [skip.reason for skip in loaded.skipped]
    assert reasons.count("no image") == 14
    assert len(loaded.samples) + len(loaded.skipped) == 84
    assert set(reasons) <= {"no image", "no question"}
