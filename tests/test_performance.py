"""The savings change no result, and each does save: counts, places, weights cast, memory in tiles."""

from __future__ import annotations

import itertools
import json
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import test_golden
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_collate import prompt, rollout
from tiny import mixed_samples, random_rollouts
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks import run
from benchmarks.figures import head, padding, passes, profile, step, trl
from benchmarks.figures.result import Figure, savings_table, table
from benchmarks.figures.setup import build, samples
from reopold_vl import collate, decoding, logprobs
from reopold_vl.collate import collate_rollouts, length_groups, micro_batches, prompt_groups
from reopold_vl.models import VisionLanguageModel
from reopold_vl.policy import Policy
from reopold_vl.prefetch import EncodingAhead
from reopold_vl.prompts import PromptEncoder
from reopold_vl.recompute import recompute_layers
from reopold_vl.rollout import hf
from reopold_vl.types import Prompt, VisualSample

# Prompts that are read once (that the results stay is in test_families.py, against plain transformers)


@pytest.mark.parametrize("grad", [True, False])
def test_a_prompt_is_read_once_for_all_its_answers(
    fresh_vlm: VisionLanguageModel, prompts: list[Prompt], tokens_read: list[tuple[int, int]], grad: bool
) -> None:
    rollouts = random_rollouts(fresh_vlm, prompts, n=3, seed=0)
    batch = collate_rollouts(rollouts, pad_id=fresh_vlm.pad_id)
    with torch.set_grad_enabled(grad):
        fresh_vlm.policy(batch, batch.mask)
    longest = max(len(each.response_ids) for each in rollouts)
    assert tokens_read == [(4, batch.prompts.ids.shape[1]), (12, longest - 1)]


