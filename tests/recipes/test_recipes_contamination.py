"""Contamination: planted items are found in another dress, different pictures raise no alarm, templates neither."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from building import built, encoded, kept_rows, picture, rejected, row
from PIL import Image, ImageDraw

from data_recipes import benchmark_index
from data_recipes.benchmark_index import build_index, digest, get_index, load_index, save_index
from data_recipes.build import summary
from data_recipes.builder import Tools
from data_recipes.check import check_row
from data_recipes.contamination import ContaminationIndex, Hit, Item, Picture
from data_recipes.hashes import perceptual_hash, pixel_hash, question_key, thumbnail
from data_recipes.types import Checked, RecipeError
from reopold_vl.images import load_image
from reopold_vl.types import VisualSample
from reopold_vl.zoo.task import problem

LONG = "A train leaves at 9:15 and travels 240 km at 80 km per hour. When does it arrive at the station?"


def checked(image: Any, question: str = "Something else?") -> Checked:
    images = (image,) if image is not None else ()
    found = check_row(lambda one: one["sample"], 0, {"sample": VisualSample("x", question, "1", images)})
    assert isinstance(found, Checked)
    return found


def index_of(*items: tuple[str, Image.Image | None, str]) -> ContaminationIndex:
    """An index of (question, picture, answer)."""
    entries, pictures = [], []
    for number, (question, image, answer) in enumerate(items):
        entries.append(Item("bench", str(number), question_key(question), answer))
        if image is not None:
            pictures.append(Picture(number, pixel_hash(image), perceptual_hash(image), thumbnail(image)))
    return ContaminationIndex(entries, pictures, {})


def half_jpeg(image: Image.Image) -> bytes:
    return encoded(image.resize((max(1, image.width // 2), max(1, image.height // 2))), "JPEG", quality=75)


def respaced(question: str) -> str:
    return "  " + "   ".join(question.replace(",", " ,").split()) + " "


@pytest.fixture(scope="module")
def embedded() -> ContaminationIndex:
    """The embedded benchmark's first problems, made as `build_index` makes them all."""
    samples = [problem("test", number).sample for number in range(400)]
    return index_of(*[(one.question, one.images[0], one.answer or "") for one in samples])


def test_planted_items_of_the_embedded_benchmark_are_found(embedded: ContaminationIndex) -> None:
    for number in range(0, 400, 8):
        sample = problem("test", number).sample
        hits = embedded.hits(checked(half_jpeg(sample.images[0]), respaced(sample.question)))
        assert str(number) in [hit.id for hit in hits], number


def test_planted_items_of_real_benchmarks_are_found(shared_dir: Path) -> None:
    names = ("mathvision", "logicvista", "geometry3k", "clevr_count", "tabmwp")
    index = build_index([f"{name}={shared_dir / 'samples' / name / 'data.parquet'}" for name in names])
    assert {name.partition("/")[0] for name in index.benches} == set(names)
    from eval.benches import BENCHES
    from eval.load import load_problems

    planted, found = 0, 0
    for name in names:
        path = shared_dir / "samples" / name / "data.parquet"
        for one in load_problems(BENCHES[name], data_path=path).problems[:25]:
            image = half_jpeg(load_image(one.images[0]))
            hits = index.hits(checked(image, respaced(one.question)))
            planted, found = planted + 1, found + (Hit(name, one.id, "").id in {h.id for h in hits if h.bench == name})
    assert planted >= 100 and found >= planted - 1, f"{found} of {planted}"


def test_a_thousand_different_pictures_raise_no_alarm(embedded: ContaminationIndex) -> None:
    """Look-alikes on purpose: 700 renders of the same task with the same templated questions, and 300 drawn ones."""
    alarms = []
    for number in range(700):
        sample = problem("train", number).sample
        alarms += embedded.hits(checked(sample.images[0], sample.question))
    questions = [problem("test", number).sample.question for number in range(300)]
    for number, question in enumerate(questions):
        alarms += embedded.hits(checked(encoded(chart(number)), question))
    assert alarms == []


def test_real_pictures_raise_no_alarm_against_other_benchmarks(shared_dir: Path) -> None:
    path = shared_dir / "samples"
    index = build_index([f"mathvision={path / 'mathvision' / 'data.parquet'}"])
    others = [
        file for name in ("tabmwp", "wemath", "logicvista", "dynamath") for file in (path / name / "images").iterdir()
    ]
    assert len(others) > 100
    assert [hit for file in others for hit in index.hits(checked(file))] == []


def chart(number: int) -> Image.Image:
    """A bar chart on white, as like the others as charts are."""
    heights = np.random.default_rng(number).integers(10, 110, 6)
    image = Image.new("RGB", (160, 120), "white")
    pen = ImageDraw.Draw(image)
    for place, height in enumerate(heights):
        pen.rectangle((12 + place * 24, 118 - height, 28 + place * 24, 118), fill=(60, 90, 200), outline="black")
    return image


