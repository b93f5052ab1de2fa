"""Every family against plain transformers: log-probs, gradients, sampling, prompts, and what is refused."""

from __future__ import annotations

import inspect
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import mixed_samples, picture, plain_text_model
from tiny_families import load_family, save_family
from torch import nn

from benchmarks.parity import answers, gradient_error, gradients, measure, plain_distribution, plain_inputs
from reopold_vl import families
from reopold_vl.collate import collate_rollouts
from reopold_vl.families import FAMILIES, vision_tower
from reopold_vl.feature_cache import FeatureCache
from reopold_vl.models import ModelError, VisionLanguageModel
from reopold_vl.policy import Policy
from reopold_vl.prompts import PromptError, shrink_image
from reopold_vl.recompute import recompute_layers
from reopold_vl.rollout.hf import HFEngine
from reopold_vl.types import Rollout, VisualSample
from reopold_vl.vision import freeze_vision
from reopold_vl.visual_tokens import PatchProduct

NEW = 5  # tokens
TILED = [name for name, family in FAMILIES.items() if not family.grid]


@pytest.fixture(scope="module")
def directories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("families")
    return {name: save_family(root / name, name, seed=0) for name in FAMILIES}


@pytest.fixture(scope="module")
def models(directories: dict[str, Path]) -> dict[str, VisionLanguageModel]:
    return {name: load_family(path) for name, path in directories.items()}


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest, models: dict[str, VisionLanguageModel]) -> VisionLanguageModel:
    return models[request.param]


@pytest.fixture(scope="module")
def rollouts(model: VisionLanguageModel) -> list[Rollout]:
    """Two answers each to rows with one image, none, two of different sizes, and one with a long question."""
    return answers(model, mixed_samples(), n=2, seed=3)


def logprobs(model: VisionLanguageModel, rollouts: list[Rollout]) -> torch.Tensor:
    batch = collate_rollouts(rollouts, pad_id=model.pad_id)
    with torch.no_grad():
        return model.policy(batch, batch.mask).logprobs


def test_logprobs_gradients_and_tower_calls_are_those_of_plain_transformers(
    model: VisionLanguageModel, rollouts: list[Rollout]
) -> None:
    found = measure(model, rollouts)
    assert found.logprob_error <= 1e-5
    linear = model.policy.model.config.model_type == "qwen3_5"  # see the next test
    assert found.gradient_error <= (4e-4 if linear else 1e-4)
    assert found.tower_calls == 1.0  # with two answers to each prompt
    assert float(logprobs(model, rollouts).std()) > 0.1  # a test on uniform distributions would see nothing


@pytest.mark.parametrize("family", [name for name in FAMILIES if FAMILIES[name].grid])
def test_patches_are_embedded_as_by_their_convolution(family: str, directories: dict[str, Path]) -> None:
    embed = vision_tower(load_family(directories[family]).policy.model).patch_embed.proj.double()
    assert type(embed) is PatchProduct
    pixels = torch.randn(7, embed.in_channels, *embed.kernel_size, dtype=torch.float64)
    larger = pixels[:1].repeat(1, 1, 2, 2, 2)
    (ours, too), (theirs, other) = (
        (forward(embed, pixels), forward(embed, larger)) for forward in (PatchProduct.forward, nn.Conv3d.forward)
    )
    torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(too, other, atol=0, rtol=0)
    weights = list(embed.parameters())
    for mine, plain in zip(
        *(torch.autograd.grad(each.square().sum(), weights) for each in (ours, theirs)), strict=True
    ):
        torch.testing.assert_close(mine, plain, atol=1e-12, rtol=1e-12)


