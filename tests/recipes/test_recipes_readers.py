"""Every recipe reads rows of its public schema: real ones where there are samples, self-made ones for the others."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from data_recipes.check import check_row
from data_recipes.columns import OPTIONAL
from data_recipes.recipes import RECIPES, find_recipe
from data_recipes.recipes.reading import EXTRA, ORIGIN, Origin, place_images
from data_recipes.stream import open_stream
from data_recipes.types import Checked, RecipeError, RowError
from reopold_vl.answers import is_correct
from reopold_vl.images import load_image
from reopold_vl.types import IMAGE_MARKER, VisualSample

COMMON_COLUMNS = {"id", "images", "question", "answer", "choices", "source", "system", "recipe", "number"}


def png(colour: str = "red") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), colour).save(buffer, "PNG")
    return buffer.getvalue()


def read(recipe: str, **row: Any) -> VisualSample:
    return RECIPES[recipe].read(row)


def test_the_registry_is_complete() -> None:
    for name, recipe in RECIPES.items():
        assert recipe.name == name and recipe.licence and recipe.title and recipe.splits
        assert all(isinstance(names, tuple) and names for names in recipe.columns)
        assert not COMMON_COLUMNS & set(recipe.extra), "an extra column would replace one that every row has"
        assert recipe.read.__qualname__ == "read", "worker processes import it"
        assert RECIPES[name].sources or recipe.rows or name in ("local", "trl", "teacher_responses")
    assert [name for name, recipe in RECIPES.items() if recipe.forbidden] == ["mathvista"]


ODD_CELLS = [
    None, "", 0, -5, True, float("nan"), float("inf"), "\0", "a\0.png", b"", b"x", [], [1], ["a", "b"], [None], [[]],
    [{}], {}, {"a": 1}, {"bytes": None, "path": "a\0.png"}, {"bytes": b"x"}, "[", "['a',", "<image 3>", "\u00b2",
    "data:image/png;base64,@@", "file://[", "file://host/x", "x" * 5000, object(), {1, 2}, [{"role": []}],
    [{"role": "user", "content": 3}], [{"from": "human", "value": "q"}, {"from": "gpt", "value": {"a": 1}}],
]  # fmt: skip


@pytest.mark.parametrize("name", [name for name, recipe in RECIPES.items() if recipe.rows is None])
def test_no_cell_whatever_it_holds_stops_a_build(name: str) -> None:
    """Every column in turn holds every odd value: a row is a sample or is refused with its reason, and nothing else."""
    usual = {
        "question": "q",
        "problem": "q",
        "prompt": "q",
        "answer": "1",
        "solution": "1",
        "image": png(),
        "label": "1",
    }
    turns = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "The answer is 1"}]
    columns = {*usual, *OPTIONAL, *(one for names in RECIPES[name].columns for one in names), "metadata", "response"}
    for column in sorted(columns | {"completion", "chosen", "messages", "pid", "qid", "subject"}):
        for cell in ODD_CELLS:
            row = {**usual, "conversations": turns, "choices": ["1", "2"], column: cell}
            found = check_row(RECIPES[name].read, 0, row)
            assert isinstance(found, Checked) or found.rejected.reason


def test_an_unknown_name_gets_the_nearest() -> None:
    assert find_recipe("tabmwp").name == "tabmwp"
    with pytest.raises(RecipeError, match="did you mean geometry3k"):
        find_recipe("Geometry-3K")
    with pytest.raises(RecipeError, match="There are: geometry3k, virl39k"):
        find_recipe("~~~")


@pytest.mark.parametrize("recipe", ["geometry3k", "clevr_count", "tabmwp", "mathvista"])
def test_real_rows_read_alike_from_parquet_and_jsonl(recipe: str, shared_dir: Path) -> None:
    folder = shared_dir / "samples" / recipe
    expected = [json.loads(line) for line in (folder / "items.jsonl").open(encoding="utf-8")]
    read_by_file: dict[str, list[VisualSample]] = {}
    for name in ("data.parquet", "items.jsonl"):
        stream = open_stream(recipe, data_path=folder / name)
        rows = list(stream.rows)
        assert stream.total == len(rows) == len(expected) and [number for number, _ in rows] == list(range(len(rows)))
        read_by_file[name] = [stream.recipe.read(row) for _, row in rows]
    for row, held, named in zip(expected, *read_by_file.values(), strict=True):
        assert held.answer == named.answer == (row["solution"] if recipe == "clevr_count" else row["answer"])
        asked = row.get("problem") or row["question"]
        assert held.question == named.question and asked in held.question
        assert len(held.images) == 1 and held.question.count(IMAGE_MARKER) in (0, 1)
        assert load_image(held.images[0]).tobytes() == load_image(named.images[0]).tobytes()
        assert is_correct(f"\\boxed{{{held.answer}}}", held) or "<answer>" in (held.answer or "")
    assert len({sample.id for sample in read_by_file["data.parquet"]}) == len(expected)


def test_real_tables_keep_unit_choices_and_kind(shared_dir: Path) -> None:
    stream = open_stream("tabmwp", data_path=shared_dir / "samples" / "tabmwp" / "data.parquet")
    rows = [row for _, row in stream.rows]
    samples = [stream.recipe.read(row) for row in rows]
    money = next(sample for sample in samples if sample.id == "5343")
    assert money.question.endswith("(Unit: $)") and money.answer == "15" and money.choices is None
    assert {sample.source for sample in samples} >= {"integer_number", "boolean_text"}
    assert all(sample.answer in sample.choices for sample in samples if sample.choices)
    assert rows[0][EXTRA]["solution"].startswith("Look at the 7/5 row.")


def test_the_authors_own_tables_are_read_as_they_are(tmp_path: Path) -> None:
    """problems_*.json maps pids to problems; the images lie in tables/."""
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "7.png").write_bytes(png())
    problems = {"7": {"question": "How much?", "choices": None, "answer": "3.50", "unit": "$"}}
    (tmp_path / "problems_train.json").write_text(json.dumps(problems, indent=1))
    (tmp_path / "problems_test1k.json").write_text(json.dumps({"8": problems["7"]}, indent=1))
    stream = open_stream("tabmwp", data_path=tmp_path)
    ((_, row),) = stream.rows
    sample = stream.recipe.read(row)
    assert (sample.id, sample.question, sample.answer) == ("7", "How much? (Unit: $)", "3.50")
    assert load_image(sample.images[0]).size == (40, 30)


def test_forbidden_data_says_why() -> None:
    assert "prohibits training" in RECIPES["mathvista"].forbidden


def test_virl39k_reads_paths_out_of_the_archive(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        archive.writestr("images/a.png", png("red"))
        archive.writestr("b.png", png("blue"))
    rows = [
        {"question": "<image> and <image>?", "answer": "\\boxed{4}", "image": ["images/a.png", "images/b.png"]},
        {"question": "gone <image>?", "answer": "\\boxed{5}", "image": ["images/c.png"]},
    ]
    numbers = {"qid": "q1", "category": "Math", "PassRate_7BBase": 0.25, "PassRate_32BTrained": None}
    file = tmp_path / "39Krelease.jsonl"
    file.write_text("".join(json.dumps(row | numbers) + "\n" for row in rows))
    stream = open_stream("virl39k", data_path=file)
    (_, first), (_, second) = stream.rows
    sample = stream.recipe.read(first)
    assert sample.answer == "\\boxed{4}" and is_correct("\\boxed{4}", sample) and sample.source == "Math"
    assert [load_image(image).getpixel((0, 0)) for image in sample.images] == [(255, 0, 0), (0, 0, 255)]
    assert first[EXTRA] == {"category": "Math", "PassRate_7BBase": "0.25"}
    with pytest.raises(RowError, match=r"neither beside the data nor in images\.zip"):
        stream.recipe.read(second)


def test_a_damaged_archive_is_a_row_error(tmp_path: Path) -> None:
    (tmp_path / "images.zip").write_bytes(b"PK no zip")
    row = {"question": "?", "answer": "1", "image": "a.png"}
    origin = Origin("virl39k", folder=tmp_path, archives=(tmp_path / "images.zip",))
    with pytest.raises(RowError, match=r"unreadable in images\.zip"):
        RECIPES["virl39k"].read(row | {ORIGIN: origin})


def test_chartqa_in_both_schemas() -> None:
    image = {"bytes": png(), "path": "1.png"}
    mine = read("chartqa", image=image, query="How many?", label=["14"], human_or_machine=0)
    other = read("chartqa", image=image, question="How many?", answer="14", type="human_test")
    assert (mine.question, mine.answer, mine.images) == (other.question, other.answer, other.images)
    assert (mine.source, other.source) == ("chartqa human", "chartqa human_test")
    assert read("chartqa", image=image, query="Both?", label=["a", "b"]).answer == "[a, b]"


def test_scienceqa_turns_the_index_into_a_letter() -> None:
    row = {
        "image": png(),
        "question": "Which?",
        "choices": ["dog", "0"],
        "answer": 0,
        "hint": "Look.",
        "subject": "bio",
    }
    sample = read("scienceqa", **row)
    assert (sample.question, sample.answer, sample.source) == ("Context: Look.\nWhich?", "A", "bio")
    assert is_correct("\\boxed{dog}", sample) and not is_correct("\\boxed{0}", sample)
    with pytest.raises(RowError, match="answer is '2': allowed is the index of one of the 2 choices"):
        read("scienceqa", **row | {"answer": 2})


def test_mathv360k_separates_answer_options_and_source() -> None:
    asked = "<image>\nHint: Choose.\nQuestion: Which?\nChoices:\n(A) 1/2\n(B) 3"
    turns = [{"from": "human", "value": asked}, {"from": "gpt", "value": "The answer is B"}]
    sample = read("mathv360k", id="i", image="data_images/TabMWP/images/1.png", conversations=turns)
    assert (sample.answer, sample.choices, sample.source) == ("B", ("1/2", "3"), "mathv360k TabMWP")
    assert is_correct("Answer: 3", sample) and sample.question == asked


def test_mmk12_and_clevr_keep_wrapped_answers() -> None:
    assert read("mmk12", id="1", question="<image> x?", answer="$-1$", subject="math", image=png()).answer == "$-1$"
    assert read("clevr_count", images=[png()], problem="n?", answer="3").answer == "3"
    assert (
        read("clevr_count", image=png(), problem="n?", solution="<answer> 3 </answer>").answer == "<answer> 3 </answer>"
    )


def test_the_embedded_task_is_drawn_when_read() -> None:
    first, again, other = (open_stream("embedded", split="test", limit=3, seed=seed) for seed in (1, 1, 2))
    samples = [[stream.recipe.read(row) for _, row in stream.rows] for stream in (first, again, other)]
    assert [s.id for s in samples[0]] == [s.id for s in samples[1]] != [s.id for s in samples[2]]
    assert all(load_image(sample.images[0]).size == (84, 84) and sample.answer for sample in samples[0])
    assert first.total == 3 and open_stream("embedded").total == 10_000
    assert open_stream("embedded", limit=25_000).total == 25_000


@pytest.mark.parametrize(
    ("question", "images", "expected"),
    [
        ("no marker", ["a", "b"], ("no marker", ("a", "b"))),
        ("<img> then <Image/>", ["a", "b"], ("<image> then <image>", ("a", "b"))),
        ("<image 2> before <image1>", ["a", "b"], ("<image> before <image>", ("b", "a"))),
        ("<image 1>: see <image 1>", ["a"], ("<image>: see image 1", ("a",))),
    ],
)
def test_markers_of_every_form(question: str, images: list[str], expected: tuple[str, tuple[str, ...]]) -> None:
    assert place_images(question, images) == expected


@pytest.mark.parametrize(
    ("question", "number"), [("<image>", 0), ("<image><image>", 1), ("<image 2>", 1), ("<img>", 2)]
)
def test_markers_that_do_not_match_the_images(question: str, number: int) -> None:
    with pytest.raises(RowError, match="image"):
        place_images(question, [b"x"] * number)
