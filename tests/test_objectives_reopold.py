"""REOPOLD's floor, its two phases, and which tokens "the top share" is."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from objective_cases import F, T, example, scored

from reopold_vl.objectives import Reopold, ReverseKL
from reopold_vl.objectives.reopold import floor, top_entropy


def test_reopold_without_floor_and_selection_is_reverse_kl() -> None:
    batch, plain = example(), ReverseKL()(example(), step=0)
    for objective in (Reopold(1e-300, 1.0, switch_step=0), Reopold(1e-300, 0.2, switch_step=None)):
        signal = objective(batch, step=0)
        assert torch.equal(signal.mask, plain.mask)
        assert torch.equal(signal.advantages, plain.advantages)


def test_floor_values() -> None:
    assert floor(0.3) == pytest.approx(-1.720, abs=5e-4)
    assert floor(0.1) == pytest.approx(-2.558, abs=5e-4)
    assert floor(0.3, "odds") == pytest.approx(-0.847, abs=5e-4)
    assert floor(0.5, "odds") == 0


@pytest.mark.parametrize("mixture", [0.05, 0.3, 0.8])
def test_the_floor_bounds_the_mixture_reward(mixture: float) -> None:
    """Where the floor comes from: log(lambda pi_S + (1-lambda) pi_T) - log pi_S >= (1-lambda) max(R, floor)."""
    rewards = torch.linspace(-12, 12, 97, dtype=torch.float64)
    mixed = torch.log(mixture + (1 - mixture) * rewards.exp())
    assert bool((mixed >= (1 - mixture) * rewards.clamp(min=floor(mixture)) - 1e-12).all())
    assert float(mixed.min()) == pytest.approx((1 - mixture) * floor(mixture), abs=1e-3)


def test_a_high_entropy_token_below_the_floor_is_kept_at_the_floor() -> None:
    rewards, entropy = torch.tensor([[-9.0, -1.0, 0.5, -0.2]]), torch.tensor([[3.0, 1.0, 0.5, 0.1]])
    batch = scored(rewards, entropy, torch.ones(1, 4, dtype=torch.bool))
    refined = Reopold(0.3, 0.25, switch_step=5)(batch, step=5)
    assert refined.mask.tolist() == [[T, F, F, F]]
    assert float(refined.advantages[0, 0]) == pytest.approx(floor(0.3))
    explored = Reopold(0.3, 0.25, switch_step=5)(batch, step=4)
    assert explored.mask.tolist() == [[F, T, T, T]]


def test_a_token_that_the_teacher_excludes_is_clipped_not_infinite() -> None:
    rewards = torch.tensor([[-math.inf, -9999.0, 0.5]])
    batch = scored(rewards, torch.ones(1, 3), torch.ones(1, 3, dtype=torch.bool))
    signal = Reopold(0.3, 1.0, switch_step=0)(batch, step=0)
    assert signal.advantages[0].tolist() == pytest.approx([floor(0.3), floor(0.3), 0.5])


def test_metrics_say_floor_share_clipped_and_phase() -> None:
    objective = Reopold(0.3, 0.4, switch_step=20)
    explored, refined = objective(example(), step=0).metrics, objective(example(), step=20).metrics
    assert explored == {
        "reopold/floor": pytest.approx(-1.719961, abs=1e-6),
        "reopold/clipped": pytest.approx(2 / 7),
        "reopold/phase": 0.0,
    }
    assert refined == {**explored, "reopold/phase": 1.0}


def test_the_entropy_threshold_is_of_the_whole_batch() -> None:
    """Row 0 holds all the uncertain tokens; taken row by row, half of each row would be kept."""
    entropy = torch.tensor([[2.0, 2.1, 2.2, 2.3], [0.1, 0.2, 0.3, 0.4]])
    mask = torch.ones(2, 4, dtype=torch.bool)
    assert top_entropy(entropy, mask, 0.5).tolist() == [[T, T, T, T], [F, F, F, F]]
    by_row = torch.cat([top_entropy(entropy[[row]], mask[[row]], 0.5) for row in (0, 1)])
    assert by_row.sum() == 4 and by_row[1].any()


def test_ties_at_the_threshold_are_all_kept() -> None:
    entropy = torch.tensor([[1.0, 3.0, 2.0, 2.0, 2.0]])
    mask = torch.tensor([[T, T, T, T, F]])
    assert top_entropy(entropy, mask, 0.5).tolist() == [[F, T, T, T, F]]  # ceil(0.5 * 4) = 2, and one tie


@pytest.mark.parametrize(
    ("share", "tokens", "kept"),
    [
        (0.07, 100, 7),  # 0.07 * 100 = 7.000000000000001
        (0.29, 100, 29),  # 28.999999999999996
        (0.2, 35, 7),
        (0.2, 36, 8),
        (0.2, 1, 1),
        (1e-6, 100, 1),
        (1.0, 100, 100),
        (0.55, 100, 55),  # 55.00000000000001
    ],
)
def test_exactly_ceil_of_share_times_tokens_are_kept(share: float, tokens: int, kept: int) -> None:
    entropy = torch.randperm(tokens, generator=torch.Generator().manual_seed(0)).float()[None]
    chosen = top_entropy(entropy, torch.ones(1, tokens, dtype=torch.bool), share)
    assert int(chosen.sum()) == kept
    assert sorted(entropy[chosen].tolist()) == list(range(tokens - kept, tokens))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mixture": 0.0}, r"objective\.mixture .*is 0\.0: allowed is 0 < mixture < 1"),
        ({"mixture": 1.0}, r"objective\.mixture .*is 1\.0: allowed is 0 < mixture < 1"),
        ({"mixture": -0.3}, r"objective\.mixture .*is -0\.3: allowed"),
        ({"mixture": math.nan}, r"objective\.mixture .*is nan: allowed"),
        ({"entropy_share": 0.0}, r"objective\.entropy_share .*is 0\.0: allowed is 0 < share <= 1"),
        ({"entropy_share": 1.5}, r"objective\.entropy_share .*is 1\.5: allowed is 0 < share <= 1"),
        ({"entropy_share": math.nan}, r"objective\.entropy_share .*is nan: allowed"),
        ({"switch_step": -1}, r"objective\.switch_step is -1: allowed is 0 or more"),
        ({"mixture": 0.6, "floor_form": "odds"}, r"objective\.mixture is 0\.6: .*odds.*0\.5"),
    ],
)
def test_values_out_of_range_name_field_value_and_allowed(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Reopold(**settings)
