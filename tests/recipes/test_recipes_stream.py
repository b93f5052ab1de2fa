"""Streams: local layouts, columns, resuming at any row, flat memory."""

from __future__ import annotations

import json
import pickle
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from data_recipes.columns import column_renames
from data_recipes.recipes import find_recipe
from data_recipes.stream import Stream, open_stream
from data_recipes.types import Recipe, RecipeError, RowError


def numbers(stream: Stream, skip: int = 0) -> list[int]:
    return [number for number, _ in stream.rows_from(skip)]


def questions(stream: Stream, skip: int = 0) -> list[str]:
    return [stream.recipe.read(row).question for _, row in stream.rows_from(skip)]


def write_parquet(file: Path, count: int, start: int = 0, **columns: str) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    file.parent.mkdir(parents=True, exist_ok=True)
    names = {"problem": "problem", "answer": "answer", "images": "images"} | columns
    cells: dict[str, list[Any]] = {
        names["problem"]: [f"q{start + n}" for n in range(count)],
        names["answer"]: [str(n) for n in range(count)],
        names["images"]: [[{"bytes": b"png", "path": None}]] * count,
    }
    pq.write_table(pa.table(cells), file, row_group_size=10)
    return file


def write_lines(file: Path, count: int, **more: Any) -> Path:
    rows = ({"question": f"q{n}", "answer": str(n), "image": f"{n}.png"} | more for n in range(count))
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def recipe_needing(*names: str) -> Recipe:
    return replace(find_recipe("geometry3k"), columns=tuple((name,) for name in names))


def test_an_unknown_split_names_the_known_ones() -> None:
    with pytest.raises(RecipeError, match="split is 'dev': geometry3k has train, validation, test"):
        open_stream("geometry3k", split="dev")
    with pytest.raises(RecipeError, match="limit is 0"):
        open_stream("embedded", limit=0)
    with pytest.raises(RecipeError, match="local reads files of yours: give --data-path"):
        open_stream("local")
    with pytest.raises(RecipeError, match=r"data_path is rows\.jsonl: embedded computes its rows"):
        open_stream("embedded", data_path="rows.jsonl")


def test_parquet_is_read_where_a_listing_lies_beside_it(tmp_path: Path) -> None:
    write_parquet(tmp_path / "data.parquet", 3)
    write_lines(tmp_path / "items.jsonl", 5)
    stream = open_stream("geometry3k", data_path=tmp_path)
    assert questions(stream) == ["q0", "q1", "q2"]
    assert stream.notes == ("not read, since data.parquet lies beside: items.jsonl",)
    assert open_stream("geometry3k", data_path=tmp_path / "data.parquet").notes == ()


def test_the_revision_of_local_files_is_their_content(tmp_path: Path) -> None:
    def revision(folder: str, *counts: int) -> str:
        (tmp_path / folder).mkdir()
        for place, count in enumerate(counts):
            write_lines(tmp_path / folder / f"train-{place}.jsonl", count)
        return open_stream("local", data_path=tmp_path / folder).revision

    assert revision("a", 2, 3) == revision("b", 2, 3) != revision("c", 3, 2)


def test_columns_that_come_late_are_seen(tmp_path: Path) -> None:
    rows = [{"question": "q", "answer": "1"}] * 500 + [{"question": "q", "answer": "1", "image": "a.png"}]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert open_stream("local", data_path=tmp_path / "rows.jsonl").total == 501


def test_folders_in_the_hubs_layout(tmp_path: Path) -> None:
    for place in (0, 1):
        write_parquet(tmp_path / f"data/train-0000{place}-of-00002.parquet", 15, 15 * place)
    write_parquet(tmp_path / "data/validation-00000-of-00001.parquet", 4, 50)
    train = open_stream("geometry3k", data_path=tmp_path)
    assert train.total == 30 and questions(train) == [f"q{n}" for n in range(30)]
    assert questions(open_stream("geometry3k", data_path=tmp_path, split="validation")) == ["q50", "q51", "q52", "q53"]
    with pytest.raises(RecipeError, match="no file is called after the split test"):
        open_stream("geometry3k", data_path=tmp_path, split="test")


@pytest.mark.parametrize("skip", [0, 1, 9, 10, 14, 15, 16, 29, 30, 99])
def test_any_row_can_be_the_first(tmp_path: Path, skip: int) -> None:
    for place in (0, 1):
        write_parquet(tmp_path / f"train-{place}.parquet", 15, 15 * place)
    stream = open_stream("geometry3k", data_path=tmp_path, limit=25)
    assert list(zip(numbers(stream, skip), questions(stream, skip), strict=True)) == [
        (n, f"q{n}") for n in range(skip, 25)
    ]
    assert stream.total == 25


