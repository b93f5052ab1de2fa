"""Every family passes its own check, and is counted from its configuration alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny import mixed_samples
from tiny_families import load_family, save_family

from reopold_vl.check import examine_pair
from reopold_vl.check.sizes import size_of, skeleton, trained
from reopold_vl.families import FAMILIES
from reopold_vl.teachers.local import LocalTeacher
from reopold_vl.vision import freeze_vision


@pytest.mark.parametrize("name", FAMILIES)
def test_a_model_as_its_own_teacher_is_green_and_counted_without_its_weights(name: str, tmp_path: Path) -> None:
    directory = save_family(tmp_path / name, name, seed=0)
    model = load_family(directory)
    report = examine_pair(model, LocalTeacher(model, rows_at_once=8), mixed_samples())
    assert [(result.name, result.status) for result in report.results if result.status != "ok"] == []
    assert report.shared_prompts and len(report.results) == 10
    (directory / "model.safetensors").unlink()
    told, loaded = skeleton(str(directory)), model.policy.model
    assert size_of(told) == size_of(loaded) and size_of(told).vision_layers >= 2
    assert size_of(told).parameters == sum(parameter.numel() for parameter in loaded.parameters())
    freeze_vision(loaded, tower=True, projector=False)
    trainable = sum(parameter.numel() for parameter in loaded.parameters() if parameter.requires_grad)
    assert trained(told, tower_fixed=True).trainable == trainable
