"""Real images of public benchmarks through tiny random Qwen2.5-VL and Qwen3-VL directories: two steps each."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from cli_help import read_lines
from PIL import Image
from tiny import save_tiny

from reopold_vl.data import load_samples
from reopold_vl.train import main

BENCHES = ("geometry3k", "clevr_count", "mathvision")


@pytest.fixture(scope="module")
def teachers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("teachers")
    return {
        name: save_tiny(root / name, name, seed=5, hidden=48, padded_vocab=7) for name in ("qwen2_5_vl", "qwen3_vl")
    }


@pytest.fixture
def train(family: str, tiny_dirs: dict[str, Path], teachers: dict[str, Path], tmp_path: Path):
    """Two steps on a file of rows; what the run wrote. The teacher's embedding is padded, as large models' are."""

    def run(data: Path, *flags: str) -> Path:
        pair = ("--student.path", str(tiny_dirs[family]), "--teacher.path", str(teachers[family]))
        small = ("--steps", "2", "--prompts-per-step", "2", "--rollout.n", "2", "--rollout.max-new-tokens", "6")
        small += ("--images.max-pixels", "20000", "--data.validation-rows", "1", "--data.test-rows", "1")
        where = ("--output-dir", str(tmp_path / "runs"), "--name", "real")
        assert main([*pair, *small, *where, "--data.path", str(data), *flags]) == 0
        return tmp_path / "runs" / (flags[-1] if "--name" in flags else "real")

    return run


Pairs = set[tuple[str, str | None]]


def check(run: Path, known: Pairs) -> None:
    records = read_lines(run / "metrics.jsonl")
    assert [record["step"] for record in records] == [0, 1, 2]
    for record in records[1:]:
        assert all(value is not None and math.isfinite(value) for value in record.values()), record
        assert record["reward/p01"] < record["reward/p90"] and record["optim/grad_norm"] > 0
        assert record["rollout/total"] == 4 * record["step"] and record["rollout/skipped_prompts"] == 0
    rollouts = read_lines(run / "sample_rollouts.jsonl")
    assert len(rollouts) == 8 and len({str(rollout["images"]) for rollout in rollouts}) <= 4  # of both steps
    for rollout in rollouts:
        # The page shows pictures where the markers stood, and choices below the question.
        asked = [question.replace("<image>", " ").strip() for question, gold in known if gold == rollout["gold"]]
        assert any(rollout["question"].startswith(question) for question in asked)
        assert rollout["images"] and 1 <= len(rollout["tokens"]) <= 6
    assert (run / "student" / "model.safetensors").is_file()


def known(data: Path) -> Pairs:
    """Question and answer of all rows, as the loader has them (tests/test_data.py compares these with the files)."""
    return {(sample.question, sample.answer) for sample in load_samples(data).samples}


@pytest.mark.parametrize("bench", BENCHES)
def test_two_steps_on_a_benchmark(bench: str, family: str, train, shared_dir: Path) -> None:
    # Over the two families every benchmark is read from both kinds of file.
    kind = "items.jsonl" if (family == "qwen3_vl") == (bench == "clevr_count") else "data.parquet"
    data = shared_dir / "samples" / bench / kind
    rows = len((data.parent / "items.jsonl").read_text().splitlines())
    assert len(load_samples(data).samples) == rows
    check(train(data), known(data))


def test_both_files_of_a_benchmark_train_alike(train, shared_dir: Path, tmp_path: Path) -> None:
    """The parquet holds the very pictures that the jsonl points to: same prompts, same losses."""
    folder = shared_dir / "samples" / "geometry3k"
    one = train(folder / "items.jsonl", "--name", "jsonl")
    two = train(folder / "data.parquet", "--name", "parquet")
    losses = [[record["loss"] for record in read_lines(run / "metrics.jsonl")[1:]] for run in (one, two)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_rows_in_the_manner_of_trl(family: str, train, shared_dir: Path, tmp_path: Path) -> None:
    """`prompt` messages with image parts beside an `images` column, a system turn, and two images in one row."""
    folder = shared_dir / "samples" / "geometry3k"
    items = [json.loads(line) for line in (folder / "items.jsonl").read_text().splitlines()]
    rows, pairs, shown = [], set(), {}
    for index, item in enumerate(items):
        images = [str(folder / name) for name in item["images"]]
        text = item["problem"].replace("<image>", "")
        if index % 2:
            images.append(str(folder / items[0]["images"][0]))
        content = [*({"type": "image"} for _ in images), {"type": "text", "text": text}]
        prompt = [{"role": "system", "content": "Think first."}, {"role": "user", "content": content}]
        rows.append({"prompt": prompt, "images": images, "answer": item["answer"]})
        pairs.add(("<image>" * len(images) + text, item["answer"]))
        shown[text.strip()] = len(images)
    path = tmp_path / "trl.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = train(path)
    check(run, pairs)
    for rollout in read_lines(run / "sample_rollouts.jsonl"):
        assert len(rollout["images"]) == shown[rollout["question"]]


def test_the_pixel_budget_holds(vlm, shared_dir: Path) -> None:
    """A picture takes no more visual tokens than the budget allows, in both families."""
    from dataclasses import replace

    folder = shared_dir / "samples" / "clevr_count"
    sample = load_samples(folder / "items.jsonl", limit=1).samples[0]
    assert isinstance(sample.images[0], Path)
    with Image.open(sample.images[0]) as image:
        assert image.width * image.height > 50_000
    for budget in (8_000, 20_000):
        prompt = replace(vlm.encoder, max_pixels=budget)(sample)
        tokens = int(prompt.token_types.sum())
        assert 0 < tokens * vlm.encoder.factor**2 <= budget
        assert tokens * vlm.encoder.factor**2 > budget / 3  # and the budget is used
