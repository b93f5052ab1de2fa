"""What the studies stand on: variants of the embedded pair, runs shared between studies, presets of several studies."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from reopold_vl.compare import runner
from reopold_vl.compare.__main__ import CompareConfig, chosen_studies
from reopold_vl.compare.runner import COPIED, StudyError, build_variants, copy_finished, finished, run_config
from reopold_vl.compare.studies import GROUPS, STUDIES, TUNED, TUNING
from reopold_vl.compare.study import VARIANT, Arm, Study, with_variants
from reopold_vl.config import ConfigError, StudentConfig, TrainConfig
from reopold_vl.config_file import write_config
from reopold_vl.presets import EMBEDDED
from reopold_vl.zoo.task import TYPES, final_answer, problem
from reopold_vl.zoo.variants import VARIANTS, build, fewer_for_more, in_words

PROBLEMS = [problem("train", index) for index in range(4 * len(TYPES))]


def test_the_wordy_style_has_the_same_answers_and_other_steps() -> None:
    for item in PROBLEMS:
        text = in_words(item, Random(0))
        assert final_answer(text) == item.sample.answer
        assert text.startswith("Think step by step. ") and f"The answer is {item.sample.answer}." in text
    count = next(item for item in PROBLEMS if item.sample.source == "count")
    marks = count.steps.split()[1].split("=")[0]  # "101,010;010"
    first, second, third = marks[:3], marks[4:7], marks[8:11]
    assert f"{first} and{second} in{third}=" in in_words(count, Random(0))


def test_the_mistaken_teacher_is_wrong_in_one_type_alone_and_only_in_its_conclusion() -> None:
    seen = set()
    for item in PROBLEMS:
        text = fewer_for_more(item, Random(0))
        if item.sample.source != "compare" or item.sample.answer == "same":
            assert text == item.steps
            continue
        wrong = final_answer(text)
        assert text.removesuffix(wrong) == item.steps.removesuffix(item.sample.answer or "")
        assert wrong != item.sample.answer and wrong in item.sample.question.replace("s ", " ")
        seen.add(wrong)
    assert len(seen) > 1


def test_a_variant_is_built_as_a_model_that_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AutoModelForImageTextToText

    from reopold_vl.sources import resolve

    monkeypatch.setitem(VARIANTS, "student-hasty", replace(VARIANTS["student-hasty"], samples=16))
    build("student-hasty", tmp_path / "student-hasty")
    paths = (resolve(str(tmp_path / "student-hasty")), resolve("zoo:student"))
    made, start = (AutoModelForImageTextToText.from_pretrained(path).state_dict() for path in paths)
    assert made.keys() == start.keys()
    assert any(not made[name].equal(start[name]) for name in made)
    assert [path.name for path in tmp_path.iterdir()] == ["student-hasty"]  # nothing half done is left


def test_paths_of_variants_become_directories_beside_the_studies(tmp_path: Path) -> None:
    study = replace(STUDIES["mismatch-error"], seeds=1)
    assert study.variants() == ["student-hasty", "teacher-mistaken"]
    config = run_config(study, study.arms[0], 0, tmp_path / "mismatch-error")
    assert config.student.path == str(tmp_path / "models" / "student-hasty")
    assert config.teacher.path == str(tmp_path / "models" / "teacher-mistaken")
    assert with_variants(EMBEDDED, tmp_path) == EMBEDDED
    assert all(set(study.variants()) <= set(VARIANTS) for study in STUDIES.values())


def test_a_variant_that_cannot_be_made_names_its_log(tmp_path: Path) -> None:
    base = replace(EMBEDDED, student=StudentConfig(f"{VARIANT}nosuch"))
    study = Study("s", "s", base, (Arm("a", "reverse_kl"),), seeds=1)
    with pytest.raises(StudyError, match=r"nosuch could not be made: see .*nosuch\.log"):
        build_variants(study, tmp_path / "s", jobs=1)
    assert "invalid choice" in (tmp_path / "models" / "nosuch.log").read_text()


def pretend(config: TrainConfig) -> None:
    """What of a finished run the runner looks at."""
    config.run_dir.mkdir(parents=True)
    write_config(config, config.run_dir / "config.yaml")
    (config.run_dir / "summary.json").write_text(json.dumps({"of": config.name}))


def test_a_run_of_the_same_settings_is_taken_over_from_another_study(tmp_path: Path) -> None:
    arms = (Arm("plain", "reverse_kl"), Arm("ours", "reopold"))
    first = Study("first", "first", EMBEDDED, arms, seeds=1)
    second = Study(
        "second", "second", EMBEDDED, (Arm("neither", "reverse_kl"), Arm("n", "reopold", {"mixture": 0.4})), 2
    )
    for arm in arms:
        pretend(run_config(first, arm, 0, tmp_path / "first"))
    wanted = [run_config(second, arm, seed, tmp_path / "second") for seed in (0, 1) for arm in second.arms]
    copy_finished(wanted, tmp_path / "second")
    assert [config.name for config in wanted if finished(config)] == ["neither-seed0"]
    copied = tmp_path / "second" / "runs" / "neither-seed0"
    assert (copied / COPIED).read_text().strip().endswith("first/runs/plain-seed0")
    assert run_config(second, second.arms[0], 0, tmp_path / "second").run_dir == copied  # its config.yaml fits
    shutil.rmtree(tmp_path / "first")
    copy_finished([config for config in wanted if not finished(config)], tmp_path / "second")  # not from itself
    assert sum(map(finished, wanted)) == 1


def test_learning_rates_were_chosen_on_seeds_that_no_study_reports() -> None:
    reported = {seed for study in STUDIES.values() if study is not TUNING for seed in study.all_seeds}
    assert not reported & set(TUNING.all_seeds)
    for objective, rate in TUNED.items():
        assert f"{objective} {rate:g}" in [arm.name for arm in TUNING.arms]


def test_a_preset_may_stand_for_several_studies() -> None:
    found = chosen_studies(CompareConfig(preset="mismatch", seeds=3))
    assert [study.name for study in found] == list(GROUPS["mismatch"])
    assert {study.seeds for study in found} == {3}
    with pytest.raises(ConfigError, match="name is 'own': allowed is none with mismatch"):
        chosen_studies(CompareConfig(preset="mismatch", name="own"))


def test_a_run_that_fails_leaves_its_output_in_the_log(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    assert runner.in_its_own_process(tmp_path / "run", tmp_path / "log") == 2
    assert "config.yaml" in (tmp_path / "log").read_text()


def test_named_evaluation_points() -> None:
    config = replace(EMBEDDED, steps=9, eval_every=2, eval_steps=(1, 4))
    assert [step for step in range(10) if config.measures(step)] == [0, 1, 4, 9]
    assert [step for step in range(10) if replace(config, eval_steps=()).measures(step)] == [0, 2, 4, 6, 8, 9]
    assert [step for step in range(10) if replace(config, eval_steps=(), eval_every=0).measures(step)] == [0, 9]
    with pytest.raises(ConfigError, match=r"eval_steps is 0, 10: allowed is 1 to steps \(9\)"):
        replace(config, eval_steps=(0, 10, 3))