def test_each_kind_of_evidence() -> None:
    index = index_of((LONG, picture(1), "12:15"), ("How many?", picture(2), "3"), ("How many?", picture(3), "4"))

    def by(image: Any, question: str) -> list[tuple[str, str]]:
        return [(hit.id, hit.by) for hit in index.hits(checked(image, question))]

    webp = encoded(picture(2), "WEBP", lossless=True)
    assert by(webp, "What else?") == [("1", "pixels")]
    assert by(encoded(picture(2), "JPEG", quality=85), "What else?") == [("1", "picture")]
    assert by(encoded(picture(9)), respaced(LONG).upper()) == [("0", "question")]
    assert by(encoded(picture(9)), f"You are a careful solver. {LONG} Put it into a box.") == [("0", "question")]
    assert by(encoded(picture(9)), "How many?") == [] == by(None, "How many?")
    assert by(None, LONG) == [("0", "question")]
    assert index.hits(checked(None, LONG), text=False) == []


def test_templates_and_plain_pictures_prove_nothing() -> None:
    white, long = Image.new("RGB", (90, 60), "white"), LONG.replace("9:15", "9:30")
    index = index_of((long, picture(1), "12:15"), (long, picture(2), "12:30"), ("What is shown?", white, "nothing"))
    assert index.hits(checked(encoded(picture(9)), long)) == []  # asked twice with different answers
    assert index.hits(checked(encoded(white), "Is it raining?")) == []
    assert [hit.by for hit in index.hits(checked(encoded(white), "what is shown"))] == ["pixels"]


def test_the_build_takes_hits_out_and_lists_them(tmp_path: Path) -> None:
    index = index_of((LONG, picture(1), "12:15"), ("How many?", picture(2), "3"))
    rows = [
        row(5),
        row(6, images=[half_jpeg(picture(2))], question="  how many ? "),
        row(7, question=LONG),
        row(8, question="How many?"),
    ]
    manifest = built(rows, tmp_path / "out", tools=Tools(index=index))
    assert [one["id"] for one in kept_rows(tmp_path / "out")] == ["row-5", "row-8"]
    assert {one["filter"] for one in rejected(tmp_path / "out")} == {"contamination"}
    lines = (tmp_path / "out" / "rejected" / "contamination.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"number": 1, "id": "row-6", "bench": "bench", "benchmark_id": "1", "by": "question and similar picture"},
        {"number": 2, "id": "row-7", "bench": "bench", "benchmark_id": "0", "by": "question"},
    ]
    found = manifest["contamination"]
    assert found["checked"] and found["hits_by_bench"] == {"bench": 2} and "mathvista" in found["not_checked"]


def test_an_index_is_saved_and_read_back(tmp_path: Path) -> None:
    index = index_of((LONG, picture(1), "12:15"), ("How many?", picture(2), "3"))
    save_index(index, tmp_path / "sub" / "index.npz")
    again = load_index(tmp_path / "sub" / "index.npz")
    assert (again.items, again.pictures, digest(again)) == (index.items, index.pictures, digest(index))
    row_of = checked(half_jpeg(picture(2)), "How many?")
    assert again.hits(row_of) == index.hits(row_of) != []
    assert digest(index) != digest(index_of((LONG, picture(3), "12:15")))


def test_an_index_that_is_there_is_used_and_one_that_is_not_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = index_of((LONG, picture(1), "12:15"))
    monkeypatch.setattr(benchmark_index, "build_index", lambda names: made)
    file = tmp_path / "index.npz"
    assert get_index(["auto"], file).items == made.items and file.is_file()
    monkeypatch.setattr(benchmark_index, "build_index", lambda names: pytest.fail("it was built already"))
    assert get_index(["auto"], file).items == made.items


@pytest.mark.parametrize("content", [b"", b"PK not a zip", encoded(picture(0))])
def test_files_that_are_no_index_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "index.npz").write_bytes(content)
    with pytest.raises(RecipeError, match="no contamination index"):
        load_index(tmp_path / "index.npz")
    buffer = io.BytesIO()
    np.savez(buffer, other=np.zeros(3))
    (tmp_path / "index.npz").write_bytes(buffer.getvalue())
    with pytest.raises(RecipeError, match="no contamination index"):
        load_index(tmp_path / "index.npz")


def test_benchmarks_that_cannot_be_had_are_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"names 'mathvist'.*mathvista"):
        build_index(["mathvist"])
    with pytest.raises(RecipeError, match="no such file"):
        build_index([f"mathvista={tmp_path / 'gone'}"])


def test_what_was_not_compared_is_counted_and_a_few_are_named(tmp_path: Path) -> None:
    manifest = built([row(0)], tmp_path / "out")
    manifest["contamination"] |= {"checked": ["embedded"], "not_checked": ["a1", "b2", "c3", "d4"]}
    shown = summary(manifest, tmp_path)
    assert "not compared with 4 benchmarks" in shown and "): a1, b2, c3, ... (all in manifest.json)" in shown
