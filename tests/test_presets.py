"""Presets: whole configurations that need no download, with the published numbers."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from data_recipes.recipes import RECIPES
from reopold_vl.cli import parse
from reopold_vl.config import TrainConfig
from reopold_vl.config_file import read_config, write_config
from reopold_vl.objectives import Reopold
from reopold_vl.presets import CATALOGUE, EMBEDDED, PRESETS, listing

DOCS = Path(__file__).parents[1] / "docs"
# The paper's table of hyper-parameters (arXiv 2603.11137): steps, learning rate, lambda, beta, T_switch, rollouts a
# prompt, longest answer, batch, mini-batch.
PUBLISHED = {
    "math-1.5b": (300, 1e-5, 0.3, 0.2, 100, 8, 8192, 128, 32),
    "math-7b": (200, 3e-6, 0.3, 0.2, 50, 8, 8192, 128, 32),
    "qwen2.5-vl-3b": (60, 5e-6, 0.3, 0.2, 20, 12, 2048, 128, 64),
    "qwen2.5-vl-7b": (60, 5e-6, 0.3, 0.2, 20, 12, 2048, 128, 64),
    "agentic-3b": (40, 1e-6, 0.3, 0.4, 10, 8, 8192, 128, 64),
}


def numbers(config: TrainConfig) -> tuple[float, ...]:
    objective = config.objective
    assert isinstance(objective, Reopold) and objective.switch_step is not None
    return (
        config.steps,
        config.optim.lr,
        objective.mixture,
        objective.entropy_share,
        objective.switch_step,
        config.rollout.n,
        config.rollout.max_new_tokens,
        config.prompts_per_step,
        config.prompts_per_step // config.optim.updates_per_batch,
    )


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_paper_s_settings_are_the_paper_s(name: str) -> None:
    config = PRESETS[name]
    assert numbers(config) == PUBLISHED[name]
    assert config.optim.schedule == "constant" and config.optim.warmup_updates == 0
    assert config.data.require_image == name.startswith("qwen2.5-vl")
    if config.data.require_image:
        sizes = [re.findall(r"Qwen2.5-VL-(\d+)B", model.path) for model in (config.student, config.teacher)]
        assert sizes == [[name[-2]], ["32"]]


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_whole_and_survives_config_yaml(name: str, tmp_path: Path) -> None:
    """And so does one with a flag changed: nothing in it is validated only by chance."""
    config = PRESETS[name]
    for each in (config, replace(config, seed=7)):
        write_config(each, tmp_path / "config.yaml")
        assert read_config(tmp_path / "config.yaml") == each
    assert config.name == name and config == parse([name])[0]
    assert config.rollout.rows_at_once >= config.rollout.n
    # One prompt's answers fit into a gradient pass, or at least one answer does.
    assert config.optim.rows_at_once >= 1


def test_all_but_the_embedded_one_are_made_for_real_models() -> None:
    for name, config in PRESETS.items():
        if name != "embedded":
            assert config.optim.lr < EMBEDDED.optim.lr / 5
            assert config.teacher.dtype == "bfloat16" and config.student.gradient_checkpointing
            families = [re.sub(r"-\d+B.*", "", model.path) for model in (config.student, config.teacher)]
            assert families[0] == families[1] and families[0].startswith("Qwen/")  # one tokenizer
    one_gpu = PRESETS["qwen2.5-vl-3b-lora"].student
    assert one_gpu.adapts and one_gpu.dtype == "bfloat16"


def test_help_has_a_line_for_each(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["--help"])
    shown = capsys.readouterr().out
    assert len(listing().splitlines()) == len(PRESETS)
    for name, line in zip(PRESETS, listing().splitlines(), strict=True):
        assert line.split()[0] == name and len(line) < 96
        assert CATALOGUE[name].line in shown


def test_the_named_recipes_exist() -> None:
    for name, preset in CATALOGUE.items():
        named = re.sub(r"\(.*\)", "", preset.recipe).replace(" or ", " ").split()
        assert named and set(named) <= set(RECIPES), name


def test_the_page_shows_the_presets_numbers() -> None:
    page = (DOCS / "presets.md").read_text(encoding="utf-8")
    rows = {cells[1].strip(" `"): cells for line in page.splitlines() if len(cells := line.split("|")) > 8}
    for name, preset in CATALOGUE.items():
        cells = [cell.strip() for cell in rows[name][3:-1]]
        found = [*map(float, cells[:7]), *map(float, cells[7].split("/"))]
        assert tuple(found) == pytest.approx(numbers(preset.config))
        assert cells[8].replace("`", "") == preset.recipe
    assert rows.keys() - {"preset", "---"} == PRESETS.keys()
