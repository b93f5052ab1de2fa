"""Training options: what is frozen, features that are kept, recomputed layers, and what is said where memory ends."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import MAX_PIXELS, MIN_PIXELS, load_tiny, mixed_samples, picture, random_rollouts
from tiny_families import RECIPES, save_family

from reopold_vl.collate import collate_prompts, collate_rollouts
from reopold_vl.config import ConfigError, LoRAConfig, OptimConfig, StudentConfig, TrainConfig
from reopold_vl.families import vision_tower
from reopold_vl.feature_cache import MB, FeatureCache, cache_metrics, content, images
from reopold_vl.models import ModelError, VisionLanguageModel, load_model
from reopold_vl.out_of_memory import what_to_lower
from reopold_vl.presets import EMBEDDED
from reopold_vl.recompute import recompute_layers
from reopold_vl.score import score_tokens
from reopold_vl.student import prepare_student
from reopold_vl.types import Prompt, VisualSample
from reopold_vl.vision import vision_trains


def gradients(model: VisionLanguageModel, prompts: list[Prompt]) -> dict[str, torch.Tensor]:
    """Of the log-probs of the same random answers; parameters without a gradient are left out."""
    rollouts = random_rollouts(model, prompts, n=2, seed=0)
    batch = collate_rollouts(rollouts, pad_id=model.pad_id)
    model.policy.zero_grad(set_to_none=True)
    model.policy(batch, batch.mask).logprobs.sum().backward()
    return {n: p.grad.clone() for n, p in model.policy.named_parameters() if p.grad is not None}


@contextmanager
def calls(module: Any) -> Iterator[list[int]]:
    """Counts the calls of a module while it is used."""
    seen = [0]

    def count(*_: object) -> None:
        seen[0] += 1

    handle = module.register_forward_pre_hook(count)
    yield seen
    handle.remove()


# Frozen vision


@pytest.mark.parametrize("tower", [False, True])
@pytest.mark.parametrize("projector", [False, True])
def test_tower_and_projector_freeze_apart(
    tower: bool, projector: bool, fresh_vlm: VisionLanguageModel, prompts: list[Prompt]
) -> None:
    whole = gradients(fresh_vlm, prompts)
    prepare_student(fresh_vlm, freeze_vision=tower, freeze_projector=projector)
    found = gradients(fresh_vlm, prompts)
    merging = {name for name in whole if "merger" in name}
    seeing = {name for name in whole if "visual" in name} - merging
    assert merging and seeing and len(whole) > len(merging) + len(seeing)
    gone = (seeing if tower else set()) | (merging if projector else set())
    assert set(found) == set(whole) - gone
    assert all(torch.equal(found[name], whole[name]) for name in found)
    assert vision_trains(fresh_vlm.policy.model) is not (tower and projector)


# Kept features


@pytest.fixture(params=[*RECIPES, "qwen2_5_vl", "qwen3_vl"])
def any_model(request: pytest.FixtureRequest, tmp_path: Path) -> VisionLanguageModel:
    path = save_family(tmp_path / request.param, request.param, seed=0)
    return load_model(str(path), device="cpu", min_pixels=MIN_PIXELS, max_pixels=MAX_PIXELS)


def test_kept_features_change_nothing_and_each_image_is_encoded_once(any_model: VisionLanguageModel) -> None:
    """In every family: log-probs, rollouts and gradients, with an image that comes again in another batch."""
    model = any_model
    model.policy.requires_grad_(False)
    tower = vision_tower(model.policy.model)
    for name, parameter in model.policy.named_parameters():
        parameter.requires_grad_("lm_head" in name or "embed_tokens" in name)
    prompts = [model.encoder(sample) for sample in mixed_samples()]
    rollouts = random_rollouts(model, prompts, n=2, seed=0)
    plain = score_tokens(model, rollouts, rows_at_once=16).logprobs
    slope = gradients(model, prompts)
    engine = model.engine(rows_at_once=16)
    answers = engine.generate(prompts, n=2, max_new_tokens=4, seed=0)
    model.policy.feature_cache = cache = FeatureCache(8)
    for order in (rollouts, rollouts[2:], rollouts):
        kept = score_tokens(model, order, rows_at_once=16).logprobs
        torch.testing.assert_close(kept, plain[-len(kept) :, : kept.shape[1]], rtol=0, atol=1e-5)
    assert cache.misses == len(cache) and cache.hits >= 3  # LLaVA-OneVision's tensors are padded to their batch
    with calls(tower) as seen:
        for name, gradient in gradients(model, prompts).items():
            torch.testing.assert_close(gradient, slope[name], rtol=1e-4, atol=1e-4)
        again = engine.generate(prompts, n=2, max_new_tokens=4, seed=0)
    assert seen == [0]
    for first, second in zip(answers, again, strict=True):
        assert torch.equal(first.response_ids, second.response_ids)


def test_results_do_not_depend_on_what_is_kept(fresh_vlm: VisionLanguageModel, prompts: list[Prompt]) -> None:
    """Bit for bit, so that a resumed run with an empty cache goes on as the one that was not stopped."""
    rollouts = random_rollouts(fresh_vlm, prompts, n=2, seed=0)
    fresh_vlm.policy.feature_cache = FeatureCache(8)
    cold = score_tokens(fresh_vlm, rollouts, rows_at_once=16).logprobs
    warm = score_tokens(fresh_vlm, rollouts, rows_at_once=16).logprobs
    fresh_vlm.policy.feature_cache = FeatureCache(8)
    score_tokens(fresh_vlm, rollouts[:3], rows_at_once=16)
    part = score_tokens(fresh_vlm, rollouts, rows_at_once=16).logprobs
    assert torch.equal(cold, warm) and torch.equal(cold, part)


def test_the_budget_holds_and_the_oldest_goes_first(fresh_vlm: VisionLanguageModel) -> None:
    samples = [VisualSample(str(i), "?", "1", (picture(56, 56, i),)) for i in range(4)]
    batches = [collate_prompts([fresh_vlm.encoder(sample)], pad_id=0) for sample in samples]
    cache = fresh_vlm.policy.feature_cache = FeatureCache(8)
    fresh_vlm.policy.encode_images(batches[0])
    size = cache.bytes
    assert size > 0 and cache_metrics({"student": cache, "teacher": None}) == {
        "features/student_hits": 0,
        "features/student_misses": 1,
        "features/student_mb": size / MB,
    }
    cache.limit = 2 * size
    for number in (1, 0, 2):  # 0 is used again, so 1 makes room for 2
        fresh_vlm.policy.encode_images(batches[number])
    assert (cache.hits, cache.misses, len(cache), cache.bytes) == (1, 3, 2, 2 * size)
    fresh_vlm.policy.encode_images(batches[0])
    assert cache.hits == 2
    fresh_vlm.policy.encode_images(batches[1])
    assert cache.misses == 4
    cache.limit = size - 1  # what does not fit is used and not kept
    fresh_vlm.policy.encode_images(batches[3])
    assert cache.misses == 5
    assert len(copy.deepcopy(cache)) == 0


def test_the_key_is_the_content() -> None:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(64, 12, generator=generator)
    grid = torch.tensor([[1, 8, 8]])
    base = content({"pixel_values": pixels, "image_grid_thw": grid})
    assert base == content({"image_grid_thw": grid.clone(), "pixel_values": pixels.clone()})
    keys = {base, content({"pixel_values": pixels, "image_grid_thw": torch.tensor([[1, 4, 16]])})}
    keys |= {
        content({"pixel_values": pixels.to(dtype), "image_grid_thw": grid}) for dtype in (torch.bfloat16, torch.half)
    }
    for changed in (pixels.flip(0), pixels.flip(1), pixels.roll(1, 0), -pixels, pixels.reshape(32, 24)):
        keys.add(content({"pixel_values": changed, "image_grid_thw": grid}))
    for place in range(768):  # the last bit of one value, and one pair of values exchanged
        other = pixels.clone().view(torch.int32)
        other.flatten()[place] += 1
        keys.add(content({"pixel_values": other.view(torch.float32), "image_grid_thw": grid}))
        swapped = pixels.clone().flatten()
        swapped[[place, place - 1]] = swapped[[place - 1, place]]
        keys.add(content({"pixel_values": swapped.view(64, 12), "image_grid_thw": grid}))
    assert len(keys) == 2 + 2 + 5 + 2 * 768
    two = {"pixel_values": torch.cat([pixels, -pixels]), "image_grid_thw": grid.repeat(2, 1)}
    first, second = images(two)
    assert content(first) == base != content(second)


def test_features_that_change_are_not_kept(tiny_dirs: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match=r"student\.feature_cache_mb is 64: allowed is 0 unless"):
        StudentConfig("zoo:student", feature_cache_mb=64, freeze_vision=True)
    StudentConfig("zoo:student", feature_cache_mb=64, freeze_vision=True, freeze_projector=True)
    StudentConfig("zoo:student", feature_cache_mb=64, lora=LoRAConfig(rank=4))
    directory = str(tiny_dirs["qwen2_5_vl"])
    student = load_model(directory, device="cpu", feature_cache_mb=1, min_pixels=MIN_PIXELS, max_pixels=MAX_PIXELS)
    with pytest.raises(ModelError, match=r"feature_cache_mb is set, but layers of the vision tower are trained"):
        prepare_student(student, rank=2, targets=("visual.blocks",))


# Recomputed layers


@pytest.mark.parametrize("lora", [False, True])
def test_recomputed_layers_give_the_same_gradients_and_rollouts(
    lora: bool, vlm: VisionLanguageModel, prompts: list[Prompt]
) -> None:
    kept, model = copy.deepcopy(vlm), copy.deepcopy(vlm)
    for each in (kept, model):
        prepare_student(each, rank=2 if lora else 0, dropout=0.0, gradient_checkpointing=each is model)
    layer = model.policy.model.base_model.language_model.layers[0].self_attn
    with calls(layer) as seen:
        ours = gradients(model, prompts)
    assert seen == [4]  # prompts and answers, each once more in the backward pass
    theirs = gradients(kept, prompts)
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    answers = [each.engine(rows_at_once=16).generate(prompts, n=2, max_new_tokens=5, seed=0) for each in (kept, model)]
    for one, other in zip(*answers, strict=True):
        assert torch.equal(one.response_ids, other.response_ids) and torch.equal(one.logprobs, other.logprobs)
    again = copy.deepcopy(model)  # the copy's layers are its own
    with calls(layer) as seen:
        gradients(again, prompts)
    assert seen == [0]


def test_recomputed_layers_keep_fewer_activations(fresh_vlm: VisionLanguageModel, prompts: list[Prompt]) -> None:
    batch = collate_rollouts(random_rollouts(fresh_vlm, prompts, n=4, seed=0), pad_id=fresh_vlm.pad_id)

    def saved() -> int:
        sizes: dict[int, int] = {}

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            fresh_vlm.policy(batch, batch.mask).logprobs.sum()
        return sum(sizes.values())

    before = saved()
    assert recompute_layers(fresh_vlm.policy.model) >= 5
    assert saved() < 0.6 * before


# Settings


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("student.lora.rank", {"rank": -1}),
        ("student.lora.alpha", {"rank": 4, "alpha": 0.0}),
        ("student.lora.dropout", {"rank": 4, "dropout": 1.0}),
    ],
)
def test_settings_of_lora_that_cannot_be(field: str, values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"{field} is {values[field.rsplit('.', 1)[1]]}: allowed is"):
        LoRAConfig(**values)


def test_out_of_memory_names_what_is_left_to_do_in_order() -> None:
    first = what_to_lower(EMBEDDED)
    order = ["optim.rows", "rollout.rows", "checkpointing", "max-pixels", "freeze-vision", "lora", "bfloat16", "device"]
    places = [next(i for i, flag in enumerate(first) if word in flag) for word in order]
    assert places == sorted(places) and "(now 128)" in first[0]
    lean = replace(
        EMBEDDED,
        student=StudentConfig("x/y", dtype="bfloat16", gradient_checkpointing=True, lora=LoRAConfig(rank=4)),
        teacher=replace(EMBEDDED.teacher, path="http://teacher:8000"),
        optim=OptimConfig(rows_at_once=1),
        rollout=replace(EMBEDDED.rollout, rows_at_once=4),
    )
    assert what_to_lower(lean) == [f"--images.max-pixels (now {TrainConfig().images.max_pixels})"]


def test_a_run_without_memory_ends_with_that_line(monkeypatch: pytest.MonkeyPatch, capsys: Any, tmp_path: Path) -> None:
    from reopold_vl import loop
    from reopold_vl.train import main

    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore")

    monkeypatch.setattr(loop, "train", full)
    assert main(["--output-dir", str(tmp_path)]) == 1
    error = capsys.readouterr().err.strip()
    assert "\n" not in error and "Tried to allocate 2.00 GiB" in error and "--student.gradient-checkpointing" in error


def test_load_tiny_has_no_cache(vlm: VisionLanguageModel, tiny_dirs: dict[str, Path]) -> None:
    assert vlm.policy.feature_cache is None and load_tiny(tiny_dirs["qwen2_5_vl"]).policy.feature_cache is None
