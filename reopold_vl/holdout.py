"""Hold rows out of a data set such that no image is both trained on and measured on."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reopold_vl.data import DataError
from reopold_vl.images import image_reference
from reopold_vl.types import VisualSample


@dataclass(frozen=True)
class Holdout:
    """Training and held-out rows; `shared` of the held-out ones show an image that is trained on (0 if possible)."""

    train: tuple[VisualSample, ...]
    held_out: tuple[VisualSample, ...]
    shared: int = 0


def split_holdout(samples: Sequence[VisualSample], num: int, seed: int = 0) -> Holdout:
    """Hold out at most `num` rows, the same ones for the same seed, such that no image is on both sides.

    Rows with a common image (equal contents; equal questions where there is none) stay together, so fewer than `num`
    rows may come out. Where not even one group fits, rows are split one by one and `shared` counts the leaks.
    Raises DataError unless 0 <= num < len(samples).
    """
    if not 0 <= num < max(1, len(samples)):
        raise DataError(f"held-out rows: {num} of {len(samples)} must be at least 0 and leave one row to train on")
    import networkx

    keys = [[_content_hash(image) for image in s.images] or [_content_hash(s.question.encode())] for s in samples]
    graph = networkx.Graph((row, key) for row, own in enumerate(keys) for key in own)
    groups = [sorted(n for n in part if isinstance(n, int)) for part in networkx.connected_components(graph)]
    random.Random(seed).shuffle(groups)
    chosen: set[int] = set()
    for group in groups:
        chosen.update(group if len(chosen) + len(group) <= num else ())
    if num and not chosen:
        chosen.update(random.Random(seed).sample(range(len(samples)), num))
    trained = {key for row, own in enumerate(keys) if row not in chosen for key in own}
    train = tuple(sample for row, sample in enumerate(samples) if row not in chosen)
    shared = sum(not trained.isdisjoint(keys[row]) for row in chosen)
    return Holdout(train, tuple(samples[row] for row in sorted(chosen)), shared)


def _content_hash(image: Any) -> str:
    data = image.read_bytes() if isinstance(image := image_reference(image), Path) else image
    return hashlib.sha256(data if isinstance(data, bytes) else data.tobytes()).hexdigest()
