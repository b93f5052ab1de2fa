"""The Hub, pretended: aliases, errors, parquet read where it lies, other files streamed, archives downloaded."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from data_recipes.stream import Stream, open_stream
from data_recipes.types import RecipeError


def numbers(stream: Stream, skip: int = 0) -> list[int]:
    return [number for number, _ in stream.rows_from(skip)]


def questions(stream: Stream, skip: int = 0) -> list[str]:
    return [stream.recipe.read(row).question for _, row in stream.rows_from(skip)]


def write_parquet(file: Path, count: int, start: int = 0) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    file.parent.mkdir(parents=True, exist_ok=True)
    cells = {
        "problem": [f"q{start + n}" for n in range(count)],
        "answer": [str(n) for n in range(count)],
        "images": [[{"bytes": b"png", "path": None}]] * count,
    }
    pq.write_table(pa.table(cells), file, row_group_size=10)
    return file


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A pretended Hub: ids -> a local folder in the Hub's layout, or the error to raise; gives the ids asked for."""
    import datasets
    from datasets.exceptions import DatasetNotFoundError

    real, asked = datasets.load_dataset_builder, []

    def pretend(known: dict[str, Any]) -> list[str]:
        def load(path: str, name: str | None = None, **settings: Any) -> Any:
            asked.append(path)
            found = known.get(path, DatasetNotFoundError(f"Dataset '{path}' doesn't exist"))
            if isinstance(found, Exception):
                raise found
            return real(str(found), name, cache_dir=str(tmp_path / "cache"))

        monkeypatch.setattr(datasets, "load_dataset_builder", load)
        return asked

    return pretend


def test_only_not_found_goes_on_to_the_next_id(tmp_path: Path, hub: Any) -> None:
    write_parquet(tmp_path / "hub/data/train-00000-of-00001.parquet", 25)
    write_parquet(tmp_path / "hub/data/test-00000-of-00001.parquet", 5, 100)
    asked = hub({"SunnyLin/geometry3k": tmp_path / "hub"})
    stream = open_stream("geometry3k")
    assert asked == ["hiyouga/geometry3k", "SunnyLin/geometry3k"] and stream.origin == "SunnyLin/geometry3k"
    assert questions(stream) == [f"q{n}" for n in range(25)] and stream.revision
    assert stream.notes == ("not used: hiyouga/geometry3k (Dataset 'hiyouga/geometry3k' doesn't exist)",)
    assert questions(stream, 23) == ["q23", "q24"] and numbers(stream, 23) == [23, 24]
    first = stream.recipe.read(next(stream.rows)[1])
    assert first.images == (b"png",) and first.id == "train/0"
    assert questions(open_stream("geometry3k", split="test", limit=2)) == ["q100", "q101"]


def test_all_ids_are_named_where_none_exists(hub: Any) -> None:
    hub({})
    with pytest.raises(RecipeError) as caught:
        open_stream("clevr_count")
    for part in (
        "leonardPKU/clevr_cogen_a_train",
        "MMInstruction/",
        "BUAADreamer/",
        "--data-path",
        "solution or answer",
    ):
        assert part in str(caught.value)


