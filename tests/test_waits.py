"""Who waits for the device, counted on a pretend GPU; and that every family runs on a device that is not the CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cli_help import ROOT
from tiny_families import RECIPES

from benchmarks import pretend_gpu
from benchmarks.figures.waits import Counts
from reopold_vl.rollout import hf
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
    assert sum(ours.values()) == 3  # log-probs, entropies, and the gradient's norm
    assert found.update == 1
    checks = 1 / hf.STEPS_BETWEEN_CHECKS["cuda"]
    # Windows and linear attention make their own of a mask of padding, and look at it.
    assert found.step == pytest.approx(checks + (family in ("gemma3", "qwen3_5")))
    if family in PLANNED and family not in ("qwen3_vl", "qwen3_5"):
        assert (found.scoring, found.gradient) == (2, 0)
    assert found.gradient <= 18  # in the others' towers, and where Qwen3-VL adds its deep-stack features


def test_the_pretend_gpu_notes_what_waits() -> None:
    """Each way to wait, and the ways not to."""
    assert "counted" in child(HERE / "pretend_waits.py")


def test_its_names_are_not_in_this_process() -> None:
    assert pretend_gpu.NAME not in hf.STEPS_BETWEEN_CHECKS
