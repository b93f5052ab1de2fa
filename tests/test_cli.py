"""The command line: help, presets, objectives, config files and one-line errors."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from cli_help import environment, refused, run_fresh

from reopold_vl.cli import parse
from reopold_vl.config import ConfigError
from reopold_vl.config_file import read_config, write_config
from reopold_vl.objectives import Reopold, ReverseKL
from reopold_vl.presets import PRESETS


def problem(*argv: str) -> str:
    """What the command says about bad arguments; one line."""
    with pytest.raises(ConfigError) as caught:
        parse(list(argv))
    message = str(caught.value)
    assert "\n" not in message and message
    return message


def test_without_arguments_the_embedded_preset_runs() -> None:
    config, resume = parse([])
    assert config == PRESETS["embedded"] and not resume
    assert (config.student.path, config.teacher.path, config.data.path) == ("zoo:student", "zoo:teacher", None)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_parse_by_name(name: str) -> None:
    assert parse([name]) == (PRESETS[name], False)


def test_presets_have_distinct_run_directories() -> None:
    directories = [config.run_dir for config in PRESETS.values()]
    assert len(set(directories)) == len(directories)


@pytest.mark.parametrize("objective", ["reopold", "reverse_kl"])
@pytest.mark.parametrize("name", PRESETS)
def test_config_reads_back_what_was_written(name: str, objective: str, tmp_path: Path) -> None:
    config, _ = parse([name, "--objective", objective, "--seed", "7", "--optim.betas", "0.8", "0.95", "--threads", "1"])
    write_config(config, tmp_path / "config.yaml")
    assert read_config(tmp_path / "config.yaml") == config
    assert parse(["--config", str(tmp_path / "config.yaml")]) == (config, False)
    assert type(config.objective) is {"reopold": Reopold, "reverse_kl": ReverseKL}[objective]
    assert config.optim.betas == (0.8, 0.95)


def test_a_config_file_is_plain_yaml(tmp_path: Path) -> None:
    write_config(replace(PRESETS["embedded"], trackers=("wandb",)), tmp_path / "config.yaml")
    text = (tmp_path / "config.yaml").read_text()
    assert "!!" not in text  # no Python tags: safe_load reads it
    values = yaml.safe_load(text)
    assert values["objective"]["name"] == "reopold" and values["trackers"] == ["wandb"]


def test_objective_none_values_survive(tmp_path: Path) -> None:
    config, _ = parse(["--objective.switch-step", "None"])
    assert isinstance(config.objective, Reopold) and config.objective.switch_step is None
    write_config(config, tmp_path / "config.yaml")
    assert read_config(tmp_path / "config.yaml") == config


def test_flags_override_preset_and_config(tmp_path: Path) -> None:
    base, _ = parse(["qwen2.5-vl-7b", "--seed", "3", "--objective.mixture", "0.4"])
    assert base.optim == PRESETS["qwen2.5-vl-7b"].optim and base.seed == 3
    write_config(base, tmp_path / "config.yaml")
    config, _ = parse(["--config", str(tmp_path / "config.yaml"), "--optim.lr", "0.001", "--student.path", "elsewhere"])
    assert config == replace(base, optim=replace(base.optim, lr=0.001), student=replace(base.student, path="elsewhere"))
    assert config.objective.mixture == 0.4  # pyright: ignore[reportAttributeAccessIssue]


def test_objective_flag_keeps_the_settings_of_the_same_objective(tmp_path: Path) -> None:
    config, _ = parse(["--objective", "reopold"])
    assert config.objective == PRESETS["embedded"].objective
    config, _ = parse(["--objective=reverse_kl"])
    assert config.objective == ReverseKL()
    write_config(config, tmp_path / "config.yaml")
    config, _ = parse(["--config", str(tmp_path / "config.yaml"), "--objective", "reopold"])
    assert config.objective == Reopold()


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--stepz", "3"], "did you mean --steps?"),
        (["--objective.mixtur", "0.2"], "did you mean --objective.mixture?"),
        (["--prompts_per_stp", "3"], "did you mean --prompts-per-step?"),
        (["--resum", "x"], "did you mean --resume?"),
        (["embeded"], "did you mean embedded?"),
        (["zzz"], "allowed are embedded, qwen2.5-vl-3b, qwen2.5-vl-7b"),
        (["--objective", "revers_kl"], "did you mean reverse_kl?"),
        (["--objective", "reverse_kl", "--objective.mixture", "0.2"], "unknown argument --objective.mixture"),
        (["qwen2.5-vl-7b", "--config", "x.yaml"], "both a preset (qwen2.5-vl-7b) and --config x.yaml"),
        (["--objective.mixture", "1.5"], "objective.mixture (lambda) is 1.5: allowed is 0 < mixture < 1"),
        (["--objective.mixture", "0"], "allowed is 0 < mixture < 1"),
        (["--objective.entropy-share", "0"], "objective.entropy_share (beta) is 0.0: allowed is 0 < share <= 1"),
        (["--objective.entropy-share", "1.01"], "allowed is 0 < share <= 1"),
        (["--objective.switch-step", "-1"], "objective.switch_step is -1"),
        (["--optim.lr", "2"], "optim.lr is 2.0: allowed is above 0 and below 1"),
        (["--optim.lr", "0"], "optim.lr is 0.0"),
        (["--optim.lr", "nan"], "optim.lr is nan"),
        (["--optim.lr", "fast"], "optim.lr is fast: allowed is a number"),
        (["--steps", "many"], "steps is many: allowed is a whole number"),
        (["--data.limit", "few"], "data.limit is few: allowed is a whole number or None"),
        (["--data.no-require-imag"], "did you mean --data.no-require-image?"),
        (["--no-require-image"], "did you mean --data.no-require-image?"),
        (["--optim.updates-per-batch", "40"], "1 to prompts_per_step (32)"),
        (["--student.dtype", "float33"], "float33"),
        (["--trackers", "mlflow"], "mlflow"),
        (["--steps", "0"], "steps is 0: allowed is 1 or more"),
        (["--rollout.n", "0"], "rollout.n is 0: allowed is 1 or more"),
        (["--seed", "-1"], "seed is -1"),
        (["--name", "../up"], "one directory name without a slash"),
        (["--images.max-pixels", "10"], "images.min_pixels"),
        (["--data.limit", "0"], "data.limit is 0"),
        (["--config", "absent.yaml"], "config file absent.yaml does not exist"),
        (["--config"], "--config needs a value"),
        (["--resume", "absent"], "no run lies there"),
        (["--steps"], "--steps"),
    ],
)
def test_bad_arguments_get_one_line(argv: list[str], said: str) -> None:
    assert said in problem(*argv)


@pytest.mark.parametrize(
    "argv",
    [
        ["--objective.mixture", "1.5"],
        ["--optim.lr", "2"],
        ["--objective", "revers_kl"],
        ["embeded"],
        ["--stepz=3"],
        ["--config", "absent.yaml"],
    ],
)
def test_the_process_ends_with_2_and_one_line(argv: list[str], tmp_path: Path) -> None:
    result = run_fresh(*argv, cwd=tmp_path, timeout=60)
    refused(result)
    assert result.stdout == "" and list(tmp_path.iterdir()) == []


HELP_PROBE = """
import sys
from reopold_vl.cli import parse
try:
    parse(["--help"])
