"""Rows that a filter took out come back as if it had never been on; nothing that leaks comes back with them."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from building import built, encoded, files, kept_rows, picture, rejected, row

from data_recipes.benchmark_index import save_index
from data_recipes.build import main
from data_recipes.builder import Tools
from data_recipes.config import BuildConfig
from data_recipes.contamination import ContaminationIndex, Item, Picture
from data_recipes.hashes import perceptual_hash, pixel_hash, question_key, thumbnail
from data_recipes.types import Checked, RecipeError

SHARES = {"max_share_source": 0.6, "max_share_answer_type": 0.9, "shard_rows": 20}
LIMITS = {"duplicate_image": "exact", "max_prompt_chars": 400}


def index_of(*numbers: int) -> ContaminationIndex:
    """An index of these pictures."""
    items = [Item("bench", str(number), question_key("Something?")) for number in numbers]
    pictures = [
        Picture(place, pixel_hash(image), perceptual_hash(image), thumbnail(image))
        for place, image in enumerate(map(picture, numbers))
    ]
    return ContaminationIndex(items, pictures, {f"bench/{number}": {"problems": 1} for number in numbers})


def spoilt() -> list[dict[str, Any]]:
    """Rows of which every filter takes some, some of them for two reasons."""
    rows = [row(number % 50, id=f"row-{number}", source="ab"[number % 50 > 40]) for number in range(120)]
    small = [encoded(picture(4).resize((40, 6)))]
    rows[3] |= {"answer": ""}
    rows[4] |= {"images": small}
    rows[5] |= {"broken": True}
    rows[6] |= {"images": small, "answer": ""}
    rows[7] |= {"images": []}
    rows[8] |= {"question": "long " * 100}
    rows[9] |= {"images": rows[10]["images"]}
    rows[11] |= {"images": ["/no/such/file.png"]}
    for number in (12, 13, 14):
        rows[number] |= {"answer": "red"}
    return rows


def rates(rows: Any) -> list[float]:
    return [(one.number % 7) / 6 for one in rows if isinstance(one, Checked)]


@pytest.mark.parametrize(
    ("name", "off"),
    [
        ("missing_image", {"require_image": False}),
        ("missing_answer", {"require_answer": False}),
        ("image_size", {"min_side": 0, "max_pixels": 0, "max_aspect": 0.0}),
        ("prompt_length", {"max_prompt_chars": 0}),
        ("contamination", {"contamination": False}),
        ("duplicate_question", {"duplicate_question": "off"}),
        ("duplicate_image", {"duplicate_image": "off"}),
        ("share_source", {"max_share_source": 1.0}),
        ("share_answer_type", {"max_share_answer_type": 1.0}),
    ],
)
def test_restoring_gives_what_a_build_without_the_filter_would_have(tmp_path: Path, name: str, off: dict) -> None:
    save_index(index_of(20, 21), tmp_path / "index.npz")
    settings: dict[str, Any] = {**SHARES, **LIMITS, "contamination_index": tmp_path / "index.npz"}
    built(spoilt(), tmp_path / "out", tools=Tools(index_of(20, 21)), **settings)
    out = str(tmp_path / "out")
    assert any(one["filter"] == name for one in rejected(tmp_path / "out"))
    (tmp_path / "out" / "mine.txt").write_text("a note")
    assert main(["--restore", name, "--output-dir", out]) == 0
    assert (tmp_path / "out" / "mine.txt").read_text() == "a note"
    (tmp_path / "out" / "mine.txt").unlink()
    tools = Tools(None if name == "contamination" else index_of(20, 21))
    built(spoilt(), tmp_path / "straight", tools=tools, **{**settings, **off})
    assert files(tmp_path / "out") == files(tmp_path / "straight")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["index.npz", "out", "straight"]


def test_rows_of_the_wrong_difficulty_come_back(tmp_path: Path) -> None:
    built(spoilt(), tmp_path / "out", tools=Tools(pass_rates=rates), pass_rate_model="zoo:student", **LIMITS)
    measured = [one["measured_pass_rate"] for one in kept_rows(tmp_path / "out")]
    assert set(measured) == {number / 6 for number in range(1, 6)}
    assert main(["--restore", "pass_rate", "--output-dir", str(tmp_path / "out")]) == 0
    built(spoilt(), tmp_path / "straight", **LIMITS)
    assert files(tmp_path / "out") == files(tmp_path / "straight")


def test_contaminated_rows_do_not_come_back_for_lack_of_the_benchmark(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings: dict[str, Any] = {"contamination_index": tmp_path / "index.npz"}
    built(spoilt(), tmp_path / "out", tools=Tools(index_of(20, 21)), **settings)
    before, arguments = files(tmp_path / "out"), ["--restore", "missing_answer", "--output-dir", str(tmp_path / "out")]
    save_index(index_of(20), tmp_path / "index.npz")
    assert main(arguments) == 2
    assert "was compared with bench/21, whose data is not at hand" in capsys.readouterr().err
    assert files(tmp_path / "out") == before
    save_index(index_of(20, 21, 22), tmp_path / "index.npz")  # more of them do no harm
    assert main(arguments) == 0
    assert "bench/22" in (tmp_path / "out" / "README.md").read_text()
    taken = [one["number"] for one in rejected(tmp_path / "out") if one["filter"] == "contamination"]
    assert taken == [20, 21, 22, 70, 71, 72]


def test_an_interrupted_restoration_is_finished_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from data_recipes import restore

    rows = [row(0), row(1, answer=""), row(2)]
    built(rows, tmp_path / "out")
    built(rows, tmp_path / "straight", require_answer=False)
    arguments, real, moved = ["--restore", "missing_answer", "--output-dir", str(tmp_path / "out")], os.replace, []

    def die(source: Path, target: Path) -> None:
        moved.append(source)
        if len(moved) == 4:
            raise KeyboardInterrupt
        real(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(restore, "os", SimpleNamespace(replace=die))
        assert main(arguments) == 130
    assert files(tmp_path / "out") != files(tmp_path / "straight")
    assert main(arguments) == 0
    assert files(tmp_path / "out") == files(tmp_path / "straight")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "straight"]


def test_restoring_refuses_files_that_were_changed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    built([row(0), row(1, answer="")], tmp_path / "out")
    shard = next((tmp_path / "out" / "data").iterdir())
    shard.write_bytes(shard.read_bytes()[:-1] + b"!")
    assert main(["--restore", "missing_answer", "--output-dir", str(tmp_path / "out")]) == 2
    assert "has changed since it was built" in capsys.readouterr().err
    with pytest.raises(RecipeError, match="of unreadable, image_not_found, no_response rows there is no sample"):
        BuildConfig().without("unreadable")
