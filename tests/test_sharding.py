"""Models that are cut up (FSDP2): which passes processes make together, and when gradients are handed over."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
import torch.distributed as dist
from tiny import random_rollouts
from torch.distributed.fsdp._fully_shard import _fsdp_param_group as fsdp
from torch.distributed.tensor import DTensor

from benchmarks.parity import gradient_error, gradients
from reopold_vl import distributed
from reopold_vl.models import VisionLanguageModel
from reopold_vl.recompute import recompute_layers
from reopold_vl.sharding import Groups, collate_together, common_passes, make_filler, shard
from reopold_vl.types import Prompt, Rollout


@pytest.fixture
def rollouts(fresh_vlm: VisionLanguageModel, prompts: list[Prompt]) -> list[Rollout]:
    return random_rollouts(fresh_vlm, prompts, n=3, seed=3)


@pytest.fixture
def process() -> Iterator[None]:
    """A group of one process: what is exchanged stays here."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("again", [False, True], ids=["kept", "computed again"])
def test_each_pass_hands_its_gradients_over_before_the_next_begins(
    fresh_vlm: VisionLanguageModel,
    rollouts: list[Rollout],
    process: None,
    monkeypatch: pytest.MonkeyPatch,
    again: bool,
) -> None:
    """Otherwise one process would hold the whole decoder's gradients until the prompts' pass."""
    plain, layers = copy.deepcopy(fresh_vlm.policy), fresh_vlm.policy.model.config.get_text_config().num_hidden_layers
    if again:
        recompute_layers(fresh_vlm.policy.model)
    filler = shard(fresh_vlm, device=torch.device("cpu"), compute=torch.float32, fetch_tokens=0)
    events: list[str] = []
    reduce, read = fsdp.foreach_reduce, fsdp.FSDPParamGroup.pre_backward

    def spy_reduce(*args: Any, **settings: Any) -> Any:
        events.append("reduce")
        return reduce(*args, **settings)

    def spy_read(self: Any, *args: Any, **settings: Any) -> Any:
        if "language_model.layers" in str(self._module_fqn):
            events.append("layer")
        return read(self, *args, **settings)

    monkeypatch.setattr(fsdp, "foreach_reduce", spy_reduce)
    monkeypatch.setattr(fsdp.FSDPParamGroup, "pre_backward", spy_read)
    [groups] = common_passes(fresh_vlm.policy, filler, [rollouts])
    assert groups
    for policy, read_as in ((fresh_vlm.policy, groups), (plain, None)):
        batch = collate_together(rollouts, read_as, filler, pad_id=fresh_vlm.pad_id)
        policy(batch, batch.mask).logprobs.square().sum().backward()
    cut_up = gradients(fresh_vlm.policy).items()
    whole = {name: each.full_tensor() if isinstance(each, DTensor) else each for name, each in cut_up}
    assert gradient_error(whole, gradients(plain)) < 1e-5
    decoder = events[: 2 * layers * (len(groups) + 1)]
    assert decoder == ["layer", "reduce"] * (len(decoder) // 2)  # in turns: of one layer of one pass each


def test_a_pass_that_goes_along_reads_one_token(
    fresh_vlm: VisionLanguageModel, rollouts: list[Rollout], tokens_read: list[tuple[int, int]]
) -> None:
    fresh_vlm.policy.in_step = True
    rows = list(range(len(rollouts)))
    found = []
    for groups in ([rows], [rows, []]):
        batch = collate_together(rollouts, groups, None, pad_id=fresh_vlm.pad_id)
        found.append(fresh_vlm.policy(batch, batch.mask).logprobs)
    assert torch.equal(*found)
    assert tokens_read[-1] == (1, 1) and len(tokens_read) == 5


@pytest.mark.parametrize(
    ("wanted_elsewhere", "expected"),
    [
        ([], [2]),  # the other has nothing to do: it goes along
        ([0], [2]),  # its prompts are read with each answer, alone: here they are read once, and there too
        ([3], [3]),
        ([1, 2], [2, 2]),  # a pass more there: the filler goes along here
        ([0, 0], [2, 0]),
    ],
)
def test_processes_agree_on_their_passes(
    fresh_vlm: VisionLanguageModel,
    prompts: list[Prompt],
    monkeypatch: pytest.MonkeyPatch,
    wanted_elsewhere: list[int],
    expected: list[int],
) -> None:
    zeros = [torch.zeros(length) for length in (400, 400, 1, 1)]  # two groups of answers
    rollouts = [Rollout(prompts[0], each.long(), each, each, "length") for each in zeros]
    passes = agreed(fresh_vlm, monkeypatch, [rollouts], wanted_elsewhere)
    assert [len(groups or ()) for groups in passes] == expected
    assert sorted(row for group in passes[0] or () for row in group) == [0, 1, 2, 3]
    assert all(group in ([0], []) for groups in passes[1:] for group in groups or ())


def test_one_process_shares_prompts_because_another_does(
    fresh_vlm: VisionLanguageModel, prompts: list[Prompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By itself it would read its only answer with its prompt."""
    zeros = torch.zeros(3)
    alone = [Rollout(prompts[0], zeros.long(), zeros, zeros, "length")]
    assert agreed(fresh_vlm, monkeypatch, [alone], [2]) == [[[0], []]]
    assert agreed(fresh_vlm, monkeypatch, [alone], [0]) == [[]]


def agreed(
    vlm: VisionLanguageModel,
    monkeypatch: pytest.MonkeyPatch,
    pieces: Sequence[Sequence[Rollout]],
    elsewhere: list[int],
) -> list[Groups | None]:
    """The passes of a cut-up model when another process wants `elsewhere` groups in its passes."""
    monkeypatch.setattr(distributed, "gather_json", lambda own: [own, elsewhere])
    vlm.policy.in_step, vlm.policy.fetch_tokens = True, 0
    return common_passes(vlm.policy, make_filler(vlm), pieces)
