"""Which samples a run trains on, which it watches while training, and which it is judged by in the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import overload

import numpy as np

from reopold_vl.data import DataError, load_samples
from reopold_vl.holdout import split_holdout
from reopold_vl.types import VisualSample
from reopold_vl.zoo.task import problem, problems

HOLDOUT_SHARE = 0.2  # of a single file, at most: the rest is what the user brought it for


@dataclass(frozen=True)
class Splits:
    """Three lots of samples that share no image, and what the user should know about how they came to be."""

    train: Sequence[VisualSample]
    validation: Sequence[VisualSample]
    test: Sequence[VisualSample]
    notes: tuple[str, ...] = ()


class EmbeddedTrain(Sequence[VisualSample]):
    """The embedded benchmark's training problems, drawn when asked for."""

    def __init__(self, num: int) -> None:
        self._num = num

    def __len__(self) -> int:
        return self._num

    @overload
    def __getitem__(self, index: int) -> VisualSample: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[VisualSample]: ...
    def __getitem__(self, index: int | slice) -> VisualSample | Sequence[VisualSample]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self._num))]
        if not 0 <= index < self._num:
            raise IndexError(index)
        return problem("train", index).sample


def embedded_splits(*, validation_rows: int, test_rows: int, train_rows: int = 10_000) -> Splits:
    """The embedded benchmark; its splits share no image by construction."""
    validation = problems("validation", validation_rows) if validation_rows else []
    test = problems("test", test_rows) if test_rows else []
    return Splits(EmbeddedTrain(train_rows), validation, test)


def file_splits(
    path: str,
    *,
    test_path: str | None,
    validation_rows: int,
    test_rows: int,
    min_rows: int,
    limit: int | None,
    allow_url: bool,
    seed: int,
    require_image: bool = True,
) -> Splits:
    """Split the user's rows: validation (and test, without `test_path`) are held out such that no image is shared.

    Held-out rows are at most a fifth of `path`. Raises DataError for unreadable data or fewer than `min_rows` rows
    left to train on.
    """
    loaded = load_samples(Path(path), min_rows=min_rows, limit=limit, allow_url=allow_url, require_image=require_image)
    notes = [f"{path}: {loaded.summary()}"]
    wanted = validation_rows + (0 if test_path else test_rows)
    affordable = min(int(len(loaded.samples) * HOLDOUT_SHARE), len(loaded.samples) - min_rows)
    holdout = split_holdout(loaded.samples, min(wanted, affordable), seed=seed)
    if holdout.shared:
        notes.append(f"{holdout.shared} held-out rows show an image that is trained on: accuracy will flatter")
    held = list(holdout.held_out)
    Random(seed).shuffle(held)
    share = validation_rows / wanted if wanted else 0.0
    num_validation = min(len(held), round(len(held) * share))
    validation, test = held[:num_validation], held[num_validation:]
    if test_path is not None:
        separate = load_samples(
            Path(test_path), limit=test_rows or None, allow_url=allow_url, require_image=require_image
        )
        notes.append(f"{test_path}: {separate.summary()}")
        test = list(separate.samples)
    notes.append(f"{len(holdout.train)} rows to train on, {len(validation)} for validation, {len(test)} for the test")
    if len(holdout.train) < min_rows:
        raise DataError(
            f"{path}: {len(holdout.train)} rows to train on are fewer than {min_rows}: lower --prompts-per-step"
        )
    return Splits(holdout.train, validation, test, tuple(notes))


def draw(samples: Sequence[VisualSample], count: int, *, seed: int, step: int) -> list[VisualSample]:
    """The samples of one step: a function of (seed, step) alone, so resuming needs no sampler state.

    Every epoch is a permutation of its own and each sample comes once in it; a step may straddle two epochs.
    """
    places = np.arange(step * count, (step + 1) * count)
    orders = {
        epoch: np.random.default_rng([seed, int(epoch)]).permutation(len(samples))
        for epoch in set(places // len(samples))
    }
    return [samples[int(orders[place // len(samples)][place % len(samples)])] for place in places]