def test_gradients_through_the_states_of_linear_attention(
    directories: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prompts read once against prompts read with each answer, in double precision throughout.

    In fp32 a decay's gradient, whose parts cancel out, has an error of 1e-4 this way and 2e-4 the other way.
    """
    model = load_family(directories["qwen3_5"])
    model.policy.model.double()
    batch = collate_rollouts(answers(model, mixed_samples(), n=2, seed=3), pad_id=model.pad_id)
    model.policy.compute = torch.float64
    monkeypatch.setattr(torch, "float32", torch.float64)  # what is cast to float32 stays double
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    found = []
    for shares in (True, False):
        monkeypatch.setattr(Policy, "shares_prompts", lambda self, batch, shares=shares: shares)
        model.policy(batch, batch.mask).logprobs.square().sum().backward()
        found.append(gradients(model.policy.model))
    assert gradient_error(*found) < 1e-10


def test_layers_of_linear_attention_can_be_run_again(directories: dict[str, Path]) -> None:
    """Gradient checkpointing: a prompt's states and those that answers begin with are the same the second time."""
    model, found = load_family(directories["qwen3_5"]), []
    batch = collate_rollouts(answers(model, mixed_samples(), n=2, seed=3), pad_id=model.pad_id)
    for _ in range(2):
        model.policy(batch, batch.mask).logprobs.square().sum().backward()
        found.append(gradients(model.policy.model))
        assert recompute_layers(model.policy.model) > 0
    assert gradient_error(*found) < 1e-5


def test_a_single_token_does_not_go_through_linear_attention_by_itself(
    directories: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """For that transformers takes kernels without a backward pass, where they are installed."""
    model = load_family(directories["qwen3_5"])
    module = inspect.getmodule(type(model.policy.model))
    for name in ("torch_recurrent_gated_delta_rule", "causal_conv1d_update"):
        assert hasattr(module, name)
        monkeypatch.setattr(module, name, None)
    [prompt] = {id(each.prompt): each.prompt for each in answers(model, mixed_samples()[:1], n=1, seed=3)}.values()
    zeros = [torch.zeros(length) for length in (2, 1, 2)]
    batch = collate_rollouts([Rollout(prompt, z.long(), z, z, "length") for z in zeros], pad_id=model.pad_id)
    model.policy(batch, batch.mask).logprobs.sum().backward()
    assert all(weight.grad is not None for name, weight in model.policy.named_parameters() if "linear_attn" in name)


def test_prompts_are_those_of_the_processors_own_chat_template(model: VisionLanguageModel) -> None:
    system = VisualSample("s", "How many?", images=(picture(84, 84, 5),), system="answer: four")
    for sample in [*mixed_samples(), system]:
        ours, expected = model.encoder(sample), plain_inputs(model, sample)
        assert ours.ids.tolist() == expected["input_ids"][0].tolist()
        assert ours.vision.keys() == expected.keys() - {
            "input_ids",
            "attention_mask",
            "mm_token_type_ids",
            "token_type_ids",
        }
        for name, tensor in ours.vision.items():
            assert torch.equal(tensor, torch.as_tensor(expected[name])), name
        assert int(ours.token_types.sum()) == int((ours.ids == model.policy.model.config.image_token_id).sum())
        assert bool(ours.token_types.any()) == bool(sample.images)


def test_each_row_of_a_mixed_batch_is_the_same_alone(model: VisionLanguageModel, rollouts: list[Rollout]) -> None:
    together = logprobs(model, rollouts)
    for row, rollout in enumerate(rollouts):
        alone = logprobs(model, [rollout])[0]
        torch.testing.assert_close(together[row, : len(alone)], alone, rtol=0, atol=1e-5)


def test_sampling_equals_scoring_and_does_not_depend_on_the_batch(
    model: VisionLanguageModel, rollouts: list[Rollout]
) -> None:
    prompts = [rollout.prompt for rollout in rollouts[::2]]
    engine = HFEngine(model.policy, (-1,), model.pad_id, model.banned_ids, 64)
    sampled = engine.generate(prompts, n=2, max_new_tokens=NEW, seed=0)
    scored = logprobs(model, sampled)
    for row, rollout in enumerate(sampled):
        torch.testing.assert_close(rollout.logprobs, scored[row], rtol=0, atol=1e-5)
    one_by_one = replace(engine, rows_at_once=1).generate(prompts, n=2, max_new_tokens=NEW, seed=0)
    assert [r.response_ids.tolist() for r in one_by_one] == [r.response_ids.tolist() for r in sampled]


@torch.no_grad()
def test_greedy_answers_are_those_of_transformers_generate(model: VisionLanguageModel, rollouts: list[Rollout]) -> None:
    prompts = [rollout.prompt for rollout in rollouts[::2]]
    ours = model.engine(rows_at_once=64).generate(prompts, n=1, max_new_tokens=NEW, seed=0, temperature=0.0)
    for rollout in ours:
        inputs = plain_inputs(model, rollout.prompt.sample)
        made = model.policy.model.generate(
            **inputs, do_sample=False, max_new_tokens=NEW, suppress_tokens=list(model.banned_ids)
        )
        assert rollout.response_ids.tolist() == made[0, len(rollout.prompt.ids) :].tolist()


def test_cached_features_change_nothing(model: VisionLanguageModel, rollouts: list[Rollout]) -> None:
    cached = replace(model, policy=Policy(model.policy.model, feature_cache=FeatureCache(16)))
    expected = logprobs(model, rollouts)
    for _ in range(2):
        torch.testing.assert_close(logprobs(cached, rollouts), expected, rtol=0, atol=1e-5)
    cache = cached.policy.feature_cache
    assert cache is not None and cache.hits == cache.misses > 0


def test_one_changed_pixel_changes_this_prompt_alone(model: VisionLanguageModel, rollouts: list[Rollout]) -> None:
    sample = rollouts[0].prompt.sample
    image = sample.images[0].copy()
    red, green, blue = image.getpixel((30, 40))
    image.putpixel((30, 40), ((red + 128) % 256, green, blue))
    changed = model.encoder(replace(sample, images=(image,)))
    seen = [replace(r, prompt=changed) if r.prompt is rollouts[0].prompt else r for r in rollouts]
    moved = (logprobs(model, rollouts) - logprobs(model, seen)).abs().amax(1)
    assert float(moved[:2].max()) > 1e-5, moved
    assert float(moved[2:].max()) < 1e-6


def test_the_order_of_two_images_matters(model: VisionLanguageModel, rollouts: list[Rollout]) -> None:
    sample = rollouts[4].prompt.sample
    swapped = model.encoder(replace(sample, images=sample.images[::-1]))
    both = [rollouts[5], replace(rollouts[5], prompt=swapped)]
    first, second = logprobs(model, both)
    with torch.no_grad():
        expected = plain_distribution(model, both[1]).log_prob(both[1].response_ids)
    torch.testing.assert_close(second[: len(expected)], expected, rtol=0, atol=1e-5)
    assert float((first - second).abs().max()) > 1e-4


def test_saved_and_loaded_back_it_is_the_same(
    model: VisionLanguageModel, rollouts: list[Rollout], tmp_path: Path
) -> None:
    model.save(tmp_path)
    again = load_family(tmp_path)
    before, after = plain_inputs(model, rollouts[4].prompt.sample), plain_inputs(again, rollouts[4].prompt.sample)
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert torch.equal(logprobs(model, rollouts), logprobs(again, rollouts))
    assert again.banned_ids == model.banned_ids and again.eos_ids == model.eos_ids


def test_tower_and_projector_are_all_there_is_between_pixels_and_words(model: VisionLanguageModel) -> None:
    """Both frozen, exactly the language model learns; the tower alone frozen, the projector still does."""
    core = model.policy.model.base_model
    language = {id(p) for p in model.policy.model.get_decoder().parameters()}
    seeing = {name for name, p in core.named_parameters() if id(p) not in language}
    try:
        freeze_vision(model.policy.model, tower=True, projector=True)
        assert {name for name, p in core.named_parameters() if not p.requires_grad} == seeing
        core.requires_grad_(True)
        freeze_vision(model.policy.model, tower=True, projector=False)
        free = {name for name, p in core.named_parameters() if p.requires_grad and name in seeing}
        assert free and all(any(word in name for word in PROJECTING) for name in free), free
    finally:
        core.requires_grad_(True)


PROJECTING = ("merger", "downsample", "connector", "multi_modal_projector", "image_newline")


def test_visual_tokens_are_within_the_budget(model: VisionLanguageModel) -> None:
    """Fewer pixels, fewer tokens, however the family cuts its images; a single tile is always allowed."""
    sample = VisualSample("a", "How many?", images=(picture(250, 250, 0),))
    large, small = (replace(model.encoder, min_pixels=1, max_pixels=side**2)(sample) for side in (96, 32))
    if model.encoder.family == "gemma3":  # always as many
        assert len(large.ids) == len(small.ids)
    else:
        assert 0 < int(small.token_types.sum()) < int(large.token_types.sum())
    assert not torch.equal(large.vision["pixel_values"], small.vision["pixel_values"])


@pytest.mark.parametrize("family", ["smolvlm", "idefics3", "internvl"])
@pytest.mark.parametrize(("size", "tiles"), [((320, 100), 3), ((90, 250), 2), ((64, 64), 1), ((200, 200), 4)])
def test_tiles_are_no_more_than_the_budget(
    family: str, size: tuple[int, int], tiles: int, models: dict[str, VisionLanguageModel]
) -> None:
    """These processors enlarge small images: less of an image is not fewer tiles. The overview is not counted."""
    encoder = replace(models[family].encoder, max_pixels=tiles * 32 * 32 + 100)
    pixels = encoder(VisualSample("a", "How?", images=(picture(*size, 0),))).vision["pixel_values"]
    found = pixels.shape[0] if family == "internvl" else pixels.shape[1]
    assert 1 <= found <= (tiles + 1 if tiles > 1 else 1)


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (900, 3), (31, 33)])
def test_odd_shapes_are_prompts_or_are_refused_by_name(model: VisionLanguageModel, size: tuple[int, int]) -> None:
    prompts, reasons = model.encoder.encode_all([VisualSample("row 7", "How?", images=(picture(*size, 0),))])
    assert len(prompts) + len(reasons) == 1 and all("row 7" in reason for reason in reasons)
    for prompt in prompts:
        rollout = Rollout(prompt, torch.tensor([5]), torch.zeros(1), torch.zeros(1), "length")
        assert logprobs(model, [rollout]).isfinite().all()


