"""Who waits for the device, counted on a pretend GPU; and that every family runs on a device that is not the CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from cli_help import ROOT
from tiny import mixed_samples, random_rollouts
from tiny_families import RECIPES, load_family, save_family

from benchmarks import pretend_gpu
from benchmarks.figures.waits import Counts
from reopold_vl.collate import collate_prompts
from reopold_vl.models import VisionLanguageModel
from reopold_vl.policy import Policy
from reopold_vl.rollout import hf
from reopold_vl.score import score_tokens
from reopold_vl.types import Prompt
from reopold_vl.visual_tokens import PLANNED

HERE = Path(__file__).parent
FAMILIES = (*RECIPES, "qwen2_5_vl", "qwen3_vl")
OWN = {path.name for path in (ROOT / "reopold_vl").rglob("*.py")}


def child(*args: object) -> str:
    """What a Python process prints: the pretend GPU takes a place that a process has once."""
    paths = os.pathsep.join(map(str, (ROOT, HERE)))
    done = subprocess.run(
        [sys.executable, *map(str, args)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def counts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return json.loads(child(HERE / "waits.py", tmp_path_factory.mktemp("waits")).splitlines()[-1])


@pytest.mark.parametrize("family", FAMILIES)
def test_nobody_waits_but_for_results(family: str, counts: dict[str, Any]) -> None:
    """A step's waits do not grow with tokens, layers or micro-batches; what transformers itself asks for is known."""
    found = Counts(**counts[family])
    assert found.error < 3e-5  # plain products instead of fused attention, in models with large logits
    ours = {where: times for where, times in found.where.items() if where.split(" in ")[-1].split(":")[0] in OWN}
    assert sum(ours.values()) == 3  # scores; the gradient's norm, and the losses, of three micro-batches
    assert found.other_answers == 0
    checks = 1 / hf.STEPS_BETWEEN_CHECKS["cuda"]
    assert found.step == pytest.approx(checks)
    if family in PLANNED:
        assert (found.scoring, found.gradient, found.update) == (1, 0, 2)
    assert found.gradient <= 18  # in the others' towers


@pytest.mark.parametrize("family", PLANNED)
def test_a_planned_tower_sees_what_it_saw(family: str, tmp_path: Path) -> None:
    """transformers' own way and ours, bit for bit, with pictures of several sizes."""
    model = load_family(save_family(tmp_path / family, family, seed=0))
    batch = collate_prompts([model.encoder(sample) for sample in mixed_samples()], pad_id=0)
    expected = model.policy.model.base_model.get_image_features(
        batch.vision["pixel_values"], batch.vision["image_grid_thw"], return_dict=True
    )
    found = model.policy.encode_images(batch)
    assert found is not None
    for ours, theirs in zip(found.pooler_output, expected.pooler_output, strict=True):
        assert torch.equal(ours, theirs)


def test_features_that_are_not_the_prompts_are_refused(vlm: VisionLanguageModel, prompts: list[Prompt]) -> None:
    """transformers' check would read numbers from the device; ours is made before."""
    batch = collate_prompts(prompts, pad_id=vlm.pad_id)
    more = collate_prompts([*prompts, prompts[0]], pad_id=vlm.pad_id).vision
    with pytest.raises(RuntimeError, match="split"):
        vlm.policy.read_prompts(replace(batch, vision=more))
    assert "get_placeholder_mask" not in vars(vlm.policy.model.base_model)


def test_masks_are_made_once_and_not_for_each_row(
    vlm: VisionLanguageModel, prompts: list[Prompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    """None where attention is plainly causal; one for all rows where no prompt is padded; numbers, not booleans."""
    seen: list[tuple[int, ...] | None] = []
    plain = Policy._attention_mask

    def spy(self: Policy, mask: Any, length: int, cache: Any, *, typed: bool) -> Any:
        found = plain(self, mask, length, cache, typed=typed)
        seen.append(None if found is None else tuple(found.shape))
        assert found is None or found.dtype == torch.float32
        return found

    monkeypatch.setattr(Policy, "_attention_mask", spy)
    for own in (prompts[:1], prompts):
        rollouts = random_rollouts(vlm, own, n=3, seed=0)
        score_tokens(vlm, rollouts, rows_at_once=64)
        vlm.engine(rows_at_once=64).generate(own, n=2, max_new_tokens=2, seed=0)
    longest = max(len(rollout.response_ids) for rollout in random_rollouts(vlm, prompts[:1], n=3, seed=0)) - 1
    one = len(prompts[0].ids)
    most = max(len(prompt.ids) for prompt in prompts)
    assert seen[:4] == [None, (1, 1, longest, one + longest), None, None]
    assert seen[4] == (4, 1, most, most) and seen[-1] == (8, 1, 1, most + 1)


def test_the_pretend_gpu_notes_what_waits() -> None:
    """Each way to wait, and the ways not to."""
    assert "counted" in child(HERE / "pretend_waits.py")


def test_its_names_are_not_in_this_process() -> None:
    assert pretend_gpu.NAME not in hf.STEPS_BETWEEN_CHECKS
