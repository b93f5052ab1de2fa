"""The policy against plain transformers, for both families: log-probs, gradients, and which token may push what."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from tiny import load_tiny, mixed_samples, plain_distribution, random_rollouts
from torch import Tensor, nn

from reopold_vl.collate import TokenBatch, collate_rollouts
from reopold_vl.loss import policy_gradient_loss
from reopold_vl.models import VisionLanguageModel
from reopold_vl.policy import Policy
from reopold_vl.types import Prompt, Rollout
from reopold_vl.vision import freeze_vision

CLOSE: dict[str, Any] = {"rtol": 0.0, "atol": 1e-5}


@pytest.fixture(scope="module")
def rollouts(vlm: VisionLanguageModel, prompts: list[Prompt]) -> list[Rollout]:
    """Two answers to each of the four prompts, of different lengths; not sorted by prompt."""
    made = random_rollouts(vlm, prompts, n=2, seed=3)
    assert len({len(rollout.response_ids) for rollout in made}) > 2
    return [made[index] for index in (0, 2, 4, 6, 1, 3, 5, 7)]


@pytest.fixture(scope="module")
def batch(vlm: VisionLanguageModel, rollouts: list[Rollout]) -> TokenBatch:
    return collate_rollouts(rollouts, pad_id=vlm.pad_id)


@contextmanager
def calls(module: nn.Module) -> Iterator[list[int]]:
    """The number of rows of the first argument in each call of `module`."""
    seen: list[int] = []
    handle = module.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape[0]))
    yield seen
    handle.remove()


def gradients(model: nn.Module) -> dict[str, Tensor]:
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return found


def assert_gradients_close(ours: dict[str, Tensor], theirs: dict[str, Tensor], relative: float = 1e-4) -> None:
    assert ours.keys() == theirs.keys()
    largest = max(float(gradient.norm()) for gradient in theirs.values())
    for name, expected in theirs.items():
        scale = max(float(expected.norm()), 1e-4 * largest)  # a true gradient of 0 (a key's bias) is rounding alone
        assert float((ours[name] - expected).norm()) <= relative * scale, name


def vision_parameters(model: Any) -> set[str]:
    return {name for name, _ in model.named_parameters() if ".visual." in name}


@torch.no_grad()
def test_logprobs_and_entropy_equal_plain_transformers(
    vlm: VisionLanguageModel, rollouts: list[Rollout], batch: TokenBatch
) -> None:
    stats = vlm.policy(batch, batch.mask)
    assert stats.logprobs.shape == batch.mask.shape
    for row, rollout in enumerate(rollouts):
        expected, length = plain_distribution(vlm.policy.model, rollout), len(rollout.response_ids)
        torch.testing.assert_close(stats.logprobs[row, :length], expected.log_prob(rollout.response_ids), **CLOSE)
        torch.testing.assert_close(stats.entropy[row, :length], expected.entropy(), **CLOSE)
    assert not stats.logprobs[~batch.mask].any() and not stats.entropy[~batch.mask].any()
    spread = stats.logprobs[batch.mask]
    assert float(spread.std()) > 0.1  # a test on uniform distributions would see nothing


@torch.no_grad()
def test_nothing_leaks_from_one_forward_into_the_next(
    vlm: VisionLanguageModel, rollouts: list[Rollout], batch: TokenBatch
) -> None:
    """transformers keeps the last batch's rotary offsets in the model; another batch in between must not show."""
    before = vlm.policy(batch, batch.mask)
    other = collate_rollouts(rollouts[2:3], pad_id=vlm.pad_id)
    vlm.policy(other, other.mask)
    after = vlm.policy(batch, batch.mask)
    assert torch.equal(before.logprobs, after.logprobs)


def test_gradient_equals_that_of_plain_transformers(
    fresh_vlm: VisionLanguageModel, rollouts: list[Rollout], batch: TokenBatch
) -> None:
    policy = fresh_vlm.policy
    generator = torch.Generator().manual_seed(5)
    advantages = torch.randn(batch.mask.shape, generator=generator)
    keep = batch.mask & (torch.rand(batch.mask.shape, generator=generator) < 0.7)
    assert 0 < int(keep.sum()) < int(batch.mask.sum())
    logprobs = policy(batch, keep).logprobs
    old = logprobs.detach()
    policy_gradient_loss(logprobs, old, advantages, keep, denominator=int(keep.sum())).loss.backward()
    ours = gradients(policy.model)

    total = torch.zeros(())
    for row, rollout in enumerate(rollouts):
        logprobs = plain_distribution(policy.model, rollout).log_prob(rollout.response_ids)
        weight = torch.where(keep, advantages, 0.0)[row, : len(logprobs)]
        total = total - (weight * logprobs).sum() / keep.sum()
    total.backward()
    theirs = gradients(policy.model)
    vision = vision_parameters(policy.model)
    assert vision <= ours.keys() and any(float(theirs[name].norm()) > 1e-3 for name in vision)
    assert_gradients_close(ours, theirs)