def test_placeholders_in_the_text_are_refused_but_our_marker_is_not(model: VisionLanguageModel) -> None:
    token = model.tokenizer.decode([model.policy.model.config.image_token_id])
    assert model.encoder.image_token_id in model.banned_ids
    with pytest.raises(PromptError, match="row 7: the question contains the special token"):
        model.encoder(VisualSample("row 7", "How many?", system=f"Look at {token}"))
    marked = model.encoder(VisualSample("a", "In <image>, how many?", images=(picture(84, 84, 0),)))
    assert int(marked.token_types.sum()) > 0


def test_images_are_shrunk_in_their_own_shape_and_never_enlarged() -> None:
    image = picture(300, 100, 0)
    assert shrink_image(image, 30_000) is image
    assert shrink_image(image, 7_500).size == (150, 50)
    assert shrink_image(picture(900, 1, 0), 30).size == (164, 1)


@pytest.mark.parametrize("family", ["qwen2_5_vl", "idefics3"])
def test_a_pair_with_different_padded_vocabularies(family: str, directories: dict[str, Path], tmp_path: Path) -> None:
    student, teacher = (
        load_family(directories[family]),
        load_family(save_family(tmp_path, family, seed=1, padded_vocab=64)),
    )
    rows = [vlm.policy.model.get_output_embeddings().weight.shape[0] for vlm in (student, teacher)]
    assert rows[1] == rows[0] + 64
    assert student.tokenizer.get_vocab() == teacher.tokenizer.get_vocab()
    rollouts = student.engine(rows_at_once=8).generate(
        [student.encoder(sample) for sample in mixed_samples()], n=1, max_new_tokens=4, seed=0
    )
    scores = logprobs(teacher, rollouts)
    with torch.no_grad():
        expected = plain_distribution(teacher, rollouts[2]).log_prob(rollouts[2].response_ids)
    torch.testing.assert_close(scores[2, : len(expected)], expected, rtol=0, atol=1e-5)
    assert not set(teacher.banned_ids).isdisjoint(range(rows[0], rows[1]))


