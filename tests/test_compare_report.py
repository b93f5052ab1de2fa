"""What a comparison reports: differences on the same seeds, question types that fall, costs, pictures, the page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from comparison_cases import BEFORE, STEPS, TINY, write_study
from objective_cases import changed, random_batch
from PIL import Image, ImageColor

from reopold_vl.compare.__main__ import CompareConfig, choose
from reopold_vl.compare.curves import Curve, cost_ratio, ratio_text
from reopold_vl.compare.paired import SCORED_FOR_THE_LOG, pair_of, paired, rivals_of, to_teacher
from reopold_vl.compare.plots import draw_one, style_of
from reopold_vl.compare.report import TABLES, to_markdown
from reopold_vl.compare.results import HEAVIEST, main
from reopold_vl.compare.studies import STUDIES
from reopold_vl.compare.study import Arm, Study
from reopold_vl.compare.summary import command_of, summarise
from reopold_vl.compare.sweeps import swept
from reopold_vl.compare.tables import differences
from reopold_vl.objectives import OBJECTIVES

PAPER = {"mixture": 0.3, "entropy_share": 0.2, "switch_step": 20}
ARMS = (
    Arm("reopold", "reopold", PAPER),
    Arm("reverse_kl", "reverse_kl"),
    Arm("grpo", "grpo"),
    *(Arm(f"lambda {value}", "reopold", {**PAPER, "mixture": value}) for value in (0.1, 0.5)),
    Arm("exploration only", "reopold", {**PAPER, "switch_step": None}),
    Arm("both changed", "reopold", {**PAPER, "mixture": 0.1, "entropy_share": 1.0}),
)
STUDY = Study("small", "A small study", TINY, ARMS, seeds=3, reference="grpo", thresholds=(0.9,))
GAIN = {"reopold": 0.36, "reverse_kl": 0.35}


def after(arm: Arm, seed: int) -> dict[str, float]:
    """reopold beats reverse_kl by 0.5 or 1.5 points; grpo gets worse in one type of question, for every seed."""
    if arm.name == "grpo":
        return {"count": BEFORE["count"] + 0.1, "sum": BEFORE["sum"] - 0.02 - 0.005 * (seed % 2)}
    more = 0.005 * (seed % 2) * (1 if arm.name == "reopold" else -1)
    return {kind: before + GAIN.get(arm.name, 0.34) + more for kind, before in BEFORE.items()}


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of comparisons that holds the study, reported."""
    place = tmp_path_factory.mktemp("comparisons")
    write_study(STUDY, place / "small", after)
    found = summarise(STUDY, place / "small")
    (place / "small" / "comparison.json").write_text(json.dumps(found, allow_nan=False))
    return place


@pytest.fixture
def result(directory: Path) -> dict[str, Any]:
    return json.loads((directory / "small" / "comparison.json").read_text())


def test_paired_differences_by_hand_and_as_scipy_has_them() -> None:
    found = paired([0.9, 0.8, 0.7], [0.8, 0.8, 0.9])
    assert (found["wins"], found["ties"], found["losses"]) == (1, 1, 1)
    assert found["mean"] == pytest.approx(-0.1 / 3)
    assert found["p"] == 1.0 and paired([0.9] * 4, [0.8] * 4)["p"] == 0.125  # 2 of 16 signs
    stats = pytest.importorskip("scipy.stats")
    generator = np.random.default_rng(3)
    ours, theirs = generator.normal(0.9, 0.02, 8), generator.normal(0.88, 0.02, 8)
    found = paired(ours.tolist(), theirs.tolist())
    peer = stats.bootstrap((ours - theirs,), np.mean, method="percentile", n_resamples=20_000, random_state=generator)
    flips = stats.permutation_test((ours - theirs,), np.mean, permutation_type="samples", n_resamples=256)
    assert found["p"] == pytest.approx(flips.pvalue)
    wanted = [peer.confidence_interval.low, peer.confidence_interval.high]
    assert [found["low"], found["high"]] == pytest.approx(wanted, abs=0.0025)  # of an interval of 0.064