def test_a_missing_column_names_what_is_there_and_the_way_out(tmp_path: Path) -> None:
    file = write_parquet(tmp_path / "rows.parquet", 3, problem="problems", answer="gold")
    with pytest.raises(RecipeError) as caught:
        open_stream("geometry3k", data_path=file)
    assert "no column problem" in str(caught.value) and "problems, gold, images" in str(caught.value)
    assert "no column answer" in str(caught.value) and "--map problems=problem YOUR_COLUMN=answer" in str(caught.value)
    with pytest.raises(RecipeError, match="--map problem=question answer=solution"):
        column_renames(recipe_needing("question", "solution"), ["problem", "answer"], {}, "rows")
    with pytest.raises(RecipeError, match="'problms' is no column of the data; columns: problems, gold, images"):
        open_stream("geometry3k", data_path=file, mapping={"problms": "problem"})
    with pytest.raises(RecipeError, match="'qestion' is none of ours"):
        open_stream("geometry3k", data_path=file, mapping={"problems": "qestion"})
    for mapping in ({"problems": "problem", "gold": "answer"}, {"problem": "problems", "answer": "gold"}):
        assert questions(open_stream("geometry3k", data_path=file, mapping=mapping)) == ["q0", "q1", "q2"]


def test_paths_that_hold_no_rows(tmp_path: Path) -> None:
    write_lines(tmp_path / "rows.jsonl", 1)
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(b"")
    for name, message in (
        ("row.jsonl", "near it: rows.jsonl"),
        ("notes.txt", "allowed: .parquet"),
        ("pictures", "metadata"),
    ):
        with pytest.raises(RecipeError, match=message):
            open_stream("local", data_path=tmp_path / name)
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(RecipeError, match=r"no rows in empty\.jsonl"):
        open_stream("local", data_path=tmp_path / "empty.jsonl")
    (tmp_path / "rows.csv").write_text("question,answer,image\n")
    with pytest.raises(RecipeError, match="several kinds"):
        open_stream("local", data_path=tmp_path)
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(RecipeError, match="unreadable parquet"):
        open_stream("local", data_path=tmp_path / "bad.parquet")


def test_memory_is_flat_with_images(tmp_path: Path) -> None:
    """What pyarrow holds at any row, of a file in one piece and of one in many."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    cells = {
        "problem": [str(n) for n in range(1000)],
        "answer": ["1"] * 1000,
        "image": [bytes([n % 256]) * 40_000 for n in range(1000)],
    }
    plain: Any = {"compression": "none", "use_dictionary": False, "write_batch_size": 20}  # pages of 20 rows
    for group in (1000, 50):
        file = tmp_path / f"{group}.parquet"
        pq.write_table(pa.table(cells), file, row_group_size=group, **plain)
        before, peak = pa.total_allocated_bytes(), 0
        for _ in open_stream("clevr_count", data_path=file).rows:
            peak = max(peak, pa.total_allocated_bytes() - before)
        assert peak < 10_000_000, f"{peak / 1e6:.0f} MB of the file's 40 are held"


def test_rows_and_reader_travel_to_worker_processes(tmp_path: Path) -> None:
    stream = open_stream("local", data_path=write_lines(tmp_path / "rows.jsonl", 2))
    read, row = pickle.loads(pickle.dumps((stream.recipe.read, next(stream.rows)[1])))  # noqa: S301
    assert read(row).images == (tmp_path / "0.png",)


def test_memory_is_flat(tmp_path: Path) -> None:
    def peak(stream: Stream) -> int:
        tracemalloc.start()
        assert sum(1 for _ in stream.rows) == stream.total
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    few, many = (write_lines(tmp_path / f"{n}.jsonl", n, padding="x" * 200) for n in (1_000, 20_000))
    assert peak(open_stream("local", data_path=many)) < 2 * peak(open_stream("local", data_path=few)) < 2_000_000


def test_unreadable_rows_have_their_number(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"question": "a", "answer": 1, "image": "x"}\n{"question": \n[1]\n')
    stream = open_stream("local", data_path=tmp_path / "rows.jsonl")
    assert numbers(stream) == [0, 1, 2] and stream.total == 3
    for skip, message in ((1, "not valid JSON"), (2, "a row must be an object")):
        with pytest.raises(RowError, match=message):
            stream.recipe.read(next(stream.rows_from(skip))[1])