def test_a_pair_of_two_families_sees_the_same_picture_each_in_its_own_tensors(
    models: dict[str, VisionLanguageModel],
) -> None:
    student, teacher = models["qwen2_5_vl"], models["qwen3_vl"]
    assert student.tokenizer.get_vocab() == teacher.tokenizer.get_vocab()
    sample = mixed_samples()[2]
    ours, theirs = student.encoder(sample), teacher.encoder(sample)
    assert ours.vision["pixel_values"].shape[1] != theirs.vision["pixel_values"].shape[1]  # patches of 14 and of 16
    for image, mine, other in zip(
        sample.images, student.encoder.images(sample), teacher.encoder.images(sample), strict=True
    ):
        assert mine.size != other.size
        for fitted in (mine, other):
            assert abs(fitted.width / fitted.height / (image.width / image.height) - 1) < 0.25
    (rollout,) = student.engine(rows_at_once=1).generate([ours], n=1, max_new_tokens=NEW, seed=0)
    seen = replace(rollout, prompt=theirs)
    with torch.no_grad():
        expected = plain_distribution(teacher, seen).log_prob(rollout.response_ids)
    torch.testing.assert_close(logprobs(teacher, [seen])[0], expected, rtol=0, atol=1e-5)


def test_a_head_that_does_more_than_project_is_found_out(models: dict[str, VisionLanguageModel]) -> None:
    """Log-probs are taken from the head's weights; a soft cap on the logits must not go unnoticed."""
    model = models["gemma3"]
    prompt = model.encoder(mixed_samples()[1])
    assert model.policy.head_gap(prompt) <= 1e-5
    plain = model.policy.model.forward

    def capped(**inputs: Any) -> Any:
        output = plain(**inputs)
        output.logits = torch.tanh(output.logits / 2) * 2
        return output

    other = Policy(model.policy.model)
    other.model.forward = capped
    try:
        assert other.head_gap(prompt) > 0.1
    finally:
        other.model.forward = plain


