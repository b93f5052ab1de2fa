"""LoRA adapters: which layers they are on, their gradient, and that nothing else is trained."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from tiny import MAX_PIXELS, MIN_PIXELS, load_tiny, mixed_samples, plain_distribution, random_rollouts
from tiny_families import RECIPES, load_family, save_family
from transformers import AutoModelForImageTextToText

from reopold_vl.collate import collate_rollouts
from reopold_vl.lora import AdapterError, as_pattern, target_layers
from reopold_vl.models import VisionLanguageModel, load_model
from reopold_vl.optim import build_optimizer
from reopold_vl.score import score_tokens
from reopold_vl.student import prepare_student
from reopold_vl.types import Prompt, Rollout
from reopold_vl.vision import vision_modules

PROJECTIONS = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


@pytest.fixture(scope="module")
def base(family: str, tiny_dirs: dict[str, Path]) -> Path:
    return tiny_dirs[family]


@pytest.fixture(scope="module")
def rollouts(vlm: VisionLanguageModel) -> list[Rollout]:
    return random_rollouts(vlm, [vlm.encoder(sample) for sample in mixed_samples()], n=2, seed=0)


# What is adapted


def test_adapters_are_on_the_language_models_linear_layers_and_change_nothing_yet(
    fresh_vlm: VisionLanguageModel, rollouts: list[Rollout]
) -> None:
    before = score_tokens(fresh_vlm, rollouts, rows_at_once=16).logprobs
    kind = type(fresh_vlm.policy.model)
    prepare_student(fresh_vlm, rank=2)
    model = fresh_vlm.policy.model
    assert type(model) is kind  # base_model, get_output_embeddings and the rest are as they were
    assert torch.equal(score_tokens(fresh_vlm, rollouts, rows_at_once=16).logprobs, before)
    adapted = {name for name, module in model.named_modules() if hasattr(module, "lora_A")}
    assert adapted and {name.rsplit(".", 1)[-1] for name in adapted} == PROJECTIONS
    assert all(name.startswith("model.language_model.layers.") for name in adapted)
    trainable = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert len(trainable) == 2 * len(adapted) and all(".lora_" in name for name in trainable)


@pytest.mark.parametrize(
    ("targets", "pattern"),
    [
        (("q_proj", "v_proj"), r"model\.language_model\.layers\.[012]\.self_attn\.[qv]_proj"),
        (("layers.1.mlp",), r"model\.language_model\.layers\.1\.mlp\.(gate|up|down)_proj"),
        (("visual.blocks.0.attn",), r"model\.visual\.blocks\.0\.attn\.(qkv|proj)"),
        (("visual.merger",), r"model\.visual\.merger\..*"),
        (("qkv",), r"model\.visual\.blocks\.\d\.attn\.qkv"),  # the language model has none
    ],
)
def test_targets_mean_what_they_name(targets: tuple[str, ...], pattern: str, vlm: VisionLanguageModel) -> None:
    model = vlm.policy.model
    linear = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
    expected = [name for name in linear if re.fullmatch(pattern, name)]
    assert expected and target_layers(model, targets) == expected


@pytest.mark.parametrize("targets", [(), ("layers.1",), ("layers.1.self_attn", "layers.2.mlp")])
def test_the_saved_pattern_names_the_targets_and_no_other_layer(
    targets: tuple[str, ...], vlm: VisionLanguageModel
) -> None:
    names = [name for name, _ in vlm.policy.model.named_modules()]
    layers = target_layers(vlm.policy.model, targets)
    pattern = as_pattern(layers, others=names)
    assert [name for name in names if re.fullmatch(pattern, name)] == layers
    assert targets or len(pattern) < 600  # as short for sixty layers


@pytest.mark.parametrize(
    ("target", "message"), [("c_attn", "there are down_proj, gate_proj, k_proj"), ("lm_head", "but the output head")]
)
def test_targets_that_cannot_be(target: str, message: str, fresh_vlm: VisionLanguageModel) -> None:
    with pytest.raises(AdapterError, match=message) as caught:
        prepare_student(fresh_vlm, rank=2, targets=(target,))
    assert f"student.lora.targets is '{target}'" in str(caught.value)


def test_the_seed_decides_the_adapters(base: Path) -> None:
    def weights(seed: int) -> list[torch.Tensor]:
        student = load_tiny(base)
        before = torch.get_rng_state()
        prepare_student(student, rank=2, seed=seed)
        assert torch.equal(torch.get_rng_state(), before)  # nothing else is drawn differently
        return [parameter for parameter in student.policy.parameters() if parameter.requires_grad]

    first, again, other = weights(1), weights(1), weights(2)
    assert all(map(torch.equal, first, again)) and not all(map(torch.equal, first, other))


# Training


def test_the_gradient_is_that_of_plain_peft(base: Path, rollouts: list[Rollout]) -> None:
    student = load_tiny(base)
    prepare_student(student, rank=2, alpha=8.0, seed=3)
    plain: Any = AutoModelForImageTextToText.from_pretrained(base)
    pattern = student.policy.model.peft_config["default"].target_modules
    wrapped = peft.get_peft_model(plain, peft.LoraConfig(r=2, lora_alpha=8, target_modules=pattern)).eval()
    ours = {name: weight for name, weight in student.policy.model.named_parameters() if weight.requires_grad}
    theirs = {name.removeprefix("base_model.model."): weight for name, weight in wrapped.named_parameters()}
    generator = torch.Generator().manual_seed(0)
    for name, weight in ours.items():
        weight.data = torch.randn(weight.shape, generator=generator) * 0.1
        theirs[name].data = weight.data.clone()
    batch = collate_rollouts(rollouts[:2], pad_id=student.pad_id)
    student.policy(batch, batch.mask).logprobs.sum().backward()
    torch.stack([plain_distribution(wrapped, r).log_prob(r.response_ids).sum() for r in rollouts[:2]]).sum().backward()
    for name, weight in ours.items():
        assert weight.grad is not None and theirs[name].grad is not None
        torch.testing.assert_close(weight.grad, theirs[name].grad, rtol=1e-4, atol=1e-4)


def test_an_update_moves_adapters_alone_and_rollouts_follow(
    fresh_vlm: VisionLanguageModel, prompts: list[Prompt], rollouts: list[Rollout]
) -> None:
    prepare_student(fresh_vlm, rank=4)
    frozen = {n: p.detach().clone() for n, p in fresh_vlm.policy.named_parameters() if not p.requires_grad}
    engine = fresh_vlm.engine(rows_at_once=16)
    before = engine.generate(prompts, n=2, max_new_tokens=6, seed=0)
    optimizer = build_optimizer(fresh_vlm.policy, lr=0.05, betas=(0.9, 0.999), weight_decay=0.0)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 2 * 7 * 3
    batch = collate_rollouts(rollouts, pad_id=fresh_vlm.pad_id)
    (-fresh_vlm.policy(batch, batch.mask).logprobs.sum()).backward()
    optimizer.step()
    assert all(torch.equal(p, frozen[n]) for n, p in fresh_vlm.policy.named_parameters() if n in frozen)
    after = engine.generate(prompts, n=2, max_new_tokens=6, seed=0)
    assert any(not torch.equal(a.response_ids, b.response_ids) for a, b in zip(before, after, strict=True))
    scored = score_tokens(fresh_vlm, after, rows_at_once=16).logprobs
    for row, rollout in zip(scored, after, strict=True):  # sampled from the very weights that are scored
        torch.testing.assert_close(row[: len(rollout.logprobs)], rollout.logprobs, rtol=0, atol=2e-5)


def test_dropout_is_in_the_gradient_pass_alone(fresh_vlm: VisionLanguageModel, rollouts: list[Rollout]) -> None:
    prepare_student(fresh_vlm, rank=4, dropout=0.5)
    for parameter in fresh_vlm.policy.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.2)
    batch = collate_rollouts(rollouts, pad_id=fresh_vlm.pad_id)
    still = [score_tokens(fresh_vlm, rollouts, rows_at_once=16).logprobs for _ in range(2)]
    assert torch.equal(*still)
    moving = [fresh_vlm.policy(batch, batch.mask).logprobs.detach() for _ in range(2)]
    assert not torch.equal(*moving) and not torch.equal(moving[0], still[0])


def test_adapters_stay_fp32_on_a_bf16_base(base: Path, rollouts: list[Rollout], tmp_path: Path) -> None:
    student = load_model(str(base), dtype="bfloat16", device="cpu", min_pixels=MIN_PIXELS, max_pixels=MAX_PIXELS)
    prepare_student(student, rank=2)
    dtypes = {parameter.requires_grad: parameter.dtype for parameter in student.policy.parameters()}
    assert dtypes == {True: torch.float32, False: torch.bfloat16}
    batch = collate_rollouts(rollouts[:2], pad_id=student.pad_id)
    student.policy(batch, batch.mask).logprobs.sum().backward()
    student.save(tmp_path / "half")  # and it is an adapter of the fp32 base as well: the same weights, rounded
    prepare_student(load_tiny(base), adapter=str(tmp_path / "half"))


@pytest.mark.parametrize("kind", RECIPES)
def test_every_family_is_adapted_saved_and_loaded(kind: str, tmp_path: Path) -> None:
    student = load_family(save_family(tmp_path / "base", kind, seed=0))
    model = student.policy.model
    rollouts = random_rollouts(student, [student.encoder(sample) for sample in mixed_samples()], n=1, seed=0)
    prepare_student(student, rank=2)
    adapted = [name for name, module in model.named_modules() if hasattr(module, "lora_A")]
    seeing = {id(module) for part in vision_modules(model) for module in part.modules()}
    assert adapted and not any(id(model.get_submodule(name)) in seeing for name in adapted)
    assert {"q_proj", "down_proj"} <= {name.rsplit(".", 1)[-1] for name in adapted}
    before = score_tokens(student, rollouts, rows_at_once=8).logprobs
    for parameter in student.policy.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.2)
    student.save(tmp_path / "adapter")
    after = score_tokens(student, rollouts, rows_at_once=8).logprobs
    assert not torch.equal(before, after)
    assert torch.equal(score_tokens(load_family(tmp_path / "adapter"), rollouts, rows_at_once=8).logprobs, after)