except SystemExit as stop:
    heavy = {"torch", "transformers", "datasets", "matplotlib", "PIL"} & set(sys.modules)
    print("code", stop.code or 0, "heavy", sorted(heavy), file=sys.stderr)
"""


def test_help_shows_the_objective() -> None:
    result = run_fresh("--help", timeout=60)
    assert result.code == 0 and result.lines == []
    for part in ("J = (1 / sum M) sum_t rho_t A_t M_t", "A_t = max(R_t, log(lambda) / (1 - lambda))", "2603.11137"):
        assert part in result.stdout
    for flag in ("--objective.mixture", "--objective.entropy-share", "--resume", "--config", "reverse_kl", "embedded"):
        assert flag in result.stdout
    assert "lambda in (0, 1): sets the floor" in " ".join(result.stdout.replace("│", " ").split())


def test_help_is_quick_because_it_imports_nothing_heavy() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", HELP_PROBE], env=environment(), capture_output=True, text=True, timeout=60, check=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.stderr.split("\n")[-2] == "code 0 heavy []"
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert cpu < 2.0, f"--help took {cpu:.1f} s of CPU"  # wall clock would measure the machine's other work


def test_help_of_an_objective_shows_its_own_settings() -> None:
    result = run_fresh("--objective", "reverse_kl", "--help", timeout=60)
    assert result.code == 0 and "--objective.mixture" not in result.stdout


def test_resume_takes_no_flag_but_steps(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "one"
    run.mkdir(parents=True)
    config, _ = parse(["--output-dir", "far/away", "--name", "other", "--seed", "5"])
    write_config(config, run / "config.yaml")
    resumed, resume = parse(["--resume", str(run)])
    assert resume and resumed == replace(config, output_dir=run.parent, name="one")
    assert parse(["--resume", str(run), "--steps", "99"])[0] == replace(resumed, steps=99)
    assert "--seed cannot be combined with --resume" in problem("--resume", str(run), "--seed", "1")
    assert "cannot be combined" in problem("embedded", "--resume", str(run))
    assert "steps is x" in problem("--resume", str(run), "--steps", "x")
    assert "steps is 0" in problem("--resume", str(run), "--steps", "0")


@pytest.mark.parametrize("named", [".", "../one", "../one/", "sub/.."])
def test_resume_finds_the_run_however_it_is_named(named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "one"
    (run / "sub").mkdir(parents=True)
    write_config(PRESETS["embedded"], run / "config.yaml")
    monkeypatch.chdir(run)
    config, _ = parse(["--resume", named])
    assert config.run_dir.resolve() == run and config.name == "one"
    assert os.path.samefile(config.run_dir, run)
