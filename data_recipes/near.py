"""Which of many 64-bit hashes lie within a few bits of this one: multi-index hashing over flat arrays.

Norouzi, Punjani, Fleet, "Fast Search in Hamming Space with Multi-Index Hashing" (2012): cut the hash into four bands;
two hashes at most r bits apart differ by at most r // 4 bits in one of them, so only the buckets around each band's
own value are looked into. 24 bytes an entry, no matter how many there are.
"""

from __future__ import annotations

import itertools
from array import array
from functools import lru_cache

BANDS, BITS = 4, 16
MAX_RADIUS = 11
_MASK = (1 << BITS) - 1


class HashIndex:
    """Hashes in the order in which they were added; `search` gives their positions."""

    def __init__(self) -> None:
        self._codes = array("Q")
        self._heads = [array("i", [-1]) * (1 << BITS) for _ in range(BANDS)]
        self._next = [array("i") for _ in range(BANDS)]

    def __len__(self) -> int:
        return len(self._codes)

    def add(self, code: int) -> None:
        """Append a 64-bit hash."""
        position = len(self._codes)
        self._codes.append(code)
        for band in range(BANDS):
            value = (code >> (band * BITS)) & _MASK
            self._next[band].append(self._heads[band][value])
            self._heads[band][value] = position

    def search(self, code: int, radius: int) -> list[int]:
        """Positions of all hashes at most `radius` bits away, ascending; `radius` is 0 to 11."""
        if not 0 <= radius <= MAX_RADIUS:
            raise ValueError(f"radius={radius} must be 0 to {MAX_RADIUS} bits")
        found: set[int] = set()
        codes = self._codes
        for band in range(BANDS):
            value, heads, following = (code >> (band * BITS)) & _MASK, self._heads[band], self._next[band]
            for flip in _flips(radius // BANDS):
                position = heads[value ^ flip]
                while position >= 0:
                    if (codes[position] ^ code).bit_count() <= radius:
                        found.add(position)
                    position = following[position]
        return sorted(found)


@lru_cache
def _flips(radius: int) -> tuple[int, ...]:
    """All band values with at most `radius` bits set."""
    return tuple(
        sum(1 << bit for bit in bits)
        for count in range(radius + 1)
        for bits in itertools.combinations(range(BITS), count)
    )