def test_entropy_has_a_gradient_too(fresh_vlm: VisionLanguageModel, rollouts: list[Rollout]) -> None:
    one = collate_rollouts(rollouts[2:3], pad_id=fresh_vlm.pad_id)
    fresh_vlm.policy(one, one.mask).entropy.sum().backward()
    ours = gradients(fresh_vlm.policy.model)
    plain_distribution(fresh_vlm.policy.model, rollouts[2]).entropy().sum().backward()
    assert_gradients_close(ours, gradients(fresh_vlm.policy.model))


def test_the_vision_tower_runs_once_on_unique_images(vlm: VisionLanguageModel, batch: TokenBatch) -> None:
    patches = batch.prompts.vision["pixel_values"].shape[0]
    assert len(batch.rows) == 8 and batch.prompts.vision["image_grid_thw"].shape[0] == 4
    with calls(vlm.policy.model.base_model.visual) as seen:
        vlm.policy(batch, batch.mask).logprobs.sum().backward()
    assert seen == [patches] == [int(batch.prompts.vision["image_grid_thw"].prod(1).sum())]
    vlm.policy.zero_grad(set_to_none=True)


@torch.no_grad()
def test_the_vision_tower_rests_without_images(vlm: VisionLanguageModel, rollouts: list[Rollout]) -> None:
    text_only = collate_rollouts([rollouts[1], rollouts[5]], pad_id=vlm.pad_id)
    assert not text_only.prompts.vision
    with calls(vlm.policy.model.base_model.visual) as seen:
        stats = vlm.policy(text_only, text_only.mask)
    assert seen == []
    expected = plain_distribution(vlm.policy.model, rollouts[1]).log_prob(rollouts[1].response_ids)
    torch.testing.assert_close(stats.logprobs[0, : len(expected)], expected, **CLOSE)


@torch.no_grad()
def test_one_changed_pixel_changes_this_prompt_alone(vlm: VisionLanguageModel, rollouts: list[Rollout]) -> None:
    samples = mixed_samples()
    image = samples[0].images[0].copy()
    red, green, blue = image.getpixel((30, 40))
    image.putpixel((30, 40), ((red + 128) % 256, green, blue))
    changed = vlm.encoder(replace(samples[0], images=(image,)))
    seen = [replace(r, prompt=changed) if r.prompt is rollouts[0].prompt else r for r in rollouts]
    before, after = (
        vlm.policy(tokens, tokens.mask).logprobs
        for tokens in (collate_rollouts(each, pad_id=vlm.pad_id) for each in (rollouts, seen))
    )
    moved = (before - after).abs().amax(1)
    assert bool((moved[[0, 4]] > 1e-4).all()), moved  # the two answers to this prompt
    assert float(moved[[1, 2, 3, 5, 6, 7]].max()) < 1e-6


def test_swapped_images_of_one_prompt_are_seen_as_swapped(vlm: VisionLanguageModel, rollouts: list[Rollout]) -> None:
    """Two images in the wrong order would go unnoticed if features were pooled or misplaced."""
    sample = mixed_samples()[2]
    first, second = sample.images
    pair = [
        vlm.encoder(replace(sample, images=images)) for images in ((first, first), (first, second.resize(first.size)))
    ]
    pair.append(vlm.encoder(replace(sample, images=(second.resize(first.size), first))))
    answer = rollouts[2]
    batch = collate_rollouts([replace(answer, prompt=prompt) for prompt in pair], pad_id=vlm.pad_id)
    with torch.no_grad():
        logprobs = vlm.policy(batch, batch.mask).logprobs
        expected = plain_distribution(vlm.policy.model, replace(answer, prompt=pair[2])).log_prob(answer.response_ids)
    torch.testing.assert_close(logprobs[2, : len(expected)], expected, **CLOSE)
    assert float((logprobs[1] - logprobs[2]).abs().max()) > 1e-4
    assert float((logprobs[0] - logprobs[1]).abs().max()) > 1e-4


def test_frozen_vision_has_no_gradient_and_changes_no_other(
    vlm: VisionLanguageModel, tiny_dirs: dict, family: str, batch: TokenBatch
) -> None:
    found = []
    for freeze in (False, True):
        policy = load_tiny(tiny_dirs[family]).policy
        freeze_vision(policy.model, tower=freeze, projector=freeze)
        fixed = {name for name, p in policy.model.named_parameters() if not p.requires_grad}  # what an optimizer leaves
        assert fixed == (vision_parameters(policy.model) if freeze else set())
        stats = policy(batch, batch.mask)
        stats.logprobs.square().sum().backward()
        found.append((stats.logprobs.detach(), gradients(policy.model)))
    (logprobs, free), (frozen_logprobs, frozen) = found
    vision = vision_parameters(vlm.policy.model)
    assert torch.equal(logprobs, frozen_logprobs)
    assert vision <= free.keys() and not vision & frozen.keys()
    assert_gradients_close(frozen, {name: g for name, g in free.items() if name not in vision}, relative=1e-6)


def test_the_mask_picks_values_and_zeros_the_rest(vlm: VisionLanguageModel, batch: TokenBatch) -> None:
    keep = batch.mask.clone()
    keep[:, 1::2] = False
    keep[0] = False  # a rollout without a kept token
    with torch.no_grad():
        whole, part = vlm.policy(batch, batch.mask), vlm.policy(batch, keep)
    for every, some in zip(whole, part, strict=True):
        torch.testing.assert_close(some[keep], every[keep], **CLOSE)
        assert not some[~keep].any()


def test_a_mask_of_other_answers_is_refused(vlm: VisionLanguageModel, batch: TokenBatch) -> None:
    with pytest.raises(ValueError, match="keep is"):
        vlm.policy(batch, batch.mask[:, 1:])


def test_an_answer_with_an_image_placeholder_is_refused(vlm: VisionLanguageModel, prompts: list[Prompt]) -> None:
    """Its place would take another token's features."""
    [rollout] = random_rollouts(vlm, prompts[:1], n=1, seed=0)
    ids = rollout.response_ids.clone()
    ids[0] = vlm.policy.model.config.image_token_id
    batch = collate_rollouts([replace(rollout, response_ids=ids)], pad_id=vlm.pad_id)
    with pytest.raises(ValueError, match="stands for an image"):
        vlm.policy(batch, batch.mask)


def test_nothing_kept_gives_zeros_and_a_backward_of_zeros(fresh_vlm: VisionLanguageModel, batch: TokenBatch) -> None:
    stats = fresh_vlm.policy(batch, torch.zeros_like(batch.mask))
    stats.logprobs.sum().backward()
    assert not stats.logprobs.detach().any()
    assert all(not gradient.any() for gradient in gradients(fresh_vlm.policy.model).values())


def test_the_head_projects_the_kept_tokens_alone(
    vlm: VisionLanguageModel, batch: TokenBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    from reopold_vl import logprobs

    rows: list[int] = []
    plain = logprobs._tile_stats
    monkeypatch.setattr(logprobs, "_tile_stats", lambda hidden, *rest: rows.append(len(hidden)) or plain(hidden, *rest))
    keep = batch.mask.clone()
    keep[:, 2:] = False
    with torch.no_grad():
        vlm.policy(batch, keep)
    assert sum(rows) == int(keep.sum()) < batch.mask.numel()


def test_rewards_touch_response_tokens_only(
    vlm: VisionLanguageModel, batch: TokenBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gradient reaches the head's input at exactly the states that predict kept response tokens.

    The loss is taken at all response positions, padding and after-EOS included, with an advantage everywhere: image,
    prompt and padding positions, and positions after EOS, must nevertheless get exactly none.
    """
    seen: list[Tensor] = []
    plain = Policy.hidden_states

    def spy(self: Policy, **inputs: Any) -> Tensor:
        hidden = plain(self, **inputs)
        hidden.retain_grad()
        seen.append(hidden)
        return hidden

    monkeypatch.setattr(Policy, "hidden_states", spy)
    logprobs = vlm.policy(batch, batch.mask).logprobs
    advantages = torch.ones_like(logprobs)
    policy_gradient_loss(logprobs, logprobs.detach(), advantages, batch.mask, denominator=1).loss.backward()
    vlm.policy.zero_grad(set_to_none=True)
    # One pass of the prompts, whose last state predicts the first token; one of the answers without their last token.
    of_prompts, of_answers = (hidden.grad for hidden in seen)
    assert of_prompts is not None and of_answers is not None
    pushed = of_prompts.abs().sum(-1) > 0  # [prompts, their positions]
    assert pushed[:, -1].all() and not pushed[:, :-1].any()
    placeholders = batch.prompts.token_types == 1
    assert placeholders.any() and not (pushed & placeholders).any()
    assert torch.equal(of_answers.abs().sum(-1) > 0, batch.mask[:, 1:])


def test_one_answer_a_prompt_is_pushed_at_its_own_positions_alone(
    vlm: VisionLanguageModel, rollouts: list[Rollout], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As above where prompts are not shared and each row is a prompt with its answer."""
    single = collate_rollouts(rollouts[:4], pad_id=vlm.pad_id)
    seen: list[Tensor] = []
    plain = Policy.hidden_states

    def spy(self: Policy, **inputs: Any) -> Tensor:
        seen.append(plain(self, **inputs))
        seen[-1].retain_grad()
        return seen[-1]

    monkeypatch.setattr(Policy, "hidden_states", spy)
    vlm.policy(single, single.mask).logprobs.sum().backward()
    vlm.policy.zero_grad(set_to_none=True)
    (hidden,) = seen
    assert hidden.grad is not None
    expected = torch.zeros(hidden.shape[:2], dtype=torch.bool)
    expected[:, single.prompts.ids.shape[1] - 1 :] = single.mask
    assert torch.equal(hidden.grad.abs().sum(-1) > 0, expected)


@torch.no_grad()
def test_padding_ids_and_padded_responses_do_not_matter(vlm: VisionLanguageModel, batch: TokenBatch) -> None:
    """Perturb what stands at padding, left of the prompts and right of the answers: log-probs stay."""
    before = vlm.policy(batch, batch.mask).logprobs
    ids = torch.where(batch.prompts.mask, batch.prompts.ids, 17)
    responses = torch.where(batch.mask, batch.response_ids, 18)
    assert not torch.equal(ids, batch.prompts.ids) and not torch.equal(responses, batch.response_ids)
    dirty = replace(batch, prompts=replace(batch.prompts, ids=ids), response_ids=responses)
    torch.testing.assert_close(vlm.policy(dirty, batch.mask).logprobs, before, rtol=0, atol=1e-6)


@torch.no_grad()
def test_a_response_token_changes_only_its_own_and_later_logprobs(
    vlm: VisionLanguageModel, rollouts: list[Rollout]
) -> None:
    long = max(rollouts, key=lambda rollout: len(rollout.response_ids))
    changed = long.response_ids.clone()
    changed[2] = (changed[2] + 1) % 256
    pair = collate_rollouts([long, replace(long, response_ids=changed)], pad_id=vlm.pad_id)
    first, second = vlm.policy(pair, pair.mask).logprobs
    same = (first - second).abs() < 1e-6
    assert same[:2].all() and not same[2]


@torch.no_grad()
def test_one_answer_of_one_token(vlm: VisionLanguageModel, prompts: list[Prompt]) -> None:
    rollout = Rollout(prompts[2], torch.tensor([5]), torch.zeros(1), torch.zeros(1), "length")
    batch = collate_rollouts([rollout], pad_id=vlm.pad_id)
    expected = plain_distribution(vlm.policy.model, rollout)
    torch.testing.assert_close(
        vlm.policy(batch, batch.mask).logprobs[0], expected.log_prob(rollout.response_ids), **CLOSE
    )


@torch.no_grad()
def test_row_order_does_not_matter(vlm: VisionLanguageModel, rollouts: list[Rollout], batch: TokenBatch) -> None:
    order = [6, 1, 7, 0, 2, 5, 3, 4]
    shuffled = collate_rollouts([rollouts[index] for index in order], pad_id=vlm.pad_id)
    torch.testing.assert_close(
        vlm.policy(shuffled, shuffled.mask).logprobs, vlm.policy(batch, batch.mask).logprobs[order], **CLOSE
    )
