"""The user's own files in every form: lines, lists, csv, image folders; mixed image cells; verbatim answers."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from data_recipes.file_rows import rows_from
from data_recipes.json_rows import count_lines, is_lines, read_rows
from data_recipes.recipes import RECIPES
from data_recipes.recipes.reading import EXTRA
from data_recipes.stream import open_stream
from data_recipes.types import RecipeError, RowError
from reopold_vl.images import load_image
from reopold_vl.types import VisualSample

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**6), 10**6).map(str) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


def png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), "red").save(buffer, "PNG")
    return buffer.getvalue()


def samples(path: Path, **settings: Any) -> list[VisualSample]:
    stream = open_stream("local", data_path=path, **settings)
    return [stream.recipe.read(row) for _, row in stream.rows]


def test_lines_keep_numbers_and_separators(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    line = '{"question": "a\u2028b", "answer": 3.50, "image": "x.png", "id": 12345678901234567890}'
    file.write_bytes(b"\xef\xbb\xbf" + line.encode() + b"\r\n\n" + line.replace("3.50", '"2020-01-01"').encode())
    first, second = samples(file)
    assert (first.question, first.answer, first.id) == ("a\u2028b", "3.50", "12345678901234567890")
    assert second.answer == "2020-01-01" and count_lines(file) == 2
    assert first.images == (tmp_path / "x.png",)


@pytest.mark.parametrize("form", ["lines", "list", "indented list", "object", "indented object"])
def test_json_in_every_form(tmp_path: Path, form: str) -> None:
    rows = [{"question": f"q{n}", "answer": n, "image": "x.png"} for n in range(3)]
    indent = 1 if "indented" in form else None
    text = {
        "lines": "\n".join(map(json.dumps, rows)),
        "list": json.dumps(rows, indent=indent),
        "object": json.dumps({f"k{n}": row for n, row in enumerate(rows)}, indent=indent),
    }[form.split()[-1]]
    (tmp_path / "rows.json").write_text(text)
    assert [sample.question for sample in samples(tmp_path / "rows.json")] == ["q0", "q1", "q2"]
    stream = open_stream("local", data_path=tmp_path / "rows.json")
    assert [number for number, _ in stream.rows_from(1)] == [1, 2]
    assert all(row.get("pid") == f"k{n}" for n, row in stream.rows) == ("object" in form)


@given(st.lists(st.dictionaries(st.text(), JSON_VALUES, max_size=4), max_size=6), st.sampled_from([None, 2]), st.data())
def test_a_document_reads_as_json_does(tmp_path_factory: Any, rows: list[Any], indent: int | None, data: Any) -> None:
    import data_recipes.json_rows as json_rows

    file = tmp_path_factory.mktemp("json") / "rows.json"
    file.write_text(json.dumps(rows, indent=indent, ensure_ascii=False), encoding="utf-8", newline="")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_rows, "CHUNK", data.draw(st.integers(1, 40)))  # windows end anywhere
        assert list(read_rows(file)) == rows


@pytest.mark.parametrize("text", ['[{"a": 1}', '[{"a": 1} x', '[{"a": }]', '{"a": {"b": 1}', "[" * 100_000])
def test_broken_documents_are_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "rows.json").write_text(text)
    with pytest.raises(RecipeError, match=r"rows\.json: not valid JSON") as caught:
        list(read_rows(tmp_path / "rows.json"))
    assert "\n" not in str(caught.value)


def test_one_line_may_be_a_row_or_an_object_of_rows(tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    for text, lines in (('{"a": 1}', True), ('{"a": {"b": 1}}', False), ('{"a": {}}\n{"a": {}}', True), ("", True)):
        file.write_text(text)
        assert is_lines(file) is lines


def test_csv_with_quoted_lines_lists_and_ragged_rows(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text(
        '\ufeffprompt,gold,image,choices\n"two\nlines, one comma",3.50,x.png,"[""3.50"", ""4""]"\n'
        "short\nq,007,\"['a.png', 'b.png']\",\n",
        encoding="utf-8",
    )
    stream = open_stream("local", data_path=file, mapping={"gold": "answer"})
    (_, first), (_, ragged), (_, last) = stream.rows
    sample = stream.recipe.read(first)
    assert (sample.question, sample.answer) == ("two\nlines, one comma", "3.50") and sample.choices == ("3.50", "4")
    with pytest.raises(RowError, match="1 cells under 4 column names"):
        stream.recipe.read(ragged)
    assert stream.recipe.read(last).images == (tmp_path / "a.png", tmp_path / "b.png")
    assert stream.recipe.read(last).answer == "007"
    assert len(list(rows_from(file, 1))) == 2
    (tmp_path / "rows.tsv").write_text("question\tanswer\timage\na,b\t1\tx.png\n")
    assert samples(tmp_path / "rows.tsv")[0].question == "a,b"


@pytest.mark.parametrize("name", ["metadata.jsonl", "metadata.csv"])
def test_a_folder_of_images(tmp_path: Path, name: str) -> None:
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        (tmp_path / split / "1.png").write_bytes(png())
        row = {"file_name": "1.png", "question": f"{split}?", "answer": "7"}
        text = json.dumps(row) if name.endswith("jsonl") else "\n".join([",".join(row), ",".join(row.values())])
        (tmp_path / split / name).write_text(text + "\n")
    (test,) = samples(tmp_path, split="test")
    assert test.question == "test?" and load_image(test.images[0]).size == (40, 30)
    (train,) = samples(tmp_path / "train")
    assert train.question == "train?"


def test_several_images_named_by_the_metadata(tmp_path: Path) -> None:
    row = {"file_names": ["1.png", "2.png"], "question": "<image> or <image>?", "answer": "first"}
    (tmp_path / "metadata.jsonl").write_text(json.dumps(row))
    assert samples(tmp_path)[0].images == (tmp_path / "1.png", tmp_path / "2.png")


def test_every_form_of_image_cell() -> None:
    uri = "data:image/png;base64," + base64.b64encode(png()).decode()
    picture = Image.open(io.BytesIO(png()))
    forms = [
        png(),
        {"bytes": png(), "path": None},
        {"bytes": None, "path": "a.png"},
        uri,
        picture,
        Path("a.png"),
        "a.png",
    ]
    for form in forms:
        for cell in (form, [form], [form, None]):
            sample = RECIPES["local"].read({"question": "q", "answer": "1", "image": cell})
            assert len(sample.images) == 1 and isinstance(sample.images[0], bytes | Path | Image.Image)
    for nothing in (None, "", [], [None], {"bytes": None, "path": None}, float("nan")):
        assert RECIPES["local"].read({"question": "q", "answer": "1", "image": nothing}).images == ()
    for wrong in (7, {"x": 1}, "https://example.org/a.png", [["a.png"]]):
        with pytest.raises(RowError, match="image"):
            RECIPES["local"].read({"question": "q", "answer": "1", "image": wrong})


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": " "}, "no question"),
        ({"question": "<image>"}, "no question|markers"),
        ({"question": ["a", "b"]}, "message"),
        ({"answer": ["a", "b"]}, "answer must be one text or number, not a list of 2"),
        ({"choices": {"A": 1}}, "choices must be a list of texts"),
        ({"choices": "A or B"}, "choices must be a list of texts"),
        ({"choices": ["<image 1>", "<image 2>"]}, "choices that are images"),
        ({"choices": "[" * 5000}, "choices must be a list"),
    ],
)
def test_rows_that_cannot_be_samples(row: dict[str, Any], message: str) -> None:
    with pytest.raises(RowError, match=message):
        RECIPES["local"].read({"question": "q", "answer": "1", "image": "a.png"} | row)


def test_missing_answers_are_left_to_the_filters() -> None:
    for missing in (None, "", float("nan"), []):
        assert RECIPES["local"].read({"question": "q", "answer": missing, "image": "a.png"}).answer is None
    assert RECIPES["local"].read({"question": "q", "answer": 0, "image": "a.png"}).answer == "0"


def test_own_columns_beside_the_sample(tmp_path: Path) -> None:
    row = {"question": "q", "answer": "1", "image": "a.png", "response": "It is 1.", "pass_rate": 0.5, "other": 1}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    ((_, read),) = open_stream("local", data_path=tmp_path / "rows.jsonl").rows
    assert read[EXTRA] == {"response": "It is 1.", "pass_rate": "0.5"}


def test_a_directory_built_here_keeps_its_licence(tmp_path: Path) -> None:
    from data_recipes.build import main

    source, built = tmp_path / "rows.jsonl", tmp_path / "built"
    source.write_text(json.dumps({"question": "q", "answer": "1", "image": "1.png"}))
    (tmp_path / "1.png").write_bytes(png())
    assert main(["tabmwp", "--data-path", str(source), "--output-dir", str(built), "--no-contamination"]) == 0
    again = open_stream("local", data_path=built)
    assert again.recipe.licence == RECIPES["tabmwp"].licence and again.recipe.citation == RECIPES["tabmwp"].citation
    assert not again.recipe.forbidden and again.total == 1
    manifest = json.loads((built / "manifest.json").read_text())
    (built / "manifest.json").write_text(json.dumps(manifest | {"built_against_licence": True}))
    assert "against the licence" in open_stream("trl", data_path=built, mapping={"question": "prompt"}).recipe.forbidden


def test_a_list_in_one_line_is_not_read_whole(tmp_path: Path) -> None:
    import tracemalloc

    file = tmp_path / "rows.json"
    rows = [{"question": f"q{n}", "answer": n, "image": "x.png", "padding": "x" * 2000} for n in range(10_000)]
    file.write_text(json.dumps(rows))
    del rows
    tracemalloc.start()
    stream = open_stream("local", data_path=file)
    assert sum(1 for _ in stream.rows) == 10_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10_000_000, f"{peak / 1e6:.0f} MB for a file of {file.stat().st_size / 1e6:.0f}"