def test_the_interval_to_the_teacher_is_over_seeds_and_problems() -> None:
    """Of one seed as scipy's bootstrap over problems has it; of seeds that differ it is wider than over either."""
    generator = np.random.default_rng(3)
    teacher = generator.random(400) < 0.9
    student = np.where(generator.random(400) < 0.1, generator.random(400) < 0.5, teacher)
    found = to_teacher([student.tolist()], teacher.tolist())
    gaps = student.astype(float) - teacher
    stats = pytest.importorskip("scipy.stats")
    theirs = stats.bootstrap((gaps,), np.mean, method="percentile", rng=5).confidence_interval
    assert found["mean"] == pytest.approx(gaps.mean())
    assert (found["low"], found["high"]) == pytest.approx((theirs.low, theirs.high), abs=0.005)
    other = student & (generator.random(400) < 0.8)
    both = to_teacher([student.tolist(), other.tolist()], teacher.tolist())
    over_seeds = [float(gaps.mean()), float((other.astype(float) - teacher).mean())]
    assert both["values"] == pytest.approx(over_seeds)
    assert both["low"] < min(over_seeds) and both["high"] > max(over_seeds)


def test_many_pairs_of_arms_are_rows_of_their_own() -> None:
    changes = [{"optim": {"lr": rate}} for rate in (1e-3, 2e-3, 4e-3)]
    arms = {
        f"{objective} {k}": Arm(f"{objective} {k}", objective, {}, change)
        for k, change in enumerate(changes)
        for objective in ("reverse_kl", "reopold")
    }
    study = Study("s", "s", TINY, tuple(arms.values()), seeds=2)
    pairs = dict.fromkeys(arms, "one")
    gap = paired([0.5, 0.7], [0.4, 0.5])
    shown = {
        name: {"paired": {other.name: gap for other in rivals_of(study, arm, pairs)}} for name, arm in arms.items()
    }
    lines = differences({"seeds": 2}, shown)
    assert [line.split(" | ")[0:2] for line in lines[2:]] == [[f"| reopold {k}", f"reverse_kl {k}"] for k in range(3)]


def test_arms_are_compared_with_the_reference_and_reverse_kl_of_their_own_pair() -> None:
    other = {"teacher": {"path": "variant:wordy"}}
    fast = {"optim": {"lr": 1e-3}}
    arms = (
        Arm("grpo", "grpo"),
        Arm("plain", "reverse_kl"),
        Arm("plain, fast", "reverse_kl", {}, fast),
        Arm("fast", "reopold", {}, fast),
        Arm("plain, wordy", "reverse_kl", {}, other),
        Arm("wordy", "reopold", {}, other),
    )
    study = Study("s", "s", TINY, arms, seeds=1, reference="grpo")
    pairs = {arm.name: pair_of(study, arm) for arm in arms}
    found = {arm.name: [rival.name for rival in rivals_of(study, arm, pairs)] for arm in arms}
    assert found == {
        "grpo": ["plain"],
        "plain": ["grpo"],
        "plain, fast": ["grpo"],
        "fast": ["grpo", "plain, fast"],
        "plain, wordy": [],
        "wordy": ["plain, wordy"],
    }


def test_a_study_says_what_differs_what_falls_and_what_it_cost(result: dict[str, Any]) -> None:
    ours, grpo = result["arms"]["reopold"], result["arms"]["grpo"]
    against = ours["paired"]["reverse_kl"]
    assert against["mean"] == pytest.approx(0.01 + 0.01 / 3) and against["wins"] == 3  # seed 1 has more
    assert 0.01 - 1e-9 <= against["low"] <= against["mean"] <= against["high"] <= 0.02 + 1e-9
    assert {kind: each["falls"] for kind, each in grpo["by_type"].items()} == {"count": False, "sum": True}
    assert not any(each["falls"] for each in ours["by_type"].values())
    # Of ten CPU seconds a step four are the teacher's scores, which GRPO has no use for.
    assert (grpo["scores"], grpo["cpu_seconds"]["mean"]) == ("left out", 6 * STEPS)
    assert (ours["scores"], ours["cpu_seconds"]["mean"]) == ("needed", 10 * STEPS)
    assert result["cpu_hours"] == pytest.approx(10 * STEPS * 3 * len(ARMS) / 3600)
    # GRPO never gets to 90 %: the ratio is at least its budget over our cost.
    assert ours["reached"]["0.90"]["ratio"][0] is None and ours["reached"]["0.90"]["ratio_text"].startswith("above ")
    text = to_markdown(result)
    assert "| sum (200) | 60.0 | 95.0 |" in text and text.count("**falls**") == 1
    assert "is censored" in text and "| grpo | not reached (3 of 3 runs never did) |" in text
    assert "| reopold | " in text and "| 3 / 0 / 0 |" in text