def test_another_family_is_refused_and_the_known_ones_are_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "paligemma", "architectures": ["PaliGemma"]}))
    with pytest.raises(ModelError) as error:
        load_family(tmp_path)
    assert "model type is paligemma: allowed are qwen2_vl, " in str(error.value) and "\n" not in str(error.value)
    assert all(name in str(error.value) for name in FAMILIES)


def test_a_text_only_model_is_called_one(tmp_path: Path) -> None:
    plain_text_model(tmp_path)
    with pytest.raises(ModelError) as error:
        load_family(tmp_path)
    assert "qwen2 is a text-only model: a vision-language model is needed" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("family", ["qwen2_5_vl", "gemma3", "smolvlm"])
@pytest.mark.parametrize(
    ("lost", "reason"),
    [
        (("processor_config.json", "preprocessor_config.json"), "image processor"),
        (("chat_template.jinja",), "chat template"),
    ],
)
def test_a_missing_processor_file_is_named(
    family: str, lost: tuple[str, ...], reason: str, directories: dict[str, Path], tmp_path: Path
) -> None:
    for file in directories[family].iterdir():
        if file.name not in lost:
            (tmp_path / file.name).symlink_to(file)
    with pytest.raises(ModelError) as error:
        load_family(tmp_path)
    assert f"there is no {reason} (" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("family", TILED)
def test_pixels_per_visual_token_is_what_a_tile_says(family: str, models: dict[str, VisionLanguageModel]) -> None:
    tokens = {"llava_onevision": 16}.get(family, 4)
    assert families.factor(models[family].processor, family) == round((32 * 32 / tokens) ** 0.5)
