"""Killed builds go on where they stopped: no row lost, none twice, the same bytes as without the kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from building import built, files, kept_rows, picture, row

from data_recipes.balance import choose, quotas
from data_recipes.build import main
from data_recipes.config import BuildConfig
from data_recipes.types import RecipeError

ROOT = Path(__file__).parents[2]


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


def dying_at(last: int):
    """Rows that repeat earlier ones across shards, and end the process at row `last`."""

    def make(number: int) -> dict:
        if number == last:
            raise Killed
        return row(number % 45 if number % 3 else number, id=f"row-{number}")

    return make


@pytest.mark.parametrize("last", [0, 33, 64, 97, 140, 199])
def test_a_build_that_died_goes_on_to_the_same_bytes(tmp_path: Path, last: int) -> None:
    built(dying_at(-1), tmp_path / "straight", num=200, shard_rows=30)
    with pytest.raises(Killed):
        built(dying_at(last), tmp_path / "out", num=200, shard_rows=30)
    built(dying_at(-1), tmp_path / "out", num=200, shard_rows=30, num_proc=1 + last % 2)
    assert files(tmp_path / "out") == files(tmp_path / "straight")


def test_duplicates_of_committed_rows_are_still_found_after_a_kill(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        built(dying_at(140), tmp_path / "out", num=200, shard_rows=30)
    built(dying_at(-1), tmp_path / "out", num=200, shard_rows=30)
    questions = [one["question"] for one in kept_rows(tmp_path / "out")]
    assert len(questions) == len(set(questions)) > 60


def test_a_torn_journal_line_is_not_believed(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        built(dying_at(140), tmp_path / "out", num=200, shard_rows=30)
    journal = tmp_path / "out" / ".build" / "shards.jsonl"
    journal.write_bytes(journal.read_bytes()[:-9])
    built(dying_at(-1), tmp_path / "out", num=200, shard_rows=30)
    built(dying_at(-1), tmp_path / "straight", num=200, shard_rows=30)
    assert files(tmp_path / "out") == files(tmp_path / "straight")


def test_other_settings_do_not_go_on_with_an_interrupted_build(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        built(dying_at(140), tmp_path / "out", num=200, shard_rows=30)
    with pytest.raises(RecipeError, match=r"shard_rows=30, now it is 31.*--no-resume"):
        built(dying_at(-1), tmp_path / "out", num=200, shard_rows=31)
    manifest = built(dying_at(-1), tmp_path / "out", num=200, shard_rows=31, resume=False)
    assert manifest["rows"]["read"] == 200


def test_other_settings_start_over_where_nothing_is_committed(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        built(dying_at(10), tmp_path / "out", num=200, shard_rows=30)
    built(dying_at(-1), tmp_path / "out", num=200, shard_rows=31)
    built(dying_at(-1), tmp_path / "straight", num=200, shard_rows=31)
    assert files(tmp_path / "out") == files(tmp_path / "straight")


def test_a_file_or_mixture_that_has_changed_is_not_gone_on_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture(1).save(tmp_path / "1.png")
    cells = '{"question": "How many?", "answer": "%d", "image": "1.png"}\n'
    data, mixture = tmp_path / "rows.jsonl", tmp_path / "recipe.yaml"
    mixture.write_text("- {recipe: local, data_path: rows.jsonl}\n- {recipe: embedded, limit: 3}\n")
    commands = [
        ["local", "--data-path", str(data), "--no-contamination", "--output-dir", str(tmp_path / "out")],
        ["--mix", str(mixture), "--no-contamination", "--output-dir", str(tmp_path / "mixed")],
    ]
    for count in (1, 2):
        data.write_text("".join(cells % number for number in range(count)))
        for command in commands:
            assert main(command) == (0 if count == 1 else 2)
    errors = capsys.readouterr().err.splitlines()
    assert sum("holds a finished data set with revision='sha256:" in line for line in errors) == 2
    data.write_text(cells % 0)
    assert main(commands[1]) == 0  # as it was
    mixture.write_text(mixture.read_text() + "  weight: 2\n")
    assert main(commands[1]) == 2


@pytest.mark.parametrize("step", ["move", "card", "sheet", "manifest"])
def test_a_kill_while_finishing_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    from data_recipes import card, contact_sheet, finish

    def die(*_: object, **__: object) -> None:
        raise Killed

    real, moved = os.replace, []

    def die_in_the_middle(source: Path, target: Path) -> None:
        if "data/train" in str(target) or "rejected/rejected" in str(target):
            moved.append(target)
            if len(moved) == 3:
                raise Killed
        real(source, target)

    target, name, stub = {
        "move": (finish.os, "replace", die_in_the_middle),
        "card": (card, "write_card", die),
        "sheet": (contact_sheet, "draw_sheet", die),
        "manifest": (finish.shutil, "rmtree", die),
    }[step]
    settings = {"num": 200, "shard_rows": 30, "max_share_source": 0.4}
    monkeypatch.setattr(target, name, stub)
    with pytest.raises(Killed):
        built(dying_at(-1), tmp_path / "out", **settings)
    monkeypatch.undo()
    built(dying_at(-1), tmp_path / "out", **settings)
    built(dying_at(-1), tmp_path / "straight", **settings)
    assert files(tmp_path / "out") == files(tmp_path / "straight")


def test_kill_minus_nine_in_the_middle_of_the_command(tmp_path: Path) -> None:
    flags = ["embedded", "--limit", "800", "--no-contamination", "--shard-rows", "96", "--output-dir"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "data_recipes.build", *flags, str(tmp_path / "out")]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)
    journal = tmp_path / "out" / ".build" / "shards.jsonl"
    end = time.monotonic() + 60
    while not (journal.exists() and journal.read_bytes().count(b"\n") >= 3):
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert journal.exists(), "it was done before the kill"
    assert main([*flags, str(tmp_path / "out")]) == 0
    assert main([*flags, str(tmp_path / "straight")]) == 0
    assert files(tmp_path / "out") == files(tmp_path / "straight")
    assert [one["number"] for one in kept_rows(tmp_path / "out")] == list(range(800))


def test_memory_does_not_grow_with_the_rows() -> None:
    from benchmarks.data_build import measure

    flags = ("--no-contamination", "--shard-rows", "300")
    small, large = (measure(rows, 1, flags) for rows in (200, 1200))
    assert large["kept"] == 1200
    # 1,000 rows more hold 20 MiB of decoded pixels.
    assert large["peak_mib"] < small["peak_mib"] + 12


def test_quotas_hold_the_share_and_leave_the_small_ones_alone() -> None:
    assert quotas({"a": 100, "b": 10, "c": 10}, 0.5) == {"a": 20, "b": 10, "c": 10}
    assert quotas({"a": 100, "b": 10}, 0.2) == {"a": 10, "b": 10}  # cannot be kept: equal then
    assert quotas({"a": 3, "b": 3, "c": 3}, 1 / 3) == {"a": 3, "b": 3, "c": 3}
    assert quotas({}, 0.5) == {}


def test_both_shares_hold_together_and_the_seed_draws_the_rows() -> None:
    rows = [(number, "ab"[number % 10 == 0], "xyz"[number % 3]) for number in range(600)]
    filters = BuildConfig(max_share_source=0.6, max_share_answer_type=0.4)
    out = choose(rows, filters, 0)
    left = [one for one in rows if one[0] not in out]
    for place, share in ((1, 0.6), (2, 0.4)):
        kinds = [one[place] for one in left]
        assert max(kinds.count(kind) for kind in set(kinds)) <= share * len(left) + 1e-9
    assert sum(one[1] == "b" for one in left) == 60  # the small source loses nothing
    assert choose(rows, filters, 0) == out != choose(rows, filters, 1)
