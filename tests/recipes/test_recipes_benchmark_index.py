"""Which problems go into the contamination index: all that are held out, each once, and no training split."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from building import encoded, kept_rows, picture, rejected

from data_recipes.benchmark_index import build_index, missing_benchmarks
from data_recipes.build import main


def geometry(folder: Path, **numbers: range) -> Path:
    """A directory in Geometry3K's layout: the numbers of the pictures in each split."""
    import datasets

    for split, pictures in numbers.items():
        rows: dict[str, list[Any]] = {
            "images": [[{"bytes": encoded(picture(number)), "path": None}] for number in pictures],
            "problem": [f"<image>Find x in figure {number}." for number in pictures],
            "answer": [str(number) for number in pictures],
            "id": [str(number) for number in pictures],
        }
        table = datasets.Dataset.from_dict(rows).cast_column("images", datasets.List(datasets.Image()))
        table.to_parquet(str(folder / f"{split}-00000-of-00001.parquet"))
    return folder


def test_the_training_split_of_a_benchmark_is_no_benchmark(tmp_path: Path) -> None:
    """Geometry3K can be scored on its training split; in the index it would take out all that one trains on."""
    (tmp_path / "data").mkdir()
    folder = geometry(tmp_path / "data", train=range(12), validation=range(20, 23), test=range(9, 14))
    index = build_index([f"geometry3k={folder}"])
    assert set(index.benches) == {"geometry3k/test", "geometry3k/validation"} and len(index.items) == 8
    out = tmp_path / "out"
    flags = ["--data-path", str(folder), "--benchmarks", f"geometry3k={folder}", "--output-dir", str(out)]
    assert main(["geometry3k", *flags]) == 0
    assert [one["number"] for one in kept_rows(out)] == list(range(9))
    assert {(one["number"], one["filter"]) for one in rejected(out)} == {(n, "contamination") for n in (9, 10, 11)}


def test_a_problem_of_several_splits_goes_in_once(tmp_path: Path) -> None:
    (tmp_path / "rows").mkdir()
    folder = geometry(tmp_path / "rows", figures=range(5))
    index = build_index([f"geometry3k={folder}"])
    assert len(index.items) == len(index.pictures) == 5


def test_a_card_in_the_cache_is_no_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening a recipe leaves the data set's card in the Hub's cache; what is compared with is what lies there."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    asked: list[str] = []

    def load(bench: Any, **_: Any) -> Any:
        from eval.benchmark import BenchmarkError

        asked.append(bench.name)
        raise BenchmarkError("not here")

    monkeypatch.setattr("eval.load.load_problems", load)
    card = tmp_path / "hub" / "datasets--hiyouga--geometry3k" / "snapshots" / "abc" / "README.md"
    card.parent.mkdir(parents=True)
    card.write_text("card")
    assert build_index(["auto"]).items == () and set(asked) == {"embedded"}
    (card.parent / "data").mkdir()
    (card.parent / "data" / "test-00000-of-00001.parquet").write_bytes(b"PAR1")
    prepared = tmp_path / "datasets" / "AI4Math___math_vista" / "default"  # as the library spells MathVista
    prepared.mkdir(parents=True)
    (prepared / "math_vista-testmini.arrow").write_bytes(b"")
    asked.clear()
    index = build_index(["auto"])
    assert set(asked) == {"embedded", "geometry3k", "mathvista"}
    assert {"mathvista", "geometry3k"} <= set(missing_benchmarks(index)), "what could not be read was not compared with"