def test_the_ratio_to_what_never_got_there_is_a_bound() -> None:
    def line(top: float) -> Curve:
        return Curve(0, (0.0, top), (0, 1000), (0, 1), (0, 1))

    fast, slow, never = [line(1.0)] * 3, [line(0.6)] * 3, [line(0.4)] * 3
    assert ratio_text(fast, never, cost_ratio(fast, never, 0.5), 0.5) == "above 2.0"  # 1,000 over 500
    assert ratio_text(fast, slow, cost_ratio(fast, slow, 0.5), 0.5) == "1.7 [1.7, 1.7]"
    assert ratio_text(never, fast, cost_ratio(never, fast, 0.5), 0.5) == "-"


@pytest.mark.parametrize("name", OBJECTIVES)
def test_scores_that_an_objective_has_no_use_for_are_named(name: str) -> None:
    """Other log-probs of the teacher change nothing of what is trained on, if and only if the list has the name."""
    objective: Any = OBJECTIVES[name]()
    batch = random_batch(6, 8, seed=1, dtype=torch.float32)
    other = changed(batch, lambda values: values, dims=())
    shift = torch.linspace(-3, 3, batch.rewards.numel()).reshape(batch.rewards.shape)
    other = type(batch)(
        **{
            **vars(batch),
            "rewards": batch.rewards + shift,
            "teacher_logprobs": batch.old_logprobs + batch.rewards + shift,
        }
    )
    signals = [objective(each, step=0) for each in (batch, other)]
    same = torch.equal(signals[0].mask, signals[1].mask)
    if hasattr(objective, "token_loss"):
        student, teacher = (
            torch.randn(48, 7, generator=torch.Generator().manual_seed(n)).log_softmax(-1) for n in (1, 2)
        )
        ids, old = torch.arange(48) % 7, torch.full((48,), -1.0)
        losses = [
            objective.token_loss(student, teacher, ids=ids, old_logprobs=old, advantages=signal.advantages.reshape(-1))
            for signal in signals
        ]
        same = same and torch.equal(losses[0], losses[1])
    else:
        same = same and torch.equal(signals[0].advantages[batch.mask], signals[1].advantages[batch.mask])
    assert same == (name in SCORED_FOR_THE_LOG)


def test_sweeps_take_arms_that_differ_in_one_setting(result: dict[str, Any]) -> None:
    found = {
        name: [(label, centre) for label, _, centre in swept(result, name)] for name in ("lambda", "T_switch", "n")
    }
    assert found == {
        "lambda": [("0.1", False), ("0.3", True), ("0.5", False)],
        "T_switch": [("20", True), ("never", False)],
        "n": [("2", True)],
    }


def test_pictures_are_small_and_arms_keep_their_colours(result: dict[str, Any], tmp_path: Path) -> None:
    for name in ("accuracy_cpu_seconds", "tail", "sweeps"):
        path = draw_one(result, name, tmp_path / f"{name}.png", dpi=60)
        assert path is not None and 2_000 < path.stat().st_size < HEAVIEST
    with Image.open(tmp_path / "accuracy_cpu_seconds.png") as image:
        pixels = np.unique(np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0).astype(int)
    for colour, _ in style_of(result).values():  # few colours make it small, but not these
        assert ((pixels - ImageColor.getrgb(colour)) ** 2).sum(1).min() < 45**2, colour
    many = {**result, "arms": {name: {} for name in ("reopold", "reverse_kl", *map(str, range(20)))}}
    assert len({*style_of(many).values()}) == 22
    assert style_of(many)["reopold"] == style_of(result)["reopold"]


