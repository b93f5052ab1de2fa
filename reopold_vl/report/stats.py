"""Accuracies with what they are worth: score intervals for one share, bootstrap intervals for a difference."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist


@dataclass(frozen=True)
class Accuracy:
    """`correct` right answers out of `total`; raises `ValueError` unless 0 <= correct <= total and total >= 1."""

    correct: int
    total: int

    def __post_init__(self) -> None:
        if self.total < 1 or not 0 <= self.correct <= self.total:
            raise ValueError(f"{self.correct} right answers out of {self.total} is no accuracy")

    @property
    def value(self) -> float:
        """The share of right answers, 0 to 1."""
        return self.correct / self.total

    @property
    def interval(self) -> tuple[float, float]:
        """Its Wilson interval at 95 %."""
        return wilson_interval(self.correct, self.total)


def wilson_interval(successes: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    r"""The score interval for a binomial share: (low, high), within [0, 1], without continuity correction.

    Every share p that a two-sided score test would not reject given p_hat = successes / n, that is the solution of
    |p_hat - p| <= z sqrt(p (1 - p) / n):

        (p_hat + z^2 / 2n  -+  z sqrt(p_hat (1 - p_hat) / n + z^2 / 4n^2)) / (1 + z^2 / n)

    It keeps its promise near 0 and 1, where p_hat -+ 1.96 standard errors does not.

    E. B. Wilson, "Probable inference, the law of succession, and statistical inference", Journal of the American
    Statistical Association 22 (1927), 209-212. Compared with six others in R. G. Newcombe, Statistics in Medicine 17
    (1998), 857-872 (method 3).

    Raises `ValueError` for total < 1, successes outside 0..total, confidence outside (0, 1).
    """
    if total < 1 or not 0 <= successes <= total:
        raise ValueError(f"no interval for {successes} successes out of {total}")
    share = successes / total
    z = normal_quantile(confidence)
    centre = share + z * z / (2 * total)
    reach = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    # At the ends the exact bounds are 0 and 1; rounding must not leave them a hair outside or inside.
    low = 0.0 if successes == 0 else (centre - reach) / scale
    high = 1.0 if successes == total else (centre + reach) / scale
    return low, high


def paired_difference(
    a: Sequence[bool], b: Sequence[bool], *, seed: int, confidence: float = 0.95, resamples: int = 10_000
) -> tuple[float, float, float]:
    """Accuracy of `a` minus accuracy of `b` on the same items: (difference, low, high), each in [-1, 1].

    A percentile bootstrap over items (B. Efron, Annals of Statistics 7 (1979), 1-26). An item can only say -1, 0 or
    1, so the resampled sums are drawn as multinomial counts of the three, which is the same distribution as drawing
    items with replacement, without the items. When all items agree the interval has no width: the data hold no
    disagreement to resample.

    Raises `ValueError` for lists that are empty or of different lengths, and confidence outside (0, 1).
    """
    import numpy as np

    if len(a) != len(b) or not a:
        raise ValueError(f"a paired difference needs the same items twice, not {len(a)} and {len(b)} of them")
    tail = 100 * (1 - _checked(confidence)) / 2
    total = len(a)
    better = sum(bool(x) and not y for x, y in zip(a, b, strict=True))
    worse = sum(bool(y) and not x for x, y in zip(a, b, strict=True))
    shares = [better / total, worse / total, (total - better - worse) / total]
    counts = np.random.default_rng(seed).multinomial(total, shares, size=resamples)
    low, high = np.percentile((counts[:, 0] - counts[:, 1]) / total, [tail, 100 - tail])
    return (better - worse) / total, float(low), float(high)


def _checked(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, not {confidence}")
    return confidence


def normal_quantile(confidence: float = 0.95) -> float:
    """The standard normal quantile of a two-sided interval: (1 - confidence) / 2 lies above it."""
    return NormalDist().inv_cdf(0.5 + _checked(confidence) / 2)
