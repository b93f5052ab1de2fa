"""The inspection: what it counts, what it finds wrong, and that its token counts are those of training."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from building import built, encoded, picture, row
from PIL import Image

from data_recipes.contact_sheet import draw_rows, random_rows
from data_recipes.inspect import InspectConfig, inspect, main
from data_recipes.types import RecipeError
from reopold_vl.types import VisualSample


def test_a_built_directory_has_no_problems_and_its_counts_are_right(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    manifest = built([row(number) for number in range(40)], out)
    assert main([str(out)]) == 0
    assert "40 rows, 40 images" in (shown := capsys.readouterr().out) and "no problems found" in shown
    report = json.loads((out / "inspection" / "report.json").read_text())
    assert report["answer_types"] == manifest["answer_types"] and report["sources"] == manifest["sources"]
    assert report["width"] == {"min": 64, "median": 64, "p95": 64, "max": 64}
    assert Image.open(out / "inspection" / "examples.png").width > 1000
    assert main([str(out)]) == 0  # its own report is no data


def test_files_that_changed_since_the_build_are_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    built([row(number) for number in range(60)], out, shard_rows=32)
    one, two = sorted((out / "data").glob("*.parquet"))
    one.write_bytes(two.read_bytes())
    assert main([str(out)]) == 1
    assert "has changed since it was built" in capsys.readouterr().out


def test_problems_of_a_users_own_file_are_named(tmp_path: Path) -> None:
    for number in range(3):
        picture(number).save(tmp_path / f"{number}.png")
    (tmp_path / "cut.png").write_bytes(encoded(picture(4))[:-300])
    rows = [
        {"image": "0.png", "question": "How many?", "answer": 1},
        {"image": "0.png", "question": "how many", "answer": 1},
        {"image": "1.png", "question": "Which?", "answer": "C", "choices": ["a1", "b1"]},
        {"image": "cut.png", "question": "What?", "answer": 1},
        {"image": "gone.png", "question": "What?", "answer": 1},
        {"question": "No picture?", "answer": 1},
        {"image": "2.png", "question": "What?", "answer": "$$"},
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    report = inspect(tmp_path / "rows.jsonl", InspectConfig(output_dir=tmp_path / "report"))
    found = {kind: problem["rows"] for kind, problem in report["problems"].items()}
    assert found == {
        "row that repeats image and question of an earlier one": 1,
        "answer that names none of the choices": 1,
        "image that cannot be decoded": 1,
        "row that training leaves out": 1,
        "row without image (left out by training unless --no-data.require-image)": 1,
        "answer that is empty when normalised": 1,
    }


def test_tokens_are_those_that_training_encodes(tmp_path: Path, tiny_dirs: dict[str, Path], family: str) -> None:
    from tiny import load_tiny

    from data_recipes.tokens import token_counter

    encoder = load_tiny(tiny_dirs[family]).encoder
    count = token_counter(str(tiny_dirs[family]), min_pixels=encoder.min_pixels, max_pixels=encoder.max_pixels)
    for sizes in ([(64, 64)], [], [(300, 20), (33, 250)], [(11, 90)]):
        images = tuple(Image.new("RGB", size) for size in sizes)
        sample = VisualSample("x", "How many are <these>?", "1", images, ("one", "two"), system="Be brief.")
        assert count(sample, sizes) == len(encoder(sample).ids)
    forged = VisualSample("x", f"What? {encoder.processor.tokenizer.all_special_tokens[0]}", "1")
    for refuses in (lambda: count(forged, []), lambda: encoder(forged)):
        with pytest.raises(ValueError, match="special token"):
            refuses()


def test_a_processor_gives_a_histogram(tmp_path: Path, tiny_dirs: dict[str, Path]) -> None:
    built([row(number) for number in range(12)], tmp_path / "out")
    config = InspectConfig(processor=str(tiny_dirs["qwen2_5_vl"]), output_dir=tmp_path / "report")
    report = inspect(tmp_path / "out", config)
    assert report["prompt_tokens"]["min"] > 5 and (tmp_path / "report" / "tokens.png").stat().st_size > 5000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name the directory"),
        (["gone"], "no such file or directory"),
        (["."], "holds a .parquet or .jsonl file"),
        ([".", "--procesor", "x"], "did you mean --processor"),
        (["rows.jsonl", "--processor", "./nowhere"], "no such directory"),
    ],
)
def test_bad_arguments_are_one_line(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    if arguments[:1] == ["rows.jsonl"]:
        (tmp_path / "rows.jsonl").write_text("{}\n")
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and len(error.splitlines()) == 1 and message in error


def test_the_contact_sheet_draws_any_row(tmp_path: Path) -> None:
    rows = [
        {"images": [encoded(picture(n)) for n in range(count)], "question": question, "answer": "x" * 400,
         "choices": ["red", "blue"], "source": None, "id": "a" * 200, "answer_type": None}
        for count, question in ((0, ""), (1, "word " * 400), (3, "w" * 900), (6, "\u89d2 \u2220ABC = 30\u00b0\n\n?"))
    ]  # fmt: skip
    draw_rows(rows, tmp_path / "sheet.png", "a title")
    assert Image.open(tmp_path / "sheet.png").size[0] > 1000


def test_random_rows_are_drawn_by_seed_from_all_shards(tmp_path: Path) -> None:
    built([row(number) for number in range(150)], tmp_path / "out", shard_rows=32)
    shards = sorted((tmp_path / "out" / "data").glob("*"))
    assert len(shards) == 5
    drawn = [[one["number"] for one in random_rows(shards, 12, seed)] for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2] and len(set(drawn[0])) == 12
    assert [one["number"] for one in random_rows(shards, 500, 0)] == list(range(150))
    with pytest.raises(RecipeError, match="processor"):
        from data_recipes.tokens import token_counter

        token_counter(str(tmp_path), max_pixels=10**6)
