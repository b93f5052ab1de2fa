"""Real handwriting for the benchmark: 1,797 digits of 8x8 pixels, kept beside this file as `digits.npz`.

Source: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998
(https://doi.org/10.24432/C50P49), CC BY 4.0; the copy that scikit-learn ships (`sklearn.datasets.load_digits`), which
is the original's test part. Pixels are counts 0..16 of inked pixels in a 4x4 block. Nothing but the storage type was
changed. `python -m reopold_vl.zoo.digits` writes the file again from scikit-learn.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Split = Literal["train", "validation", "test"]
FILE = Path(__file__).with_name("digits.npz")


@lru_cache(maxsize=1)
def load() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Pixels [1797, 8, 8] in 0..16 and labels [1797]."""
    with np.load(FILE, allow_pickle=False) as data:
        return data["pixels"], data["labels"]


@lru_cache(maxsize=3)
def samples_by_label(split: Split) -> tuple[tuple[int, ...], ...]:
    """For every label 0..9 the sample numbers that belong to this split: 70 % train, 10 % validation, 20 % test.

    The parts are disjoint and fixed: every label's samples in file order, dealt in rounds of ten.
    """
    home = {8: "test", 9: "test", 7: "validation"}
    _, labels = load()
    chosen = []
    for label in range(10):
        members = np.flatnonzero(labels == label)
        chosen.append(tuple(int(n) for i, n in enumerate(members) if home.get(i % 10, "train") == split))
    return tuple(chosen)


def extract(path: Path = FILE) -> None:
    """Write `digits.npz` from scikit-learn's copy (scikit-learn is needed for this only)."""
    from sklearn.datasets import load_digits

    flat, labels = load_digits(return_X_y=True)
    pixels = np.asarray(flat, dtype=np.uint8).reshape(-1, 8, 8)
    np.savez_compressed(path, pixels=pixels, labels=np.asarray(labels, dtype=np.uint8))


if __name__ == "__main__":
    extract()
    print(f"wrote {FILE}: {load()[0].shape[0]} digits")