def test_the_command_is_the_one_that_makes_the_study() -> None:
    for name, study in STUDIES.items():
        assert command_of(study) == f"python -m reopold_vl.compare --preset {name}"
    some = choose(CompareConfig(preset="ablation", arms=("neither", "lambda 0.1"), seeds=2))
    assert command_of(some) == "python -m reopold_vl.compare --preset ablation --arms neither 'lambda 0.1' --seeds 2"
    assert command_of(STUDY).startswith("python -m reopold_vl.compare --config CONFIG --arms reopold reverse_kl grpo ")


PAGE = """# Results

Words by hand.

<!-- study: small: accuracy, paired -->
old
<!-- end -->

More words.

<!-- figure: small: accuracy_rollouts -->
<!-- end -->
The end.
"""


def fill(directory: Path, page: Path, *flags: str) -> int:
    return main([str(directory), "--page", str(page), "--figures", str(page.parent / "figures"), *flags])


def test_a_page_is_filled_between_its_marks_and_again_to_the_same(directory: Path, tmp_path: Path) -> None:
    page = tmp_path / "results.md"
    page.write_text(PAGE)
    assert fill(directory, page) == 0
    text = page.read_text()
    assert "\nold\n" not in text and "Words by hand." in text and text.endswith("<!-- end -->\nThe end.\n")
    report = to_markdown(json.loads((directory / "small" / "comparison.json").read_text()))
    table = next(block for block in report.split("\n\n") if block.startswith("|  | minus grpo | p |"))
    assert table in text and "Made by `python -m reopold_vl.compare --config CONFIG" in text
    assert "| reopold | 91.2 [" in text and "minus teacher" in text and "question type" not in text
    assert "![A small study: accuracy rollouts](figures/small-accuracy_rollouts.png)" in text
    assert (tmp_path / "figures" / "small-accuracy_rollouts.png").stat().st_size < HEAVIEST
    assert fill(directory, page) == 0 and page.read_text() == text


def test_all_tables_of_a_study_and_its_use_of_the_picture(directory: Path, tmp_path: Path) -> None:
    from reopold_vl.compare.vision_summary import CONDITIONS

    names = (*CONDITIONS, "right_minus_swapped", "own_advantage", "own_share_above", "teacher_advantage")
    figures = {name: {"mean": 0.5, "low": 0.4, "high": 0.6} for name in names}
    arm = {"seeds": [0], **{role: figures for role in ("before", "after", "teacher", "change")}}
    shown = {"title": "small", "threshold": 1.0, "unfinished": [], "num": [22], "without_picture": [0]}
    text = json.dumps({**shown, "cpu_seconds": 1.0, "arms": {"reopold": arm}, "models": {}, "runs": []})
    (directory / "small" / "vision.json").write_text(text)
    page = tmp_path / "results.md"
    page.write_text("<!-- study: small -->\n<!-- end -->\n<!-- vision: small -->\n<!-- end -->\n")
    assert fill(directory, page) == 0
    found = page.read_text()
    captions = [line for line in found.split("\n") if line.startswith("**")]
    assert len(captions) == len(TABLES) and "right minus another's" in found and "\n# " not in found
    (directory / "small" / "vision.json").unlink()


@pytest.mark.parametrize(
    ("page", "flags", "message"),
    [
        (PAGE + "<!-- study: large -->\n<!-- end -->\n", (), "1 of 2 results are missing: .*large/comparison.json"),
        (PAGE.replace("paired", "pared"), (), "'pared' in .*did you mean paired"),
        (PAGE.replace("<!-- end -->", "", 1), (), "has <!-- study: small: accuracy, paired --> without <!-- end -->"),
        (PAGE.replace(": accuracy_rollouts", ""), (), "name a picture: accuracy_rollouts"),
        ("words\n", (), "it has no marks, such as"),
        (PAGE, ("--only", "large"), "it has no marks for large"),
    ],
)
def test_a_page_that_cannot_be_filled_stays_as_it_is(
    page: str, flags: tuple[str, ...], message: str, directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import re

    path = tmp_path / "results.md"
    path.write_text(page)
    assert fill(directory, path, *flags) == 2
    error = capsys.readouterr().err
    assert re.search(message, error) and error.count("\n") == 1
    assert path.read_text() == page
    assert main([]) == 2 and main([str(directory), "--page", str(tmp_path / "none.md")]) == 2