def test_other_failures_stop_at_once(hub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", False)
    asked = hub({"hiyouga/geometry3k": ConnectionError("no route to host")})
    with pytest.raises(RecipeError, match=r"hiyouga/geometry3k: no route to host; .*--data-path"):
        open_stream("geometry3k")
    assert asked == ["hiyouga/geometry3k"]


def test_offline_the_next_id_may_be_in_the_cache(tmp_path: Path, hub: Any) -> None:
    write_parquet(tmp_path / "hub/data/train-00000-of-00001.parquet", 3)
    hub({"hiyouga/geometry3k": ConnectionError("offline"), "SunnyLin/geometry3k": tmp_path / "hub"})
    assert open_stream("geometry3k").origin == "SunnyLin/geometry3k"


def test_a_split_that_is_not_there_names_those_that_are(tmp_path: Path, hub: Any) -> None:
    write_parquet(tmp_path / "hub/data/train-00000-of-00001.parquet", 2)
    hub({"hiyouga/geometry3k": tmp_path / "hub"})
    with pytest.raises(RecipeError, match="no split test there, only train"):
        open_stream("geometry3k", split="test")
    write_parquet(tmp_path / "other/data/test-00000-of-00001.parquet", 3)
    hub({"hiyouga/geometry3k": tmp_path / "hub", "SunnyLin/geometry3k": tmp_path / "other"})
    assert open_stream("geometry3k", split="test").origin == "SunnyLin/geometry3k"


def test_renamed_columns_on_the_hub(tmp_path: Path, hub: Any) -> None:
    write_parquet(tmp_path / "hub/data/train-00000-of-00001.parquet", 2)
    hub({"FanqingM/MMK12": tmp_path / "hub"})
    with pytest.raises(RecipeError, match=r"no column question, which mmk12 needs; there are: problem, answer, images"):
        open_stream("mmk12")
    assert questions(open_stream("mmk12", mapping={"problem": "question"})) == ["q0", "q1"]


def test_other_files_are_streamed_by_the_library(tmp_path: Path, hub: Any) -> None:
    (tmp_path / "hub").mkdir()
    rows = [{"problem": f"q{n}", "solution": f"<answer> {n} </answer>", "image": "a.png"} for n in range(5)]
    (tmp_path / "hub" / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    hub({"leonardPKU/clevr_cogen_a_train": tmp_path / "hub"})
    stream = open_stream("clevr_count", limit=4)
    assert questions(stream) == ["q0", "q1", "q2", "q3"] and numbers(stream, 3) == [3]


def test_parquet_at_an_address_is_read_where_it_lies(tmp_path: Path, hub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets
    import huggingface_hub

    write_parquet(tmp_path / "0.parquet", 25)
    opened = []

    class Remote:
        def open(self, address: str, mode: str) -> Any:
            opened.append(address)
            if "gone" in address:
                raise ConnectionError("reset by peer")
            return (tmp_path / address.rpartition("/")[2]).open(mode)

    class Builder:
        hash = "c0ffee"

        def __init__(self, name: str) -> None:
            self.config = datasets.BuilderConfig(data_files=None)
            self.config.data_files = {"train": [f"hf://datasets/x@c0ffee/{name}.parquet"]}  # pyright: ignore

    monkeypatch.setattr(huggingface_hub, "HfFileSystem", Remote)
    monkeypatch.setattr(datasets, "load_dataset_builder", lambda *_, **__: Builder("0"))
    stream = open_stream("geometry3k")
    assert (stream.revision, stream.total) == ("c0ffee", 25) and questions(stream, 22) == ["q22", "q23", "q24"]
    monkeypatch.setattr(datasets, "load_dataset_builder", lambda *_, **__: Builder("gone"))
    with pytest.raises(RecipeError, match=r"gone\.parquet: unreadable parquet, reset by peer"):
        open_stream("geometry3k")
    assert opened[0] == "hf://datasets/x@c0ffee/0.parquet"


def test_archives_are_downloaded_and_read_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    snapshot = tmp_path / "snapshots" / "abc123"
    snapshot.mkdir(parents=True)
    turns = [{"from": "human", "value": "<image>\nHow many?"}, {"from": "gpt", "value": "The answer is 3.50"}]
    row = {"id": "identity_1", "image": "TabMWP/images/1.png", "conversations": turns}
    (snapshot / "train_samples_all_tuning.json").write_text(json.dumps([row, row]))
    with zipfile.ZipFile(snapshot / "data_images.zip", "w") as archive:
        archive.writestr("data_images/TabMWP/images/1.png", b"the picture")
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda id, name, **_: str(snapshot / name))
    stream = open_stream("mathv360k")
    (_, first), _ = stream.rows
    sample = stream.recipe.read(first)
    assert (sample.answer, sample.images, sample.source) == ("3.50", (b"the picture",), "mathv360k TabMWP")
    assert (stream.origin, stream.revision) == ("Zhiqiang007/MathV360K", "abc123")


def test_the_library_offline_is_one_line() -> None:
    """With HF_HUB_OFFLINE, as the tests have it: the real call, no network."""
    for recipe in ("geometry3k", "virl39k"):
        with pytest.raises(RecipeError, match="--data-path") as caught:
            open_stream(recipe)
        assert "\n" not in str(caught.value)
