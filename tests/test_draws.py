"""Draws against the distributions they come from; the random numbers of an answer against those of its neighbours."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import chi2, kstest

from reopold_vl.rollout.draws import draw_tokens, uniform_numbers

NOTHING = torch.tensor([], dtype=torch.long)  # is banned


def assert_frequencies(tokens: torch.Tensor, probabilities: torch.Tensor) -> None:
    """Pearson's test at one in ten thousand; rare tokens are taken together."""
    observed = torch.bincount(tokens, minlength=len(probabilities)).double()
    expected = probabilities.double() * len(tokens)
    often = expected >= 8
    observed = torch.cat([observed[often], observed[~often].sum()[None]])
    expected = torch.cat([expected[often], expected[~often].sum()[None]])
    if float(expected[-1]) == 0:
        assert float(observed[-1]) == 0
        observed, expected = observed[:-1], expected[:-1]
    statistic = float(((observed - expected) ** 2 / expected).sum())
    assert statistic < chi2.ppf(0.9999, df=len(expected) - 1), (statistic, len(expected))


def uniforms(rows: int) -> torch.Tensor:
    """The first number of that many answers, as the engine makes them."""
    return uniform_numbers(0, range(rows // 4), 4, 1)[:, 0]


@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
def test_frequencies_match_the_softmax(temperature: float) -> None:
    logits = torch.tensor([2.0, 1.0, 0.5, 0.0, 3.0, -1.0])
    banned = torch.tensor([4])
    tokens = draw_tokens(logits.expand(20_000, -1), uniforms(20_000), temperature=temperature, top_p=1.0, banned=banned)
    allowed = logits.index_fill(0, banned, -torch.inf)
    assert_frequencies(tokens, (allowed / temperature).softmax(-1))
    with pytest.raises(AssertionError):
        assert_frequencies(tokens, (allowed / temperature * 1.1).softmax(-1))  # the test does see a small bias


def test_top_p_cuts_the_tail_and_keeps_the_proportions() -> None:
    probabilities = torch.tensor([0.5, 0.3, 0.15, 0.05])
    tokens = draw_tokens(
        probabilities.log().expand(20_000, -1), uniforms(20_000), temperature=1.0, top_p=0.75, banned=NOTHING
    )
    assert_frequencies(tokens, torch.tensor([0.5, 0.3, 0.0, 0.0]) / 0.8)


def test_numbers_depend_on_seed_key_sample_and_place_alone() -> None:
    table = uniform_numbers(7, [3, 10**9, 5], 4, 6)
    assert table.dtype == torch.float64 and table.shape == (12, 6)
    assert torch.equal(uniform_numbers(7, [5], 2, 3), table[8:10, :3])
    assert torch.equal(uniform_numbers(7, [5, 3], 4, 9)[4:, :6], table[:4])
    assert not (uniform_numbers(8, [3, 10**9, 5], 4, 6) == table).any()
    assert len(table.flatten().unique()) == table.numel()
    assert kstest(uniform_numbers(2**63 - 1, range(100), 5, 40).flatten().numpy(), "uniform").pvalue > 1e-3


def test_the_tail_of_a_large_vocabulary_is_reached_and_the_impossible_is_not() -> None:
    """Likely tokens, 10^5 of 1e-9 each (which a float32 sum near 1 cannot hold), and impossible ones between them."""
    weights = torch.zeros(200_000)
    weights[0], weights[1:200_000:2] = 1.0, 1e-9
    points = torch.tensor([0.0, 0.5, 1 - 6e-5, 1 - 5e-5, 1 - 5.001e-5, 1 - 2**-53], dtype=torch.float64)
    tokens = draw_tokens(weights.log().expand(6, -1), points, temperature=1.0, top_p=1.0, banned=NOTHING)
    total = 1.0 + 1e5 * 1e-9
    expected = [2 * int((point * total - 1.0) / 1e-9) + 1 if point * total > 1.0 else 0 for point in points.tolist()]
    assert tokens[:2].tolist() == [0, 0] and (tokens[2:] % 2 == 1).all() and int(tokens[-1]) == 199_999
    assert (tokens[2:5] - torch.tensor(expected[2:5])).abs().max() <= 20  # float32 weights: 1e-7 of 1e5 tokens
    assert int(tokens[3]) > int(tokens[4]) > int(tokens[2])
    edge = torch.tensor([-torch.inf, 0.0, -torch.inf, 0.0, 5.0])
    found = draw_tokens(edge.expand(4, -1), points[[0, 1, 2, 5]], temperature=1.0, top_p=1.0, banned=torch.tensor([4]))
    assert found.tolist() == [1, 3, 3, 3]
