"""The vision study: other pictures, less to see, what a picture adds to a token; figures beside the run's own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import MAX_PIXELS, MIN_PIXELS, load_tiny, mixed_samples, picture, plain_distribution, save_tiny

from reopold_vl.compare import vision
from reopold_vl.compare.vision import VisionConfig, find_runs, main, study
from reopold_vl.compare.vision_measure import Advantages, Problems, advantage_figures, measure
from reopold_vl.compare.vision_report import to_markdown
from reopold_vl.compare.vision_summary import CONDITIONS, summarise
from reopold_vl.config import ConfigError, DataConfig, RolloutConfig, StudentConfig, TeacherConfig, TrainConfig
from reopold_vl.config.data import ImageConfig
from reopold_vl.config_file import write_config
from reopold_vl.degrade import degraded, with_other_pictures
from reopold_vl.grading import read_graded
from reopold_vl.loop import train
from reopold_vl.models import VisionLanguageModel
from reopold_vl.presets import EMBEDDED
from reopold_vl.teachers.local import LocalTeacher
from reopold_vl.types import Rollout, VisualSample
from reopold_vl.zoo.task import problems

TINY_RUN = replace(
    EMBEDDED,
    steps=1,
    prompts_per_step=4,
    save_every=0,
    data=DataConfig(validation_rows=0, test_rows=33),
    rollout=RolloutConfig(n=2, max_new_tokens=56),
)


def sample(name: str, source: str, *seeds: int) -> VisualSample:
    return VisualSample(name, "What is it?", "1", tuple(picture(56, 56, seed) for seed in seeds), source=source)


def test_another_picture_is_that_of_the_next_problem_of_the_same_type() -> None:
    samples = problems("test", 33)
    for place, found in enumerate(with_other_pictures(samples)):
        assert found is not None and found.images == samples[(place + 11) % 33].images
        assert replace(found, images=samples[place].images) == samples[place]


def test_another_picture_is_never_the_same_one_and_as_many() -> None:
    samples = [
        sample("a", "x", 1),
        sample("same picture", "x", 1),
        sample("other picture", "x", 2),
        sample("two", "x", 3, 4),
        sample("two more", "y", 5, 6),
        sample("alone of its type", "z", 7),
        sample("alone with three", "x", 1, 2, 3),
        VisualSample("none", "What is it?", "1", source="x"),
        VisualSample("none either", "What is it?", "1", source="x"),
    ]
    found = [None if one is None else one.images for one in with_other_pictures(samples)]
    wanted = (2, 2, 0, 4, 3, 0, None, None, None)
    assert found == [None if place is None else samples[place].images for place in wanted]


def test_pictures_in_files_are_told_apart_by_what_is_in_them(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        picture(32, 32, seed).save(tmp_path / f"{name}.png")
    files = [tmp_path / "a.png", tmp_path / "b.png", tmp_path / "c.png", tmp_path / "missing.png"]
    samples = [VisualSample(file.stem, "?", "1", (file,)) for file in files]
    assert [one and one.images for one in with_other_pictures(samples)] == [(files[i],) for i in (2, 2, 3, 0)]


def seen_by(model: VisionLanguageModel, samples: Sequence[VisualSample], threshold: float = 0.1) -> tuple[dict, Any]:
    """What is measured of a model that is its own teacher, and its tokens' figures."""
    pairs = zip(samples, with_other_pictures(samples), strict=True)
    swapped = {id(one): other for one, other in pairs if other is not None}
    looked = Advantages(model, LocalTeacher(model, rows_at_once=4), rows_at_once=4)
    found = measure(
        model, Problems(tuple(samples), swapped, 0, ()), looked, max_new_tokens=8, rows_at_once=4, threshold=threshold
    )
    return found, looked


def own_answers(model: VisionLanguageModel, samples: Sequence[VisualSample]) -> list[Rollout]:
    prompts, _ = model.encoder.encode_all(samples)
    return model.engine(rows_at_once=2).generate(prompts, n=1, max_new_tokens=8, seed=0, temperature=0.0)


def test_a_model_that_does_not_look_gains_nothing_and_answers_the_same(fresh_vlm: VisionLanguageModel) -> None:
    samples = [sample(str(seed), "x", seed) for seed in range(5)]
    before = fresh_vlm.answer(samples, max_new_tokens=8, rows_at_once=4)[0]
    visual = fresh_vlm.policy.model.model.visual
    mergers = [visual.merger, *getattr(visual, "deepstack_merger_list", [])]
    with torch.no_grad():
        for parameter in [parameter for merger in mergers for parameter in merger.parameters()]:
            parameter.zero_()
    answers = fresh_vlm.answer(samples, max_new_tokens=8, rows_at_once=4)[0]
    assert answers != before and len({str(answer) for answer in answers}) == 1
    assert answers[0] is not None
    gold = answers[0].text.strip()
    samples = [replace(one, answer=gold if int(one.id) % 2 else "no such answer") for one in samples]
    found, _ = seen_by(fresh_vlm, samples)
    verdicts = {found["conditions"][name]["verdicts"] for name in CONDITIONS if name != "removed"}
    assert len(verdicts) == 1 and "x" not in verdicts.pop()
    for kind in ("own", "teacher"):
        figures = found["visual_advantage"][kind]
        assert figures["tokens"] == sum(len(one.response_ids) for one in own_answers(fresh_vlm, samples))
        assert (figures["mean"], figures["positive_mean"], figures["share_above"]) == (0, 0, 0)


def test_visual_advantages_are_those_of_plain_transformers(vlm: VisionLanguageModel) -> None:
    samples = [one for one in mixed_samples() if one.images]
    found, looked = seen_by(vlm, samples)
    wanted = []
    for rollout in own_answers(vlm, samples):
        less = replace(rollout, prompt=vlm.encoder(degraded(rollout.prompt.sample, "pixelated")))
        with torch.no_grad():
            seen, blind = (
                plain_distribution(vlm.policy.model, one).log_prob(rollout.response_ids) for one in (rollout, less)
            )
        wanted.append(seen - blind)
    # Both sides have all tokens; the passes may have taken the answers in another order.
    tokens = torch.cat(wanted)
    for values in (looked.own, looked.judged):
        torch.testing.assert_close(torch.cat(values).sort()[0], tokens.sort()[0], rtol=1e-3, atol=2e-4)
    assert float(tokens.abs().max()) > 0.1
    figures = found["visual_advantage"]["own"]
    assert figures["mean"] == pytest.approx(float(tokens.mean()), abs=1e-4)
    assert figures["share_above"] == pytest.approx(float((tokens > 0.1).float().mean()))
    assert found["visual_advantage"]["teacher"] == pytest.approx(figures)


def test_figures_of_tokens_by_hand() -> None:
    values = [torch.tensor([2.0, -1.0]), torch.tensor([0.5, 0.5])]
    wanted = {"mean": 0.5, "positive_mean": 0.75, "share_above": 0.25, "tokens": 4}
    assert advantage_figures(values, 0.5) == wanted
    assert advantage_figures([], 0.5) is None


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A comparison's directory with one run, trained for a step, a second seed that is a copy, and an open one."""
    root = tmp_path_factory.mktemp("comparison")
    config = replace(TINY_RUN, output_dir=root / "runs", name="ours-seed0")
    train(config)
    shutil.copytree(root / "runs/ours-seed0", root / "runs/ours-seed1")
    write_config(replace(config, name="ours-seed1", seed=1), root / "runs/ours-seed1/config.yaml")
    (root / "runs/ours-seed2").mkdir()
    write_config(replace(config, name="ours-seed2", seed=2), root / "runs/ours-seed2/config.yaml")
    return root


def test_a_run_has_the_accuracies_of_its_own_tables(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = trained / "runs/ours-seed0"
    assert main([str(run), "--num", "33"]) == 0
    assert "| ours-seed0 | 1 | " in capsys.readouterr().out  # one that stands alone goes by its own name
    result = json.loads((run / "vision.json").read_text())
    figures = result["arms"]["ours-seed0"]
    for role in ("before", "after", "teacher"):
        graded = read_graded(run / f"test_{role}.jsonl")
        found = result["models"][result["runs"][0][role]]["conditions"]
        assert found["right"]["verdicts"] == "".join(str(int(one.correct)) for one in graded)
        assert figures[role]["right"]["mean"] == pytest.approx(sum(one.correct for one in graded) / 33)
        assert found["right"]["by_type"].keys() == {one.source for one in graded}
        assert found["swapped"]["num"] == 33
        low, high = figures[role]["right"]["low"], figures[role]["right"]["high"]
        assert low < figures[role]["right"]["mean"] < high
    # These models look: the picture is worth much to the teacher, and of its answers each token on average.
    teacher = figures["teacher"]
    assert teacher["right"]["mean"] > 0.8 > 0.4 > teacher["swapped"]["mean"]
    assert teacher["right_minus_swapped"]["mean"] == pytest.approx(
        teacher["right"]["mean"] - teacher["swapped"]["mean"]
    )
    assert teacher["own_advantage"]["mean"] > 0.5 and teacher["own_advantage"]["low"] is None
    assert teacher["own_advantage"] == teacher["teacher_advantage"]
    assert figures["change"]["right"]["mean"] == pytest.approx(
        figures["after"]["right"]["mean"] - figures["before"]["right"]["mean"]
    )
    assert (run / "vision.md").read_text() == to_markdown(result)
    assert (run / "vision.png").stat().st_size > 5_000


def test_a_comparison_measures_pair_and_data_once_and_goes_on(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    result = study(trained, VisionConfig(num=11))
    assert "1 not finished and left out: ours-seed2" in capsys.readouterr().out
    kept = sorted(path.name.split("-")[0] for path in (trained / "vision").glob("*.json"))
    assert kept == ["after", "after", "before", "teacher"]
    assert result["arms"]["ours"]["seeds"] == [0, 1] and result["unfinished"] == ["ours-seed2"]
    after = result["arms"]["ours"]["after"]["right"]
    assert after["over"] == "seeds" and len(after["values"]) == 2 and after["values"][0] == after["values"][1]
    assert result["arms"]["ours"]["before"]["right"]["over"] == "problems"

    measured: list[str] = []
    whole = vision._measured
    monkeypatch.setattr(
        vision, "_measured", lambda bench, run, roles: measured.append(run.directory.name) or whole(bench, run, roles)
    )
    assert study(trained, VisionConfig(num=11)) == result and measured == []
    capsys.readouterr()
    assert main([str(trained), "--num", "11", "--seeds", "1", "--output", str(trained / "one/seed.json")]) == 0
    assert measured == [] and (trained / "one/seed.md").is_file()
    weights = trained / "runs/ours-seed1/student/model.safetensors"
    weights.write_bytes(weights.read_bytes())  # trained again, as far as can be told
    study(trained, VisionConfig(num=11))
    assert measured == ["ours-seed1"]


def own_rows(root: Path) -> Path:
    """Eight rows in a file: two types, one row of text alone, one picture that is cut off behind its header."""
    rows = []
    for number in range(8):
        picture(56, 84, number).save(root / f"{number}.png")
        row = {"id": f"row {number}", "image": f"{number}.png", "question": "How many red squares?", "answer": "1"}
        rows.append({**row, "source": "odd" if number % 2 else "even"})
    cut = (root / "5.png").read_bytes()
    (root / "5.png").write_bytes(cut[: len(cut) // 2])
    del rows[2]["image"]
    path = root / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_rows_of_a_file_with_and_without_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = own_rows(tmp_path)
    run = tmp_path / "run"
    save_tiny(tmp_path / "student", "qwen2_5_vl", seed=0)
    save_tiny(tmp_path / "teacher", "qwen2_5_vl", seed=1)
    save_tiny(run / "student", "qwen2_5_vl", seed=2)
    config = TrainConfig(
        student=StudentConfig(path=str(tmp_path / "student")),
        teacher=TeacherConfig(path=str(tmp_path / "teacher")),
        data=DataConfig(path=str(rows), test_path=str(rows), validation_rows=0, test_rows=0, require_image=False),
        images=ImageConfig(min_pixels=MIN_PIXELS, max_pixels=MAX_PIXELS),
        rollout=RolloutConfig(n=2, max_new_tokens=6),
        prompts_per_step=2,
    )
    write_config(config, run / "config.yaml")
    (run / "summary.json").write_text("{}")
    assert main([str(run)]) == 0
    captured = capsys.readouterr()
    assert "on 7 test problems with a picture (1 without one left out)" in captured.out
    assert "Could not be shown to after of run and count as wrong: 1 of 7." in captured.out
    assert "unreadable" in captured.err + captured.out
    result = json.loads((run / "vision.json").read_text())
    conditions = result["models"][result["runs"][0]["after"]]["conditions"]
    # The fifth in the list is the damaged one; the picture that it gets in exchange is whole, its own is 3's partner.
    assert [conditions[name]["verdicts"].find("x") for name in CONDITIONS] == [4, -1, 2, 4]
    assert conditions["right"]["num"] == 7 and conditions["right"]["failed"] == 1
    model = load_tiny(run / "student")
    whole = [VisualSample("", "How many red squares?", "1", (picture(56, 84, n),)) for n in (0, 1, 3, 4, 6, 7)]
    tokens = sum(
        len(one.response_ids)
        for one in model.engine(rows_at_once=8).generate(
            [model.encoder(one) for one in whole], n=1, max_new_tokens=6, seed=0, temperature=0.0
        )
    )
    assert result["models"][result["runs"][0]["after"]]["visual_advantage"]["own"]["tokens"] == tokens


def model_of(key: str, right: str, swapped: str, advantage: float) -> dict[str, Any]:
    verdicts = {"right": right, "removed": "0000", "swapped": swapped, "pixelated": "x000"}
    conditions = {name: {"verdicts": marks, "failed": marks.count("x")} for name, marks in verdicts.items()}
    tokens = {"mean": advantage, "positive_mean": advantage, "share_above": 0.5, "tokens": 4}
    return {
        "key": key,
        "role": key,
        "run": "r",
        "num": 4,
        "without_picture": 0,
        "cpu_seconds": 1.0,
        "conditions": conditions,
        "visual_advantage": {"own": tokens, "teacher": None},
    }


def test_figures_of_a_comparison_by_hand() -> None:
    start, teacher = model_of("before", "1000", "1-00", 0.2), model_of("teacher", "1111", "0-00", 1.0)
    ends = [model_of("end 0", "1100", "0-00", 0.5), model_of("end 1", "1111", "0-01", 0.7)]
    runs = [
        {"arm": "a", "seed": seed, "directory": f"a-seed{seed}", "before": start, "after": end, "teacher": teacher}
        for seed, end in enumerate(ends)
    ]
    result = summarise(runs, title="t", threshold=1.0, unfinished=[])
    found = result["arms"]["a"]
    assert found["after"]["right"]["values"] == [0.5, 1.0] and found["after"]["right"]["mean"] == 0.75
    assert found["after"]["swapped"]["values"] == pytest.approx([0, 1 / 3])  # one of the four was not asked
    assert found["after"]["right_minus_swapped"]["values"] == pytest.approx([1 / 3, 2 / 3])  # over the same three
    assert found["change"]["right"]["values"] == [0.25, 0.75]
    assert found["change"]["own_advantage"]["mean"] == pytest.approx(0.4)
    assert found["after"]["teacher_advantage"] is None
    assert found["before"]["right"]["over"] == "problems" and found["change"]["right"]["over"] == "seeds"
    assert result["cpu_seconds"] == 4.0  # start and teacher once
    text = to_markdown(result)
    assert text.count("| student before |") == text.count("| teacher |") == 1
    assert "| a, after | 75.0 [50.0, 100.0] |" in text and "With so few seeds" in text


def test_bad_input_is_one_line(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cases = {
        (): "which run's or comparison's directory?",
        ("--num", "3"): "which run's or comparison's directory?",
        (str(tmp_path),): "neither a run (config.yaml) nor a comparison",
        (str(trained), "--num", "0"): "num is 0: allowed is 1 or more",
        (str(trained), "--numb", "1"): "did you mean --num?",
        (str(trained), "--arms", "our"): "did you mean ours?",
        (str(trained), "--seeds", "7"): "seeds is 7: allowed is 0, 1, 2",
        (str(trained), "--seeds", "2"): "no run is finished (ours-seed2)",
        (str(trained), "--output", "x.txt"): "output is x.txt: allowed is a file whose name ends in .json",
        (str(trained / "runs/ours-seed0"), "--arms", "ours"): "arms and seeds are for comparisons",
    }
    for argv, message in cases.items():
        assert main(list(argv)) == 2, argv
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1, (argv, error)
    with pytest.raises(ConfigError, match="no run is finished"):
        find_runs(trained, seeds=[2])
