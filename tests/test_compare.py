"""Comparisons: arms, curves and their costs by hand, runs that are kept, and one small study from end to end."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from comparison_cases import TINY

from reopold_vl.compare import runner
from reopold_vl.compare.__main__ import CompareConfig, choose, compare, main
from reopold_vl.compare.curves import Curve, cost_of, cost_ratio, curve_of, mean_interval, median, reached
from reopold_vl.compare.runner import StudyError, run_config, run_study
from reopold_vl.compare.studies import STUDIES
from reopold_vl.compare.study import Arm, Study, merged
from reopold_vl.config import ConfigError
from reopold_vl.config_file import to_dict

ARMS = (Arm("plain", "reverse_kl"), Arm("ours", "reopold", {"mixture": 0.2}))


def curve(*points: tuple[float, float], seed: int = 0) -> Curve:
    """Accuracies at numbers of rollouts; a rollout has 10 tokens and takes half a second."""
    accuracy, rollouts = zip(*points, strict=True)
    return Curve(seed, accuracy, rollouts, tuple(10 * r for r in rollouts), tuple(r / 2 for r in rollouts))


def test_an_arm_changes_what_it_names_and_nothing_else() -> None:
    arm = Arm("fast", "reopold", {"mixture": 0.1}, {"optim": {"lr": 1e-4}, "rollout": {"n": 8}})
    config = arm.configure(TINY)
    assert (config.objective.mixture, config.optim.lr, config.rollout.n) == (0.1, 1e-4, 8)  # pyright: ignore
    before, after = to_dict(TINY), to_dict(config)
    after["optim"]["lr"], after["rollout"]["n"] = before["optim"]["lr"], before["rollout"]["n"]
    assert {**after, "objective": 0} == {**before, "objective": 0}


@pytest.mark.parametrize(
    ("arm", "message"),
    [
        (Arm("a", "nosuch"), "arm a: objective.name is 'nosuch'"),
        (Arm("a", "reopold", {"mixture": 2}), "arm a: objective.mixture .* is 2"),
        (Arm("a", "reopold", {"mixtur": 0.2}), r"arm a: unknown setting objective\.mixtur .*mixture"),
        (Arm("a", "reopold", {}, {"optim": {"rate": 1}}), r"arm a: unknown setting optim\.rate"),
    ],
)
def test_an_arm_that_cannot_be_names_itself_and_the_setting(arm: Arm, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        arm.configure(TINY)


def test_studies_refuse_twins_and_unknown_references() -> None:
    with pytest.raises(ConfigError, match="two arms are called 'plain'"):
        Study("s", "s", TINY, (ARMS[0], ARMS[0]), seeds=1)
    with pytest.raises(ConfigError, match="reference is 'grpo': allowed are plain, ours"):
        Study("s", "s", TINY, ARMS, seeds=1, reference="grpo")


@pytest.mark.parametrize("name", STUDIES)
def test_every_named_study_builds_all_its_runs_on_the_same_prompts_and_budget(name: str) -> None:
    study = STUDIES[name]
    runs = [study.run(arm, 0) for arm in study.arms]
    assert len({run.name for run in runs}) == len(runs)
    budgets = {run.prompts_per_step * run.rollout.n * run.steps for run in runs}
    assert len(budgets) == 1
    assert len({(run.data, run.eval_every, run.seed, run.student) for run in runs}) == 1
    assert len({run.teacher for run in runs}) == (2 if name == "mismatch-control" else 1)


def test_merged_goes_down_into_dictionaries() -> None:
    assert merged({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 5}}) == {"a": {"b": 5, "c": 2}, "d": 3}


def test_a_curve_is_read_from_metrics() -> None:
    records = [
        {"step": 0, "rollout/total": 0, "validation/accuracy": 0.2},
        {"step": 1, "rollout/total": 8, "rollout/tokens": 100, "seconds/cpu": 1.5},
        {"step": 2, "rollout/total": 16, "rollout/tokens": 60, "seconds/cpu": 1.0, "validation/accuracy": 0.6},
    ]
    assert curve_of(records, 3) == Curve(3, (0.2, 0.6), (0, 16), (0, 160), (0, 2.5))
    records[1]["seconds/teacher_cpu"] = records[2]["seconds/teacher_cpu"] = 0.25
    assert curve_of(records, 3, without_scores=True).cpu_seconds == (0, 2.0)
    assert curve_of(records, 3).cpu_seconds == (0, 2.5)
    with pytest.raises(ValueError, match="seed 3 has no evaluation points"):
        curve_of(records[1:2], 3)


def test_cost_is_the_first_crossing_on_straight_lines() -> None:
    line = curve((0.2, 0), (0.6, 100), (0.5, 200), (0.9, 300))
    assert cost_of(line, 0.2) == 0
    assert cost_of(line, 0.4) == pytest.approx(50)
    assert cost_of(line, 0.7) == pytest.approx(250)
    assert cost_of(line, 0.7, "tokens") == pytest.approx(2500)
    assert cost_of(line, 0.7, "cpu_seconds") == pytest.approx(125)
    assert cost_of(line, 0.95) == math.inf


def test_runs_that_never_get_there_are_counted_and_not_dropped() -> None:
    curves = [curve((0.0, 0), (top, 100)) for top in (1.0, 0.8, 0.5, 0.4, 0.3)]
    found = reached(curves, 0.5)
    assert found.censored == 2 and found.total == 5
    assert found.median == pytest.approx(100)  # 50, 62.5, 100, never, never
    assert found.high == math.inf and "2 never" in str(found)
    assert str(reached(curves, 0.7)) == "not reached (3 of 5 runs never did)"


def test_the_ratio_is_of_medians_and_says_never() -> None:
    ours = [curve((0.0, 0), (1.0, rollouts)) for rollouts in (90, 100, 110)]
    theirs = [curve((0.0, 0), (1.0, rollouts)) for rollouts in (380, 400, 420)]
    ratio, low, high = cost_ratio(ours, theirs, 0.5)
    assert ratio == pytest.approx(4.0)
    assert 380 / 110 <= low <= 4 <= high <= 420 / 90
    never = [curve((0.0, 0), (0.1, 100))] * 3
    assert cost_ratio(ours, never, 0.5)[0] == math.inf
    assert cost_ratio(never, ours, 0.5) == (0.0, 0.0, 0.0)
    assert all(map(math.isnan, cost_ratio(never, never, 0.5)))
    ratio, low, _ = cost_ratio([*ours[:2], never[0]], theirs, 0.5)
    assert ratio == pytest.approx(4.0) and low == 0  # a draw of seeds that never get there is not left out


def test_intervals_cover_about_what_they_promise() -> None:
    generator = np.random.default_rng(1)
    hits = 0
    for _ in range(200):
        _, low, high = mean_interval(generator.normal(0.5, 0.1, size=12).tolist(), resamples=400)
        hits += low <= 0.5 <= high
    assert 0.85 <= hits / 200 <= 0.98  # a percentile bootstrap over twelve is a little too narrow
    assert median(np.array([3.0, math.inf, 1.0, math.inf])) == 3.0


def test_options_say_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cases = {
        (): "exactly one of --preset and --config",
        ("--preset", "quik"): "did you mean quick?",
        ("--preset", "quick", "--arms", "nosuch"): "arms is 'nosuch': allowed are reverse_kl, reopold",
        ("--preset", "quick", "--seeds", "0"): "seeds is 0: allowed is 1 or more",
        ("--preset", "quick", "--jobs", "0"): "jobs is 0: allowed is 1 or more",
        ("--config", str(tmp_path / "none.yaml"), "--arms", "reopold"): "does not exist",
        ("--preset", "quick", "--report-only", "--output-dir", str(tmp_path)): "4 runs are not finished",
    }
    for argv, message in cases.items():
        assert main(list(argv)) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1, argv


def test_a_selection_of_arms_keeps_the_reference_only_if_it_is_there() -> None:
    chosen = choose(CompareConfig(preset="headline", arms=("reopold", "sft"), seeds=2))
    assert [arm.name for arm in chosen.arms] == ["sft", "reopold"] and chosen.reference is None and chosen.seeds == 2
    assert choose(CompareConfig(preset="headline", arms=("reopold", "grpo"))).reference == "grpo"


def test_a_study_from_end_to_end_keeps_its_runs_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tmp_path = tmp_path / "small"  # beside it lie the baselines, and no other test's runs
    study = Study("small", "A small study", TINY, ARMS, seeds=1, reference="plain", thresholds=(0.5,))
    result = compare(study, tmp_path, jobs=2)
    assert json.loads((tmp_path / "comparison.json").read_text()) == json.loads(json.dumps(result))
    assert "| ours |" in capsys.readouterr().out and (tmp_path / "report.md").is_file()
    for picture in ("accuracy_rollouts", "accuracy_tokens", "accuracy_cpu_seconds", "watched", "tail"):
        assert (tmp_path / "plots" / f"{picture}.png").stat().st_size > 5_000
    entry = result["arms"]["ours"]
    # The table's figure is what the graded answers say.
    graded = [json.loads(line) for line in (tmp_path / "runs/ours-seed0/test_after.jsonl").read_text().splitlines()]
    assert entry["test_accuracy"]["mean"] == pytest.approx(sum(row["correct"] for row in graded) / 22)
    assert entry["runs"][0]["curve"]["rollouts"] == [0, 8, 16]
    assert entry["runs"][0]["curve"]["tokens"][-1] > 0 and entry["runs"][0]["curve"]["cpu_seconds"][-1] > 0
    assert entry["paired"]["plain"]["mean"] == pytest.approx(
        entry["test_accuracy"]["mean"] - result["arms"]["plain"]["test_accuracy"]["mean"]
    )
    # The teacher's share of the time is in the log, and R's tail is what the histogram says.
    record = json.loads((tmp_path / "runs/ours-seed0/metrics.jsonl").read_text().splitlines()[1])
    assert 0 < record["seconds/teacher_cpu"] < record["seconds/cpu"]
    bins = json.loads((tmp_path / "runs/ours-seed0/reward_histogram.jsonl").read_text().splitlines()[0])
    below = sum(count for edge, count in zip(bins["edges"][1:], bins["counts"], strict=True) if edge <= -5)
    assert record["reward/below_5"] == pytest.approx(below / sum(bins["counts"]))
    # Both arms were measured against one and the same start.
    plain, ours = (tmp_path / f"runs/{name}-seed0" for name in ("plain", "ours"))
    assert (plain / "test_teacher.jsonl").read_bytes() == (ours / "test_teacher.jsonl").read_bytes()

    started: list[str] = []
    monkeypatch.setattr(runner, "_train", lambda config, directory: started.append(config.name) or 0)
    run_study(study, tmp_path, jobs=1)
    assert started == []  # all is there
    (ours / "summary.json").unlink()
    run_study(study, tmp_path, jobs=1)
    assert started == ["ours-seed0"]

    other = replace(study, arms=(ARMS[0], Arm("ours", "reopold", {"mixture": 0.4})))
    with pytest.raises(ConfigError, match="ours-seed0 holds a run with other settings"):
        run_config(other, other.arms[1], 0, tmp_path)


def test_runs_that_fail_are_named_after_all_others_are_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = Study("small", "A small study", TINY, ARMS, seeds=2)
    done: list[str] = []

    def train(config, directory: Path) -> int:
        done.append(config.name)
        return int(config.name == "plain-seed0")

    monkeypatch.setattr(runner, "_train", train)
    with pytest.raises(StudyError, match=r"1 of 4 runs failed: plain-seed0 \(.*plain-seed0\.log\)"):
        run_study(study, tmp_path / "small", jobs=1)
    assert sorted(done) == ["ours-seed0", "ours-seed1", "plain-seed0", "plain-seed1"]
