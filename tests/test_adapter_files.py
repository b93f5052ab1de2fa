"""Adapters on disk: plain peft's and ours, merged, and refused where they do not belong."""

from __future__ import annotations

import json
import runpy
import shutil
import sys
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file
from tiny import load_tiny, mixed_samples, plain_distribution, random_rollouts, save_tiny
from transformers import AutoModelForImageTextToText, AutoProcessor

from eval.identity import model_identity
from reopold_vl.lora import AdapterError
from reopold_vl.merge import merge
from reopold_vl.models import ModelError, VisionLanguageModel
from reopold_vl.score import score_tokens
from reopold_vl.student import prepare_student
from reopold_vl.types import Rollout


def trained_adapter(directory: Path, out: Path, **settings: Any) -> VisionLanguageModel:
    """A model with adapters that have been trained somewhere (random weights), saved to `out`."""
    student = load_tiny(directory)
    prepare_student(student, rank=3, alpha=6.0, seed=1, **settings)
    generator = torch.Generator().manual_seed(5)
    for parameter in student.policy.parameters():
        if parameter.requires_grad:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.2
    student.save(out)
    return student


@pytest.fixture(scope="module")
def base(family: str, tiny_dirs: dict[str, Path]) -> Path:
    return tiny_dirs[family]


@pytest.fixture(scope="module")
def adapter(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("adapters") / "student"
    trained_adapter(base, out)
    return out


@pytest.fixture(scope="module")
def rollouts(vlm: VisionLanguageModel) -> list[Rollout]:
    return random_rollouts(vlm, [vlm.encoder(sample) for sample in mixed_samples()], n=2, seed=0)


def assert_logprobs(model: VisionLanguageModel, rollouts: list[Rollout], plain: Any) -> None:
    """Ours equal those of a plain forward of `plain`, both in float64: in float32 each is off by up to 9e-6 itself."""
    for each in (model.policy.model, plain):
        each.double()
    ours = score_tokens(model, rollouts, rows_at_once=16).logprobs
    for row, rollout in zip(ours, rollouts, strict=True):
        with torch.no_grad():
            expected = plain_distribution(plain, rollout).log_prob(rollout.response_ids)
        torch.testing.assert_close(row[: len(expected)], expected, rtol=0, atol=1e-5)


def test_an_adapter_is_plain_pefts(adapter: Path, base: Path, rollouts: list[Rollout]) -> None:
    config = json.loads((adapter / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(base) and config["r"] == 3 and config["inference_mode"]
    assert (adapter / "adapter_model.safetensors").stat().st_size < (base / "model.safetensors").stat().st_size / 2
    plain = AutoModelForImageTextToText.from_pretrained(base)
    wrapped = peft.PeftModel.from_pretrained(plain, str(adapter)).eval()
    AutoProcessor.from_pretrained(adapter)
    loaded = load_tiny(adapter)
    untrained = score_tokens(load_tiny(base), rollouts, rows_at_once=16).logprobs
    assert float((score_tokens(loaded, rollouts, rows_at_once=16).logprobs - untrained).abs().max()) > 0.1
    assert_logprobs(loaded, rollouts, wrapped)


def test_an_adapter_of_plain_peft_is_ours(base: Path, rollouts: list[Rollout], tmp_path: Path) -> None:
    plain: Any = AutoModelForImageTextToText.from_pretrained(base)
    config = peft.LoraConfig(r=2, target_modules=["q_proj", "up_proj"], init_lora_weights=False)
    wrapped = peft.get_peft_model(plain, config).eval()
    wrapped.save_pretrained(str(tmp_path))
    loaded = load_tiny(tmp_path)  # the processor is the base's
    assert_logprobs(loaded, rollouts, wrapped)
    student = load_tiny(base)
    prepare_student(student, adapter=str(tmp_path), rank=2)
    assert_logprobs(student, rollouts, wrapped)


def test_training_goes_on_from_an_adapter(adapter: Path, base: Path, rollouts: list[Rollout], tmp_path: Path) -> None:
    student = load_tiny(base)
    prepare_student(student, adapter=str(adapter), dropout=0.1)
    saved = score_tokens(load_tiny(adapter), rollouts, rows_at_once=16).logprobs
    assert torch.equal(score_tokens(student, rollouts, rows_at_once=16).logprobs, saved)
    assert sum(parameter.requires_grad for parameter in student.policy.parameters()) == 2 * 7 * 3
    student.save(tmp_path / "again")
    again = score_tokens(load_tiny(tmp_path / "again"), rollouts, rows_at_once=16).logprobs
    assert torch.equal(again, saved)


@pytest.mark.parametrize("dtype", ["auto", "bfloat16"])
def test_merged_it_is_a_plain_model(
    dtype: str, adapter: Path, base: Path, rollouts: list[Rollout], tmp_path: Path
) -> None:
    merge(adapter, tmp_path / "merged", dtype=dtype)
    assert not list((tmp_path / "merged").glob("adapter*"))
    AutoProcessor.from_pretrained(tmp_path / "merged")
    plain: Any = AutoModelForImageTextToText.from_pretrained(tmp_path / "merged")
    assert not any("lora" in name for name, _ in plain.named_parameters())
    assert {weight.dtype for weight in plain.parameters()} == {torch.float32 if dtype == "auto" else torch.bfloat16}
    if dtype == "auto":
        assert_logprobs(load_tiny(adapter), rollouts, plain)
        assert_logprobs(load_tiny(tmp_path / "merged"), rollouts, plain)


# Refusals


def another(base: Path, tmp_path: Path, family: str, **settings: Any) -> Path:
    """Another base: by its weights, or by its shape."""
    return save_tiny(tmp_path / base.name, family, **settings)


def test_an_adapter_of_other_weights_is_refused_though_names_and_shapes_agree(
    adapter: Path, base: Path, family: str, tmp_path: Path
) -> None:
    other = another(base, tmp_path, family, seed=9)
    with pytest.raises(AdapterError, match="its weights are not those of") as caught:
        prepare_student(load_tiny(other), adapter=str(adapter))
    assert str(base) in str(caught.value) and str(other) in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(AdapterError, match="give it its own base"):
        merge(adapter, tmp_path / "merged", base=str(other))
    assert not (tmp_path / "merged").exists()


def test_a_moved_base_is_known_by_its_weights(adapter: Path, base: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(base, tmp_path / "elsewhere")
    prepare_student(load_tiny(moved), adapter=str(adapter))
    merge(adapter, tmp_path / "merged", base=str(moved))


def test_without_weights_to_compare_the_name_decides(adapter: Path, base: Path, family: str, tmp_path: Path) -> None:
    foreign = shutil.copytree(adapter, tmp_path / "foreign")
    (foreign / "base.json").unlink()
    prepare_student(load_tiny(base), adapter=str(foreign))
    with pytest.raises(AdapterError, match=r"was trained on .*, not on"):
        prepare_student(load_tiny(shutil.copytree(base, tmp_path / "elsewhere")), adapter=str(foreign))


def test_an_adapter_of_another_shape_is_refused(adapter: Path, base: Path, family: str, tmp_path: Path) -> None:
    foreign = shutil.copytree(adapter, tmp_path / "foreign")
    (foreign / "base.json").unlink()
    other = another(base, tmp_path, family, seed=0, hidden=64)
    with pytest.raises(AdapterError, match="does not fit") as caught:
        prepare_student(load_tiny(other), adapter=str(foreign))
    assert "\n" not in str(caught.value)


def broken(adapter: Path, directory: Path, fault: str) -> Path:
    copy = shutil.copytree(adapter, directory)
    config, weights = copy / "adapter_config.json", copy / "adapter_model.safetensors"
    values = json.loads(config.read_text())
    if fault == "no weights":
        weights.unlink()
    elif fault == "half the weights":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif fault == "no JSON":
        config.write_text("{")
    elif fault == "another kind":
        config.write_text(
            json.dumps({"peft_type": "IA3", "base_model_name_or_path": values["base_model_name_or_path"]})
        )
    elif fault == "no base":
        config.write_text(json.dumps({**values, "base_model_name_or_path": None}))
    elif fault == "base gone":
        config.write_text(json.dumps({**values, "base_model_name_or_path": "/nowhere/at/all"}))
    elif fault == "whole modules":
        config.write_text(json.dumps({**values, "modules_to_save": ["lm_head"]}))
    return copy


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("no weights", "adapter_model.safetensors cannot be read"),
        ("half the weights", "adapter_model.safetensors cannot be read"),
        ("no JSON", "adapter_config.json cannot be read"),
        ("another kind", "allowed is LORA"),
        ("no base", "names no base"),
        ("base gone", "its base is not there"),
        ("whole modules", "merge it first"),
    ],
)
def test_broken_adapters_are_one_line(fault: str, message: str, adapter: Path, tmp_path: Path) -> None:
    directory = broken(adapter, tmp_path / "broken", fault)
    with pytest.raises(ModelError, match=message) as caught:
        load_tiny(directory)
    assert str(directory) in str(caught.value) and "\n" not in str(caught.value)


def test_an_adapter_is_no_student_path_and_a_model_no_adapter(adapter: Path, base: Path) -> None:
    with pytest.raises(ModelError, match=r"give its base as student\.path"):
        prepare_student(load_tiny(adapter), rank=2)
    with pytest.raises(AdapterError, match=r"student\.adapter is .*adapter_config\.json"):
        prepare_student(load_tiny(base), adapter=str(base))
    with pytest.raises(AdapterError, match=r"student\.lora\.rank is 8, and the adapter .* has 3"):
        prepare_student(load_tiny(base), adapter=str(adapter), rank=8)


def test_the_command_merges_and_refuses(
    adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["merge", str(adapter), str(tmp_path / "merged")])
    monkeypatch.delitem(sys.modules, "reopold_vl.merge")
    runpy.run_module("reopold_vl.merge", run_name="__main__")
    assert (tmp_path / "merged" / "model.safetensors").is_file()
    with pytest.raises(SystemExit) as stop:
        runpy.run_module("reopold_vl.merge", run_name="__main__")
    assert stop.value.code == 2
    assert capsys.readouterr().err.strip().splitlines()[-1].endswith("is not empty: choose another directory")


def test_stored_answers_of_two_adapters_are_not_mixed_up(adapter: Path, base: Path, tmp_path: Path) -> None:
    again = shutil.copytree(adapter, tmp_path / "again")
    assert model_identity(str(again)) == model_identity(str(adapter)) != model_identity(str(base))
    student = load_tiny(adapter)
    next(p for n, p in student.policy.named_parameters() if "lora_B" in n).data += 1
    student.save(again)
    assert model_identity(str(again)) != model_identity(str(adapter))


def test_weights_that_were_gathered_elsewhere_are_saved_alike(adapter: Path, tmp_path: Path) -> None:
    """As the processes of a cut-up model do it: the module's own tensors are not what is written."""
    student = load_tiny(adapter)
    whole = {name: tensor.clone() for name, tensor in student.policy.model.state_dict().items()}
    student.policy.model.requires_grad_(False)
    for parameter in student.policy.model.parameters():
        parameter.zero_()
    student.save(tmp_path, state_dict=whole)
    saved, expected = (load_file(path / "adapter_model.safetensors") for path in (tmp_path, adapter))
    assert saved.keys() == expected.keys() and all(torch.equal(saved[name], expected[name]) for name in expected)
