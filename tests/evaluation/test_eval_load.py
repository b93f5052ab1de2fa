"""Benchmark rows from files: the right split, every row accounted for, errors that say what to do."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from toy_bench import BENCH, ids, png, row, write_jsonl, write_parquet

from eval.benches import BENCHES, find_bench
from eval.benchmark import BenchmarkError, Source
from eval.load import load_problems
from eval.types import Problem


def test_a_parquet_file_keeps_images_encoded(tmp_path: Path) -> None:
    loaded = load_problems(BENCH, data_path=write_parquet(tmp_path / "data.parquet", [row("a"), row("b")]))
    assert ids(loaded) == ["a", "b"] and loaded.split == "testmini" and not loaded.failed and not loaded.notes
    assert [problem.images for problem in loaded.problems] == [(png(),), (png(),)]
    assert [problem.extra["_row"] for problem in loaded.problems] == [0, 1]
    assert "2 problems" in loaded.summary() and "data.parquet" in loaded.origin


def test_a_jsonl_file_has_images_beside_it(tmp_path: Path) -> None:
    (tmp_path / "red.png").write_bytes(png())
    rows = [row("a", image="red.png"), row("b", image="gone.png"), row("c", image="https://nowhere.invalid/x.png")]
    loaded = load_problems(BENCH, data_path=write_jsonl(tmp_path / "rows.jsonl", rows))
    assert ids(loaded) == ["a"] and loaded.problems[0].images == (tmp_path / "red.png",)
    assert [(item.id, item.row) for item in loaded.failed] == [("b", 1), ("c", 2)]
    assert "no such file" in loaded.failed[0].reason and "allow_url" in loaded.failed[1].reason


def test_a_directory_in_the_layout_of_the_hub_gives_the_wanted_split(tmp_path: Path) -> None:
    write_parquet(tmp_path / "data" / "testmini-00000-of-00002-725687bf7a18d64b.parquet", [row("a")])
    write_parquet(tmp_path / "data" / "testmini-00001-of-00002-725687bf7a18d64b.parquet", [row("b")])
    write_parquet(tmp_path / "data" / "test-00000-of-00001.parquet", [row("hidden", answer="")])
    loaded = load_problems(BENCH, data_path=tmp_path)
    assert ids(loaded) == ["a", "b"] and {problem.extra["_split"] for problem in loaded.problems} == {"testmini"}
    with pytest.raises(BenchmarkError, match=r"no files of split dev; it has test, testmini"):
        load_problems(BENCH, split="dev", data_path=tmp_path)


def test_a_table_beside_the_images_that_were_unpacked_from_it_is_not_read(tmp_path: Path) -> None:
    write_parquet(tmp_path / "data.parquet", [row("a")])
    write_jsonl(tmp_path / "rows.jsonl", [row("b", image="red.png")])
    loaded = load_problems(BENCH, data_path=tmp_path)
    assert ids(loaded) == ["a"] and loaded.notes == ("not read, since data.parquet lies beside: rows.jsonl",)


def test_a_directory_with_another_split_alone_is_refused_and_a_name_that_says_nothing_is_not(tmp_path: Path) -> None:
    write_parquet(tmp_path / "named" / "train-00000-of-00001.parquet", [row("a")])
    with pytest.raises(BenchmarkError, match=r"no files of split testmini; it has train"):
        load_problems(BENCH, data_path=tmp_path / "named")
    write_parquet(tmp_path / "plain" / "rows.parquet", [row("a")])
    assert ids(load_problems(BENCH, data_path=tmp_path / "plain")) == ["a"]


def test_split_all_and_sums_of_splits_read_several(tmp_path: Path) -> None:
    bench = replace(BENCH, splits=("all", "one+two"))
    for name in ("one", "two", "three"):
        write_parquet(tmp_path / f"{name}-00000-of-00001.parquet", [row(name)])
    assert ids(load_problems(bench, data_path=tmp_path)) == ["one", "three", "two"]
    assert ids(load_problems(bench, split="one+two", data_path=tmp_path)) == ["one", "two"]


def test_folders_of_configurations(tmp_path: Path) -> None:
    for name in ("Math", "Art"):
        write_parquet(tmp_path / name / "testmini-00000-of-00001.parquet", [row(name)])
    loaded = load_problems(replace(BENCH, sources=(Source("x/y", "*"),)), data_path=tmp_path)
    assert [(problem.id, problem.extra["_config"]) for problem in loaded.problems] == [("Art", "Art"), ("Math", "Math")]
    write_parquet(tmp_path / "mini_dev" / "dev.parquet", [row("d")])
    by_split = replace(BENCH, sources=(Source("x/y", "mini_{split}"),))
    assert ids(load_problems(by_split, split="dev", data_path=tmp_path)) == ["d"]


def test_rows_that_cannot_be_used_are_listed_and_never_scored(tmp_path: Path) -> None:
    rows = [
        row("fine"),
        row("damaged", image={"bytes": png()[:20], "path": None}),
        row("no gold", answer=""),
        row("no question", question=None),
        row("no picture", image=None),
    ]
    loaded = load_problems(BENCH, data_path=write_parquet(tmp_path / "data.parquet", rows))
    assert ids(loaded) == ["fine", "no picture"] and loaded.without_image == 1
    assert [item.row for item in loaded.failed] == [1, 2, 3]
    assert "unreadable" in loaded.failed[0].reason or "not an image" in loaded.failed[0].reason
    assert loaded.failed[1].reason == "no gold answer" and "no question" in loaded.failed[2].reason
    assert "3 failed inputs" in loaded.summary() and "1 without image" in loaded.summary()


def test_a_line_that_is_not_json_is_a_failed_row(tmp_path: Path) -> None:
    (tmp_path / "red.png").write_bytes(png())
    file = write_jsonl(tmp_path / "rows.jsonl", [row("a", image="red.png"), row("b", image="red.png")])
    file.write_text(file.read_text() + '{"id": "c", "quest\n[1]\n')
    loaded = load_problems(BENCH, data_path=file)
    assert ids(loaded) == ["a", "b"] and [item.row for item in loaded.failed] == [2, 3]
    assert "JSON" in loaded.failed[0].reason and "object" in loaded.failed[1].reason


def test_the_limit_takes_the_first_usable_rows(tmp_path: Path) -> None:
    rows = [row("a", answer=""), *(row(name) for name in "bcd")]
    file = write_parquet(tmp_path / "data.parquet", rows)
    loaded = load_problems(BENCH, data_path=file, limit=2)
    assert ids(loaded) == ["b", "c"] and len(loaded.failed) == 1
    assert ids(load_problems(BENCH, data_path=file, limit=99)) == ["b", "c", "d"]
    with pytest.raises(BenchmarkError, match="limit=0 must be at least 1"):
        load_problems(BENCH, data_path=file, limit=0)


def test_ids_that_come_twice_are_told_apart(tmp_path: Path) -> None:
    loaded = load_problems(BENCH, data_path=write_parquet(tmp_path / "d.parquet", [row("a"), row("b"), row("a")]))
    assert ids(loaded) == ["a", "b", "a#2"] and "1 rows" in loaded.notes[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"split": "test"}, "answers of split 'test' are hidden.*use testmini, dev"),
        ({"split": "testmni"}, "unknown split 'testmni'; did you mean 'testmini'"),
        ({"data_path": "gone.parquet"}, "toy: gone.parquet: no such file"),
    ],
)
def test_what_cannot_be_loaded_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BenchmarkError, match=message):
        load_problems(BENCH, **changes)


def test_bad_files_are_refused(tmp_path: Path) -> None:
    file = write_parquet(tmp_path / "columns.parquet", [{"pid": "1", "question": "?", "solution": "4", "image": None}])
    with pytest.raises(BenchmarkError, match=r"no column answer; found: pid, question, solution, image"):
        load_problems(BENCH, data_path=file)
    file = write_parquet(tmp_path / "gold.parquet", [row("a", answer=""), row("b", answer="")])
    with pytest.raises(BenchmarkError, match=r"no gold answers.*splits with answers: testmini, dev"):
        load_problems(BENCH, data_path=file)
    file = write_parquet(tmp_path / "damaged.parquet", [row("a", image={"bytes": b"no", "path": None})])
    with pytest.raises(BenchmarkError, match=r"no usable row: row 0 \(a\)"):
        load_problems(BENCH, data_path=file)
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(BenchmarkError, match=r"empty.jsonl \[testmini\] has no rows"):
        load_problems(BENCH, data_path=tmp_path / "empty.jsonl")
    (tmp_path / "text.parquet").write_text("not parquet")
    with pytest.raises(BenchmarkError, match="unreadable parquet"):
        load_problems(BENCH, data_path=tmp_path / "text.parquet")


def test_a_computed_benchmark_needs_no_files() -> None:
    problems = [Problem(str(number), "?", "4", "number") for number in range(5)]
    loaded = load_problems(replace(BENCH, rows=lambda split: problems), limit=3)
    assert loaded.problems == tuple(problems[:3]) and loaded.split == "testmini"


def test_a_benchmark_of_ones_own_rows_asks_for_them() -> None:
    with pytest.raises(BenchmarkError, match="--data-path"):
        load_problems(replace(BENCH, sources=()))


def test_benchmarks_are_found_by_name() -> None:
    assert find_bench("MathVista") is BENCHES["mathvista"]
    assert find_bench("geometry3k-choices") is BENCHES["geometry3k_choices"]
    with pytest.raises(BenchmarkError, match=r"'mathvist': did you mean mathvista.*known: "):
        find_bench("mathvist")
    assert all(bench.name == name and bench.splits and bench.prompts for name, bench in BENCHES.items())
    assert all({"strict", "official"} <= set(bench.graders) for bench in BENCHES.values())


def test_the_registry_and_the_loader_load_nothing_heavy() -> None:
    heavy = {"torch", "transformers", "datasets", "PIL", "pyarrow", "matplotlib", "sympy"}
    program = f"import sys, eval.benches, eval.load; print(sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr
