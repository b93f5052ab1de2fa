"""The Hugging Face engine against transformers' generate and against the trainer's own forward, for both families."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from test_draws import assert_frequencies
from tiny import load_tiny, mixed_samples, plain_distribution, save_tiny
from torch import nn

from reopold_vl.collate import collate_rollouts
from reopold_vl.models import VisionLanguageModel
from reopold_vl.rollout import hf
from reopold_vl.rollout.draws import draw_tokens
from reopold_vl.rollout.hf import HFEngine
from reopold_vl.rollout.layout import columns_side_by_side
from reopold_vl.types import Prompt, Rollout

NEW = 10  # tokens
NEVER = -1  # an end token that no model samples


@pytest.fixture(scope="module")
def engine(vlm: VisionLanguageModel) -> HFEngine:
    return vlm.engine(rows_at_once=64)


@pytest.fixture(scope="module")
def greedy(engine: HFEngine, prompts: list[Prompt]) -> list[Rollout]:
    return engine.generate(prompts, n=1, max_new_tokens=NEW, seed=0, temperature=0.0)


@pytest.fixture(scope="module")
def sampled(engine: HFEngine, prompts: list[Prompt]) -> list[Rollout]:
    """Four answers a prompt that no end token cuts short."""
    return with_eos(engine, NEVER).generate(prompts, n=4, max_new_tokens=NEW, seed=0)


def ids(rollouts: Sequence[Rollout]) -> list[list[int]]:
    return [rollout.response_ids.tolist() for rollout in rollouts]


def generated(vlm: VisionLanguageModel, prompt: Prompt, eos_ids: Sequence[int]) -> list[int]:
    """Greedy decoding by transformers, one prompt at a time."""
    made = vlm.policy.model.generate(
        input_ids=prompt.ids[None],
        attention_mask=torch.ones_like(prompt.ids)[None],
        mm_token_type_ids=prompt.token_types[None],
        **dict(prompt.vision),
        do_sample=False,
        max_new_tokens=NEW,
        eos_token_id=list(eos_ids),
        suppress_tokens=list(vlm.banned_ids),
    )
    return made[0, len(prompt.ids) :].tolist()


def with_eos(engine: HFEngine, *eos_ids: int) -> HFEngine:
    return HFEngine(engine.policy, eos_ids, engine.pad_id, engine.banned_ids, engine.rows_at_once)


def test_greedy_equals_transformers_generate(
    vlm: VisionLanguageModel, greedy: list[Rollout], prompts: list[Prompt]
) -> None:
    expected = [generated(vlm, prompt, vlm.eos_ids) for prompt in prompts]
    assert ids(greedy) == expected
    assert len({tuple(answer) for answer in expected}) == len(prompts)  # not one answer to everything


def test_greedy_with_eos_equals_transformers_generate(
    vlm: VisionLanguageModel, engine: HFEngine, greedy: list[Rollout], prompts: list[Prompt]
) -> None:
    """Tokens that the greedy answers hold become end tokens: rows end at different steps, the others go on."""
    ends = (int(greedy[0].response_ids[2]), int(greedy[1].response_ids[5]))
    stopped = with_eos(engine, *ends).generate(prompts, n=1, max_new_tokens=NEW, seed=0, temperature=0.0)
    assert ids(stopped) == [generated(vlm, prompt, ends) for prompt in prompts]
    assert len({len(answer) for answer in ids(stopped)}) > 1


def test_logprobs_and_entropy_equal_the_trainers_forward(vlm: VisionLanguageModel, sampled: list[Rollout]) -> None:
    batch = collate_rollouts(sampled, pad_id=vlm.pad_id)
    with torch.no_grad():
        stats = vlm.policy(batch, batch.mask)
    for row, rollout in enumerate(sampled):
        length = len(rollout.response_ids)
        torch.testing.assert_close(rollout.logprobs, stats.logprobs[row, :length], rtol=0, atol=1e-5)
        torch.testing.assert_close(rollout.entropy, stats.entropy[row, :length], rtol=0, atol=1e-5)


@torch.no_grad()
def test_logprobs_after_rows_have_ended_equal_plain_transformers(
    vlm: VisionLanguageModel, engine: HFEngine, sampled: list[Rollout], prompts: list[Prompt]
) -> None:
    """Finished rows leave the cache; those that stay must keep their own."""
    rollouts = with_eos(engine, *frequent(sampled, 12)).generate(prompts, n=4, max_new_tokens=NEW, seed=1)
    lengths = [len(rollout.response_ids) for rollout in rollouts]
    assert len(set(lengths)) > 3
    for rollout in rollouts:
        expected = plain_distribution(vlm.policy.model, rollout)
        torch.testing.assert_close(rollout.logprobs, expected.log_prob(rollout.response_ids), rtol=0, atol=1e-5)
        torch.testing.assert_close(rollout.entropy, expected.entropy(), rtol=0, atol=1e-5)


def test_logprobs_at_another_temperature_are_still_those_at_one(
    vlm: VisionLanguageModel, greedy: list[Rollout]
) -> None:
    with torch.no_grad():
        expected = plain_distribution(vlm.policy.model, greedy[0]).log_prob(greedy[0].response_ids)
    torch.testing.assert_close(greedy[0].logprobs, expected, rtol=0, atol=1e-5)


def test_images_once_and_prompts_once_for_four_answers(
    vlm: VisionLanguageModel, engine: HFEngine, prompts: list[Prompt]
) -> None:
    vision: list[int] = []
    decoder: list[tuple[int, ...]] = []
    base = vlm.policy.model.base_model
    handles = [
        base.visual.register_forward_hook(lambda _, inputs, __: vision.append(inputs[0].shape[0])),
        base.language_model.register_forward_pre_hook(
            lambda _, __, inputs: decoder.append(tuple(inputs["inputs_embeds"].shape[:2])), with_kwargs=True
        ),
    ]
    engine.generate(prompts, n=4, max_new_tokens=3, seed=0)
    for handle in handles:
        handle.remove()
    assert vision == [sum(prompt.vision["pixel_values"].shape[0] for prompt in prompts if prompt.vision)]
    assert decoder == [(4, max(len(prompt.ids) for prompt in prompts)), (16, 1), (16, 1)]


def frequent(rollouts: Sequence[Rollout], number: int) -> list[int]:
    """The tokens that answers hold most often: as end tokens they cut them at different lengths."""
    counts = Counter(token for answer in ids(rollouts) for token in answer)
    return [token for token, _ in counts.most_common(number)]


def test_finished_rows_are_not_computed_any_more(
    vlm: VisionLanguageModel, engine: HFEngine, sampled: list[Rollout], prompts: list[Prompt]
) -> None:
    rows: list[int] = []
    handle = vlm.policy.model.base_model.language_model.register_forward_pre_hook(
        lambda _, __, inputs: rows.append(inputs["inputs_embeds"].shape[0]), with_kwargs=True
    )
    stopped = with_eos(engine, *frequent(sampled, 12)).generate(prompts, n=4, max_new_tokens=NEW, seed=0)
    handle.remove()
    lengths = [len(rollout.response_ids) for rollout in stopped]
    assert len(set(lengths)) > 3
    going_on = [sum(length > step for length in lengths) for step in range(1, max(lengths))]
    assert rows == [4, *going_on]


def test_eos_is_the_last_token_and_truncation_is_known(
    engine: HFEngine, sampled: list[Rollout], prompts: list[Prompt]
) -> None:
    assert {rollout.finish_reason for rollout in sampled} == {"length"}
    assert all(len(rollout.response_ids) == NEW for rollout in sampled)
    ends = set(frequent(sampled, 8))
    rollouts = with_eos(engine, *ends).generate(prompts, n=4, max_new_tokens=NEW, seed=0)
    reasons = {rollout.finish_reason for rollout in rollouts}
    assert reasons == {"stop", "length"}
    for rollout in rollouts:
        *before, last = rollout.response_ids.tolist()
        assert not ends & set(before)  # nothing after the end
        assert (last in ends) == (rollout.finish_reason == "stop")  # the end itself is included
        assert len(rollout.response_ids) == NEW or rollout.finish_reason == "stop"
        assert len(rollout.logprobs) == len(rollout.entropy) == len(rollout.response_ids)


def test_an_end_at_the_very_last_step_is_a_stop(engine: HFEngine, greedy: list[Rollout], prompts: list[Prompt]) -> None:
    answer = greedy[0].response_ids.tolist()
    last = next(k for k in range(1, NEW) if answer[k] not in answer[:k])
    (rollout,) = with_eos(engine, answer[last]).generate(
        prompts[:1], n=1, max_new_tokens=last + 1, seed=0, temperature=0.0
    )
    assert rollout.finish_reason == "stop" and len(rollout.response_ids) == last + 1


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_banned_ids_are_never_sampled_however_likely(
    fresh_vlm: VisionLanguageModel, prompts: list[Prompt], temperature: float
) -> None:
    banned = set(fresh_vlm.banned_ids)
    config = fresh_vlm.policy.model.config
    assert {config.image_token_id, config.video_token_id} <= banned
    boost = torch.zeros(fresh_vlm.policy.model.get_output_embeddings().weight.shape[0])
    boost[list(banned)] = 30.0
    fresh_vlm.policy.model.get_output_embeddings().register_forward_hook(lambda _, __, logits: logits + boost)
    rollouts = fresh_vlm.engine(rows_at_once=64).generate(
        prompts, n=4, max_new_tokens=6, seed=0, temperature=temperature
    )
    assert not banned & {token for answer in ids(rollouts) for token in answer}
    # The log-probs are nevertheless those of the full vocabulary, in which these tokens are hopeless.
    assert all(float(rollout.logprobs.max()) < -15 for rollout in rollouts)
    unguarded = HFEngine(fresh_vlm.policy, fresh_vlm.eos_ids, fresh_vlm.pad_id).generate(
        prompts[1:2], n=1, max_new_tokens=1, seed=0, temperature=0.0
    )
    assert int(unguarded[0].response_ids[0]) in banned  # the boost does work


def test_padding_rows_of_the_vocabulary_are_never_sampled(family: str, tmp_path_factory: Any) -> None:
    vlm = load_tiny(save_tiny(tmp_path_factory.mktemp(family), family, seed=0, padded_vocab=64))
    size = len(vlm.tokenizer)
    head = vlm.policy.model.get_output_embeddings()
    assert head.weight.shape[0] == size + 64
    head.register_forward_hook(lambda _, __, logits: logits + 30 * (torch.arange(size + 64) >= size))
    prompt = vlm.encoder(mixed_samples()[1])
    rollouts = vlm.engine(rows_at_once=8).generate([prompt], n=8, max_new_tokens=4, seed=0)
    assert max(token for answer in ids(rollouts) for token in answer) < size


@pytest.mark.parametrize("rows_at_once", [1, 2, 3])
def test_greedy_does_not_depend_on_rows_at_once(
    vlm: VisionLanguageModel, greedy: list[Rollout], prompts: list[Prompt], rows_at_once: int
) -> None:
    again = vlm.engine(rows_at_once=rows_at_once).generate(prompts, n=1, max_new_tokens=NEW, seed=0, temperature=0.0)
    assert ids(again) == ids(greedy)
    for one, other in zip(again, greedy, strict=True):
        torch.testing.assert_close(one.logprobs, other.logprobs, rtol=0, atol=1e-5)


def test_rows_at_once_bounds_the_batch(vlm: VisionLanguageModel, prompts: list[Prompt]) -> None:
    rows: list[int] = []
    handle = vlm.policy.model.base_model.language_model.register_forward_pre_hook(
        lambda _, __, inputs: rows.append(inputs["inputs_embeds"].shape[0]), with_kwargs=True
    )
    vlm.engine(rows_at_once=5).generate(prompts, n=2, max_new_tokens=2, seed=0)
    handle.remove()
    assert rows == [2, 4, 2, 4]  # two prompts, their four answers; twice


def test_the_seed_decides(engine: HFEngine, sampled: list[Rollout], prompts: list[Prompt]) -> None:
    torch.manual_seed(123)  # the global generator plays no part
    again = with_eos(engine, NEVER).generate(prompts, n=4, max_new_tokens=NEW, seed=0)
    assert ids(again) == ids(sampled)
    assert all(torch.equal(a.logprobs, b.logprobs) for a, b in zip(again, sampled, strict=True))
    assert ids(with_eos(engine, NEVER).generate(prompts, n=4, max_new_tokens=NEW, seed=1)) != ids(sampled)
    state = torch.random.get_rng_state()
    engine.generate(prompts[:1], n=1, max_new_tokens=2, seed=0)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_answers_stand_in_the_order_of_the_prompts(vlm: VisionLanguageModel, prompts: list[Prompt]) -> None:
    """The engine sorts prompts by length inside."""
    assert [len(prompt.ids) for prompt in prompts] != sorted(len(prompt.ids) for prompt in prompts)
    rollouts = vlm.engine(rows_at_once=4).generate(prompts, n=2, max_new_tokens=2, seed=0)
    assert [id(rollout.prompt) for rollout in rollouts] == [id(prompt) for prompt in prompts for _ in range(2)]


def test_the_four_answers_to_a_prompt_differ(sampled: list[Rollout]) -> None:
    for start in range(0, len(sampled), 4):
        assert len({tuple(answer) for answer in ids(sampled[start : start + 4])}) == 4


@pytest.mark.parametrize("rows_at_once", [1, 3, 256])
def test_answers_do_not_depend_on_the_batch(
    vlm: VisionLanguageModel, prompts: list[Prompt], sampled: list[Rollout], rows_at_once: int
) -> None:
    engine = with_eos(vlm.engine(rows_at_once=rows_at_once), NEVER)
    assert ids(engine.generate(prompts, n=4, max_new_tokens=NEW, seed=0)) == ids(sampled)


def test_a_prompt_alone_is_answered_as_in_the_batch(
    engine: HFEngine, prompts: list[Prompt], sampled: list[Rollout]
) -> None:
    """Fewer answers and another order, as another process would ask for them; and answers that end early."""
    alone = with_eos(engine, NEVER).generate(prompts[2:3], n=2, max_new_tokens=NEW, seed=0, keys=[2])
    assert ids(alone) == ids(sampled[8:10])
    back = with_eos(engine, NEVER).generate(prompts[::-1], n=4, max_new_tokens=NEW, seed=0, keys=[3, 2, 1, 0])
    assert ids(back) == [answer for start in (12, 8, 4, 0) for answer in ids(sampled[start : start + 4])]
    assert ids(with_eos(engine, NEVER).generate(prompts[2:3], n=2, max_new_tokens=NEW, seed=0)) != ids(alone)
    end = frequent(sampled, 6)
    cut = with_eos(engine, *end).generate(prompts, n=4, max_new_tokens=NEW, seed=0)
    for short, whole in zip(ids(cut), ids(sampled), strict=True):
        assert short == whole[: len(short)] and (len(short) == NEW or short[-1] in end)
    with pytest.raises(ValueError, match="keys has 1 entries for 4 prompts"):
        engine.generate(prompts, n=1, max_new_tokens=2, seed=0, keys=[0])


def test_the_stream_of_a_key_is_the_first_answer_to_it(
    engine: HFEngine, prompts: list[Prompt], sampled: list[Rollout]
) -> None:
    *_, last = with_eos(engine, NEVER).stream(prompts[1], max_new_tokens=NEW, seed=0, key=1)
    assert ids([last]) == ids(sampled[4:5])


def test_first_tokens_of_the_engine_match_plain_transformers(vlm: VisionLanguageModel, prompts: list[Prompt]) -> None:
    """The whole path: image, prefill, expansion, softmax at T = 1, draw."""
    rollouts = vlm.engine(rows_at_once=4000).generate(prompts[:1], n=4000, max_new_tokens=1, seed=0)
    with torch.no_grad():
        logits = plain_distribution(vlm.policy.model, rollouts[0]).logits[0]
    allowed = logits.index_fill(0, torch.tensor(vlm.banned_ids), -torch.inf).softmax(-1)
    assert_frequencies(torch.cat([rollout.response_ids for rollout in rollouts]), allowed)


def test_exact_says_whether_the_weights_are_fp32(fresh_vlm: VisionLanguageModel) -> None:
    assert fresh_vlm.engine(rows_at_once=1).exact
    fresh_vlm.policy.to(torch.bfloat16)
    assert not fresh_vlm.engine(rows_at_once=1).exact


@pytest.mark.parametrize("fails", [False, True])
def test_weights_are_laid_out_for_a_rollout_and_no_longer(
    fresh_vlm: VisionLanguageModel, prompts: list[Prompt], fails: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = fresh_vlm.policy.model
    before = {name: weight.stride() for name, weight in model.named_parameters()}
    values = {name: weight.clone() for name, weight in model.named_parameters()}
    meanwhile: dict[str, tuple[int, ...]] = {}

    def looked_at(logits: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        meanwhile.update({name: weight.stride() for name, weight in model.named_parameters()})
        assert all(torch.equal(weight, values[name]) for name, weight in model.named_parameters())
        if fails:
            raise RuntimeError("no draw")
        return draw_tokens(logits, *args, **kwargs)

    monkeypatch.setattr(hf, "draw_tokens", looked_at)
    engine = fresh_vlm.engine(rows_at_once=8)
    with pytest.raises(RuntimeError, match="no draw") if fails else nullcontext():
        engine.generate(prompts, n=2, max_new_tokens=3, seed=0)
    changed = {name for name, stride in meanwhile.items() if stride != before[name]}
    assert any("language_model" in name for name in changed) and not any("embed_tokens" in name for name in changed)
    assert {name: weight.stride() for name, weight in model.named_parameters()} == before
    assert all(torch.equal(weight, values[name]) for name, weight in model.named_parameters())


def test_weights_that_gain_nothing_are_left_where_they_are(fresh_vlm: VisionLanguageModel) -> None:
    layers: dict[str, Any] = {
        "small": nn.Linear(8, 16),
        "large": nn.Linear(1024, 1025),
        "bf16": nn.Linear(8, 16).bfloat16(),
        "tied": nn.Linear(8, 16),
        "words": nn.Embedding(16, 8),
    }
    layers["words"].weight = layers["tied"].weight
    fresh_vlm.policy.model.base_model.layers = nn.ModuleDict(layers)
    with columns_side_by_side(fresh_vlm.policy):
        lying = {name for name, layer in layers.items() if layer.weight.is_contiguous()}
    assert lying == {"large", "bf16", "tied", "words"}
    assert layers["small"].weight.is_contiguous()


def test_sampling_builds_no_graph(sampled: list[Rollout]) -> None:
    assert not any(rollout.logprobs.requires_grad or rollout.entropy.requires_grad for rollout in sampled)