def test_answers_in_groups_of_their_length_score_the_same(
    vlm: VisionLanguageModel,
    prompts: list[Prompt],
    tokens_read: list[tuple[int, int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rollouts = random_rollouts(vlm, prompts, n=3, seed=0)
    batch = collate_rollouts(rollouts, pad_id=vlm.pad_id)
    with torch.no_grad():
        together = vlm.policy(batch, batch.mask)
        tokens_read.clear()
        monkeypatch.setattr(collate, "PASS_TOKENS", 0)
        apart = vlm.policy(batch, batch.mask)
    lengths = Counter(len(each.response_ids) for each in rollouts)
    assert sorted(tokens_read[1:]) == sorted((rows, length - 1) for length, rows in lengths.items() if length > 1)
    for one, other in zip(together, apart, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


def test_recomputed_layers_share_prompts_as_well(
    fresh_vlm: VisionLanguageModel, prompts: list[Prompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against repeated prompts with all activations kept."""
    policy, found = fresh_vlm.policy, []
    batch = collate_rollouts(random_rollouts(fresh_vlm, prompts, n=3, seed=0), pad_id=fresh_vlm.pad_id)
    with monkeypatch.context() as patch:
        patch.setattr(Policy, "shares_prompts", lambda self, batch: False)
        policy(batch, batch.mask).logprobs.sum().backward()
    found.append([weight.grad for weight in policy.parameters()])
    policy.zero_grad(set_to_none=True)
    recompute_layers(policy.model)
    policy(batch, batch.mask).logprobs.sum().backward()
    found.append([weight.grad for weight in policy.parameters()])
    largest = max(float(gradient.norm()) for gradient in found[0])
    for theirs, ours in zip(*found, strict=True):
        assert float((ours - theirs).norm()) <= 1e-4 * max(float(theirs.norm()), 1e-3 * largest)


# Micro-batches


def cost(groups: list[list[int]], lengths: list[int]) -> int:
    return sum(len(group) * max(lengths[row] for row in group) + collate.PASS_TOKENS for group in groups)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 400), min_size=1, max_size=7))
def test_groups_of_lengths_cost_the_least(lengths: list[int]) -> None:
    found = length_groups(lengths)
    assert sorted(row for group in found for row in group) == list(range(len(lengths)))
    order = sorted(range(len(lengths)), key=lambda row: lengths[row])
    best = min(
        cost([order[a:b] for a, b in itertools.pairwise([0, *cuts, len(order)])], lengths)
        for size in range(len(order))
        for cuts in itertools.combinations(range(1, len(order)), size)
    )
    assert cost(found, lengths) == best


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 90), st.lists(st.integers(1, 60), min_size=1, max_size=5)), max_size=8))
def test_micro_batches_are_whole_and_even(questions: list[tuple[int, list[int]]]) -> None:
    rollouts = [rollout(of, length) for size, answers in questions for of in [prompt(size)] for length in answers]
    pieces = micro_batches(rollouts, 6)
    assert sorted(row for piece in pieces for row in piece) == list(range(len(rollouts)))
    assert all(0 < len(piece) <= 6 and piece == sorted(piece) for piece in pieces)
    for of in {id(each.prompt): each.prompt for each in rollouts}.values():
        assert sum(any(rollouts[row].prompt is of for row in piece) for piece in pieces) == 1


def test_micro_batches_are_balanced_by_tokens() -> None:
    lengths = [5, 300, 10, 280, 6, 290, 9, 310]
    rollouts = [rollout(of, length) for length in lengths for of in [prompt(20)] for _ in range(2)]

    def padded(rows: list[int]) -> int:
        return len(rows) * max(len(rollouts[row].response_ids) for row in rows)

    plain = [padded(list(range(len(rollouts)))[piece]) for piece in prompt_groups(rollouts, 8)]
    ours = [padded(piece) for piece in micro_batches(rollouts, 8)]
    assert len(ours) == len(plain) == 2 and sum(ours) < 0.6 * sum(plain)


def test_little_of_the_gradient_pass_is_padding() -> None:
    (figure,) = padding.measure()
    assert figure.met and figure.correct
    assert figure.peer is not None and figure.peer > 2


# Images


def test_each_image_is_touched_once_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trl, "installed", lambda: False)
    figures = passes.measure()
    assert all(figure.ours == 1.0 and figure.peer is None and figure.met for figure in figures) and len(figures) == 3


def test_prompts_encoded_ahead_are_the_same_and_made_once(
    vlm: VisionLanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[str] = []
    plain = PromptEncoder.__call__

    def spy(self: PromptEncoder, sample: VisualSample) -> Prompt:
        threads.append(threading.current_thread().name)
        return plain(self, sample)

    monkeypatch.setattr(PromptEncoder, "__call__", spy)
    bad = VisualSample("bad", "?", images=("no such file",))
    questions = [*mixed_samples(), bad]
    expected, reasons = vlm.encoder.encode_all(questions)
    threads.clear()
    ahead = EncodingAhead(vlm.encoder, 2)
    ahead.begin([questions[0]])
    ahead.begin(questions[1:])  # the next step's, whatever became of the first
    found, why_not = ahead.encode_all(questions)
    assert why_not == reasons and len(reasons) == 1
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.equal(ours.ids, theirs.ids) and ours.vision.keys() == theirs.vision.keys()
        assert all(torch.equal(ours.vision[name], theirs.vision[name]) for name in ours.vision)
    here = [name for name in threads if not name.startswith("encode")]
    assert len(here) == 1 and len(threads) - 1 in (len(questions) - 1, len(questions))


def test_a_run_that_encodes_ahead_is_the_golden_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[int] = []
    plain = EncodingAhead.begin

    def begin(self: EncodingAhead, samples: Sequence[VisualSample]) -> None:
        begun.append(len(samples))
        plain(self, samples)

    monkeypatch.setattr(EncodingAhead, "begin", begin)
    flags = (*test_golden.OBJECTIVES["reopold"], "--images.workers", "2")
    monkeypatch.setitem(test_golden.OBJECTIVES, "reopold", flags)
    expected = json.loads((test_golden.GOLDEN / "reopold.json").read_text())
    for found, then in zip(test_golden.golden_run("reopold", tmp_path), expected, strict=True):
        assert found == pytest.approx(then, rel=test_golden.RELATIVE, abs=test_golden.ABSOLUTE)
    assert begun == [4, 4, 4]  # not after the last of four steps


# The head


@pytest.mark.parametrize("rows", [7, 100], ids=["tiles", "one tile"])
def test_the_heads_gradient_under_autocast_is_summed_in_float32(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logprobs, "TILE_ROWS", rows)
    monkeypatch.setattr(logprobs, "TILE_ELEMENTS", 0)
    generator = torch.Generator().manual_seed(0)
    hidden, weight = (torch.randn(size, 16, generator=generator).requires_grad_() for size in (50, 40))
    ids = torch.randint(0, 40, (50,), generator=generator)
    push = torch.randn(50, generator=generator)
    found = []
    for way in ("ours", "dense"):
        with torch.autocast("cpu", torch.bfloat16):
            if way == "ours":
                stats = logprobs.token_stats(hidden, weight, None, ids).logprobs
            else:
                stats = F.linear(hidden, weight).float().log_softmax(-1).gather(-1, ids[:, None])[:, 0]
        found.append([stats.detach(), *torch.autograd.grad((stats * push).sum(), (hidden, weight))])
    for ours, dense in zip(*found, strict=True):
        assert ours.dtype == dense.dtype == torch.float32
        assert float((ours - dense).norm() / dense.norm()) < 0.01  # of bf16 products, which are 3 digits


def test_the_head_is_that_of_trl(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("trl")
    monkeypatch.setattr(head, "VOCABULARY", 5000)
    assert all(found <= allowed for found, allowed in head.agreement("trl_logprobs").values())


# Sampling


@pytest.mark.parametrize(("room", "checks"), [(1, 1), (64, 3), (2, 100)])
def test_room_and_rare_checks_change_no_answer(
    vlm: VisionLanguageModel, prompts: list[Prompt], monkeypatch: pytest.MonkeyPatch, room: int, checks: int
) -> None:
    free = replace(vlm.engine(rows_at_once=8), eos_ids=(-1,)).generate(prompts, n=3, max_new_tokens=9, seed=0)
    ends = tuple(token for token, _ in Counter(torch.cat([each.response_ids for each in free]).tolist()).most_common(6))
    engine = replace(vlm.engine(rows_at_once=8), eos_ids=ends)
    expected = engine.generate(prompts, n=3, max_new_tokens=9, seed=0)
    assert len({len(each.response_ids) for each in expected}) > 2
    monkeypatch.setattr(decoding, "ROOM", room)
    monkeypatch.setitem(hf.STEPS_BETWEEN_CHECKS, "cpu", checks)
    for one, other in zip(engine.generate(prompts, n=3, max_new_tokens=9, seed=0), expected, strict=True):
        assert torch.equal(one.response_ids, other.response_ids) and one.finish_reason == other.finish_reason
        torch.testing.assert_close(one.logprobs, other.logprobs, rtol=0, atol=1e-5)
        torch.testing.assert_close(one.entropy, other.entropy, rtol=0, atol=1e-5)


def test_prompts_shared_while_sampling_change_no_answer(
    vlm: VisionLanguageModel, prompts: list[Prompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers end at different times, those of whole prompts among them."""
    made: list[Any] = []

    def spy(prompts: Any, rows: Tensor, *, attention: str, device: torch.device) -> Any:
        own = attention if sharing else "eager"
        made.append(decoding.sampling_cache(prompts, rows, attention=own, device=device))
        return made[-1]

    monkeypatch.setattr(hf, "sampling_cache", spy)
    free = replace(vlm.engine(rows_at_once=16), eos_ids=(-1,))
    sharing: list[bool] = []
    plain = free.generate(prompts, n=3, max_new_tokens=9, seed=0)
    common = Counter(torch.cat([each.response_ids for each in plain]).tolist()).most_common(12)
    engine = replace(free, eos_ids=tuple(token for token, _ in common))
    apart = engine.generate(prompts, n=3, max_new_tokens=9, seed=0)
    sharing.append(True)
    together = engine.generate(prompts, n=3, max_new_tokens=9, seed=0)
    for one, other in zip(apart, together, strict=True):
        assert torch.equal(one.response_ids, other.response_ids)
        torch.testing.assert_close(one.logprobs, other.logprobs, rtol=0, atol=1e-5)
    left = [cache.layers[0] for cache in made[1:]]
    assert left[0].keys.shape[0] < 12  # rows were dropped
    assert left[1].prompt_keys.shape[0] < 4  # and so were whole prompts
    assert left[1].held <= 9  # a row holds its answer alone


def test_weights_are_cast_once_a_rollout_and_not_once_a_token(
    fresh_vlm: VisionLanguageModel, prompts: list[Prompt]
) -> None:
    class Casts(TorchDispatchMode):
        count = 0

        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if "_to_copy" in str(function) and any(args[0] is weight for weight in weights):
                self.count += 1
            return function(*args, **(kwargs or {}))

    fresh_vlm.policy.compute = torch.bfloat16
    weights = list(fresh_vlm.policy.parameters())
    counts = []
    for length in (2, 8):
        with Casts() as casts:
            fresh_vlm.engine(rows_at_once=64).generate(prompts, n=2, max_new_tokens=length, seed=0)
        counts.append(casts.count)
    assert 0 < counts[0] == counts[1] <= len(weights)


# The command


def test_the_table_and_the_verdicts() -> None:
    figure = Figure("a", "MB", ours=1.0, peer=4.0, peer_name="b", goal=0.5)
    assert figure.met is True and figure.ratio == 0.25
    assert replace(figure, goal=0.2).met is False and replace(figure, at_least=True).met is False
    assert replace(figure, checks={"log-prob": (1e-3, 1e-5)}).met is False
    assert replace(figure, peer=None).met is None and "not installed" in table([replace(figure, peer=None)])
    assert "| a, MB | 1 | 4 (b) | 0.25 | ratio ≤ 0.5 | yes |" in table([figure])


def test_the_page_keeps_what_is_around_its_tables(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    marks = {name: (run.BEGIN.format(name), run.END.format(name)) for name in ("figures", "savings")}
    page.write_text(
        "before\n\n{}\nold\n{}\n\nbetween\n{}\nstale\n{}\nafter\n".format(*marks["figures"], *marks["savings"])
    )
    figure = Figure("a", "MB", ours=1.0, peer=4.0, peer_name="b", goal=0.5)
    run.write_page(page, {"figures": table([figure]), "savings": savings_table([figure])})
    text = page.read_text()
    assert text.startswith("before") and text.endswith("after\n") and "between" in text
    assert "old" not in text and "stale" not in text and "| a, MB |" in text and "| a | 1.000 | 4.000 | 75% |" in text
    page.write_text("nothing")
    with pytest.raises(ValueError, match="allowed is a page with the lines"):
        run.write_page(page, {"figures": ""})


def test_figures_of_an_earlier_run_are_added(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = Figure("a", "MB", ours=1.0, peer=4.0, peer_name="b", goal=0.5, checks={"c": (1.0, 2.0)})
    for name in run.FIGURES:
        monkeypatch.setitem(run.FIGURES, name, lambda name=name: [replace(made, name=name)])
    file = tmp_path / "figures.json"
    monkeypatch.setattr(run, "apart", lambda name: [replace(made, name=name)])
    assert run.main(["head,padding", "--json", str(file)]) == 0
    monkeypatch.setattr(run, "apart", None)  # one name is measured here
    monkeypatch.setitem(run.FIGURES, "padding", lambda: [replace(made, name="again", ours=3.0)])
    assert run.main(["padding", "--add", str(file), "--json", str(file)]) == 1  # a goal is missed
    assert [one.name for each in run.measured(file).values() for one in each] == ["head", "again"]
    assert run.measured(file)["head"] == [replace(made, name="head")]
    assert run.main(["--add", str(file)]) == 1 and "| again, MB |" in capsys.readouterr().out
    monkeypatch.setattr(run, "versions", lambda: {"torch": "0"})
    with pytest.raises(ValueError, match="measured with"):
        run.measured(file)


def test_a_figure_in_a_process_of_its_own_is_the_same() -> None:
    assert run.apart("padding") == padding.measure()


def test_a_figure_whose_process_fails_is_named() -> None:
    with pytest.raises(RuntimeError, match="nothing was not measured: its process ended with 2"):
        run.apart("nothing")


def test_the_parts_of_a_rollout_add_up(vlm: VisionLanguageModel, prompts: list[Prompt]) -> None:
    engine = vlm.engine(rows_at_once=8)
    found = profile.parts(lambda: engine.generate(prompts, n=2, max_new_tokens=4, seed=0))
    whole = found.pop("all")
    assert all(cost["products"] >= 0 for cost in found.values()) and found[profile.DRAWS]["products"] == 0
    assert all(found[part]["products"] > 0 for part in (profile.TOWER, profile.PROMPTS, profile.STEPS))
    assert whole["products"] == pytest.approx(sum(cost["products"] for cost in found.values()))


def test_our_divergence_is_trls_on_answers_that_the_student_drew() -> None:
    pytest.importorskip("trl")
    prompts = [build(0).encoder(question) for question in samples(1, side=112)]
    for name, (found, allowed) in step.identity(prompts, response=24).items():
        assert found <= allowed, name
