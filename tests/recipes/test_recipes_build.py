"""A built directory: rows in their order, readable by `datasets` and by training, the same whatever made it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from building import built, encoded, files, kept_rows, picture, rejected, row, stream_of

from data_recipes.build import main
from data_recipes.builder import DiskFull
from data_recipes.manifest import read_manifest, verify
from data_recipes.types import RecipeError
from reopold_vl.data import load_samples


def mixed(number: int) -> dict:
    """Rows of which some are broken, double or without an answer."""
    if number % 17 == 5:
        return row(number, broken=True)
    if number % 13 == 4:
        return row(number, answer="")
    if number % 19 == 7:
        return row(number - 1, id=f"row-{number}", images=[encoded(picture(number - 1), "JPEG", quality=90)])
    return row(number, note=f"note {number}")


def test_rows_come_out_verbatim_with_what_was_computed_of_them(tmp_path: Path) -> None:
    jpeg = encoded(picture(1), "JPEG")
    rows = [
        row(0, answer=r"\boxed{\frac{1}{2}}", note="kept"),
        row(1, images=[jpeg], choices=("yes", "no"), answer="B"),
        row(2, images=[picture(2), encoded(picture(3))], question="Which of <image> and <image> is larger?"),
    ]
    manifest = built(rows, tmp_path / "out")
    one, two, three = kept_rows(tmp_path / "out")
    assert one["answer"] == r"\boxed{\frac{1}{2}}" and one["answer_normalised"] == "1/2"
    assert (one["answer_type"], two["answer_type"], three["answer_type"]) == ("expression", "choice", "integer")
    assert two["images"][0]["bytes"] == jpeg and two["choices"] == ["yes", "no"]
    assert [one["note"], two["note"]] == ["kept", None]
    assert [len(three[name]) for name in ("images", "image_sha256", "image_phash")] == [2, 2, 2]
    assert manifest["rows"] == {"read": 3, "kept": 3, "rejected": {}}
    assert verify(tmp_path / "out", manifest) == []


def test_datasets_and_training_read_it_as_it_is(tmp_path: Path) -> None:
    import datasets

    built(mixed, tmp_path / "out", num=70, shard_rows=20)
    loaded = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))["train"]
    samples = load_samples(tmp_path / "out").samples
    kept = kept_rows(tmp_path / "out")
    assert len(loaded) == len(samples) == len(kept) > 50
    assert len(list((tmp_path / "out" / "data").glob("train-*-of-00003.parquet"))) == 3
    one: Any
    for one, other, stored in zip(loaded, samples, kept, strict=True):
        assert one["id"] == other.id == stored["id"] and one["question"] == other.question
        assert one["images"][0].convert("RGB").size == (64, 64)
        assert other.images[0] == stored["images"][0]["bytes"] and other.answer == stored["answer"]
    refused = datasets.load_dataset(str(tmp_path / "out"), "rejected", cache_dir=str(tmp_path / "cache"))["train"]
    assert len(refused) == 70 - len(kept) and set(refused["filter"]) == {
        "unreadable", "missing_answer", "duplicate_question"
    }  # fmt: skip


def test_every_row_is_either_kept_or_listed_with_a_reason(tmp_path: Path) -> None:
    manifest = built(mixed, tmp_path / "out", num=100)
    out = rejected(tmp_path / "out")
    numbers = [one["number"] for one in kept_rows(tmp_path / "out")] + [one["number"] for one in out]
    assert sorted(numbers) == list(range(100))
    assert all(one["reason"] for one in out)
    counts = manifest["rows"]["rejected"]
    assert counts == {name: sum(one["filter"] == name for one in out) for name in counts}
    assert counts["unreadable"] == 6 and "this row is broken" in {one["reason"] for one in out}


def test_the_number_of_processes_changes_nothing(tmp_path: Path) -> None:
    alone = built(mixed, tmp_path / "alone", num=100, shard_rows=40)
    several = built(mixed, tmp_path / "several", num=100, shard_rows=40, num_proc=2)
    assert alone == several
    assert files(tmp_path / "alone") == files(tmp_path / "several")


def test_a_finished_directory_is_left_alone_and_another_setting_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "out"
    built(mixed, out, num=40)
    before = files(out)
    built(mixed, out, num=40)
    assert files(out) == before
    with pytest.raises(RecipeError, match="seed=0, now it is 1"):
        built(mixed, out, num=40, seed=1)
    built(mixed, out, num=40, seed=1, resume=False)
    assert read_manifest(out)["settings"]["seed"] == 1


def test_somebody_elses_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(RecipeError, match="not empty and holds no data set of ours"):
        built(mixed, tmp_path, num=5, resume=False)
    assert files(tmp_path) == {"thesis.txt": b"years of work"}


def test_a_licence_that_forbids_training_is_refused_unless_the_user_knows(tmp_path: Path) -> None:
    import dataclasses

    plain = stream_of([row(0)])
    stream = dataclasses.replace(plain, recipe=dataclasses.replace(plain.recipe, forbidden="test data only"))
    with pytest.raises(RecipeError, match=r"test data only .*--i-know"):
        built(stream, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert built(stream, tmp_path / "out", i_know=True)["built_against_licence"] is True
    assert "not allowed" in (tmp_path / "out" / "README.md").read_text()


def test_no_row_left_is_an_error_that_leaves_the_rejected_ones(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"no row is left of 3 \(missing_answer 3\)"):
        built([row(number, answer="") for number in range(3)], tmp_path / "out")
    assert len(rejected(tmp_path / "out")) == 3


def test_a_full_disk_is_one_line_and_the_build_goes_on_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    from data_recipes import writer

    real, calls = writer.os.fsync, []

    def full(file: int) -> None:
        calls.append(file)
        if len(calls) == 6:  # the second shard, of which one file is in its place already
            raise OSError(errno.ENOSPC, "No space left on device")
        real(file)

    monkeypatch.setattr(writer.os, "fsync", full)
    with pytest.raises(DiskFull, match="the first 64 rows are safe"):
        built(mixed, tmp_path / "out", num=100, shard_rows=40)
    assert not list((tmp_path / "out").rglob("*.tmp"))
    monkeypatch.undo()
    built(mixed, tmp_path / "out", num=100, shard_rows=40)
    built(mixed, tmp_path / "straight", num=100, shard_rows=40)
    assert files(tmp_path / "out") == files(tmp_path / "straight")


def test_a_disk_that_fails_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from data_recipes import finish

    def fails(*_: object, **__: object) -> None:
        raise OSError(5, "Input/output error")

    arguments = ["embedded", "--limit", "5", "--no-contamination", "--output-dir", str(tmp_path / "out")]
    with monkeypatch.context() as patched:
        patched.setattr(finish, "census", fails)
        assert main(arguments) == 1
    assert "Input/output error; once that is mended, run the same command again" in capsys.readouterr().err
    assert main(arguments) == 0
    assert main([*arguments[:-1], "/proc/nothing/here"]) == 2


def test_the_command_builds_the_embedded_task(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["embedded", "--limit", "40", "--no-contamination", "--output-dir", str(tmp_path / "out")]
    assert main(arguments) == 0
    assert "40 of 40 rows" in (shown := capsys.readouterr().out) and "not compared with any benchmark" in shown
    assert len(load_samples(tmp_path / "out").samples) == 40
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\n") and "config_name: default" in card and "| **kept** | **40** |" in card
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["origin"] and manifest["licence"] and len(manifest["files"][0]["sha256"]) == 64


def test_without_a_terminal_a_line_tells_now_and_then_how_far_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("data_recipes.builder.TELL_SECONDS", 0)
    built([row(number) for number in range(40)], tmp_path / "out")
    assert [line.split(": ")[1] for line in capsys.readouterr().err.splitlines()] == ["32 of 40 rows", "40 of 40 rows"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give one recipe"),
        (["geometry3"], "geometry3k"),
        (["geometry3k", "--mix", "x.yaml"], "give one recipe"),
        (["geometry3k", "--limt", "3"], "did you mean --limit"),
        (["geometry3k", "--limit", "0"], "limit is 0"),
        (["geometry3k", "--map", "question"], "THEIRS=OURS"),
        (["embedded", "--max-prompt-tokens", "9"], "processor is None"),
        (["embedded", "--teacher", "zoo:teacher", "--teacher-samples", "0"], "teacher_samples is 0"),
        (["embedded", "--teacher", "zoo:teacher", "--teacher-temperature", "0"], "1 at --teacher-temperature 0"),
        (["--restore", "typos", "--output-dir", "x"], "unknown filter 'typos'"),
        (["--restore", "contamination"], "--output-dir"),
        (["mathvista"], "--i-know"),
    ],
)
def test_bad_arguments_are_one_line(
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ") and len(captured.err.splitlines()) == 1 and message in captured.err
    assert not list(tmp_path.iterdir())


def test_the_list_names_every_recipe_and_what_is_forbidden(capsys: pytest.CaptureFixture[str]) -> None:
    from data_recipes.recipes import RECIPES

    assert main(["--list"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in RECIPES) and "TRAINING IS NOT ALLOWED" in shown


def test_help_is_quick_and_loads_nothing_heavy() -> None:
    import subprocess
    import sys

    program = """
import sys
from data_recipes import build, inspect
for command in (build, inspect):
    try:
        command.main(["--help"])
    except SystemExit as stop:
        assert not stop.code, stop.code
loaded = {name.split(".")[0] for name in sys.modules}
print("HEAVY", *sorted(loaded & {"torch", "transformers", "torchvision", "datasets", "pyarrow", "matplotlib", "PIL"}))
"""
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, cwd=root)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].split() == ["HEAVY"] and "--duplicate-image" in done.stdout


@pytest.mark.parametrize(
    ("words", "tag"),
    [
        ("MIT", "mit"),
        ("CC BY-NC-SA 4.0 (non-commercial)", "cc-by-nc-sa-4.0"),
        ("CC BY 4.0", "cc-by-4.0"),
        ("MIT (annotations); images under the licences of their sources", "other"),
        ("", "other"),
    ],
)
def test_the_card_names_a_licence_only_where_it_is_plainly_that(words: str, tag: str) -> None:
    from data_recipes.card import hub_licence

    assert hub_licence(words) == tag
