"""Rows to train and to measure on, and the size of their images."""

from __future__ import annotations

from dataclasses import dataclass

from reopold_vl.config.base import require


@dataclass(frozen=True)
class DataConfig:
    """Training rows and the rows held out to measure on."""

    path: str | None = None
    """A jsonl, json or parquet file, or a directory of jsonl or parquet files, with image/images, question (or TRL's
    prompt) and answer; None takes the embedded benchmark."""

    test_path: str | None = None
    """Rows for the final table; None holds them out from data.path."""

    validation_rows: int = 220
    """Held-out rows for the accuracy shown while training."""

    test_rows: int = 2200
    """Held-out rows for the final table (at most a fifth of data.path goes to both kinds together)."""

    limit: int | None = None
    """Read at most this many rows of data.path."""

    require_image: bool = True
    """Skip (and count) rows without an image; off, they become questions of text alone."""

    instruction: str = ""
    """Text that follows each question on a line of its own, such as a request for the answer's form."""

    def __post_init__(self) -> None:
        require(self.validation_rows >= 0, "data.validation_rows", self.validation_rows, "0 or more")
        require(self.test_rows >= 0, "data.test_rows", self.test_rows, "0 or more")
        require(self.limit is None or self.limit > 0, "data.limit", self.limit, "1 or more")


@dataclass(frozen=True)
class ImageConfig:
    """The pixel budget of one image, shared by student and teacher."""

    min_pixels: int = 4 * 28 * 28
    """Smaller images are enlarged to this area."""

    max_pixels: int = 1280 * 28 * 28
    """Larger images are shrunk to this area; a visual token covers 28x28 (Qwen2.5-VL) or 32x32 pixels (Qwen3-VL)."""

    allow_url: bool = False
    """Fetch images given as http(s) addresses."""

    workers: int = 0
    """Threads that open and process the next step's images while this one runs; 0: none, each step does its own."""

    def __post_init__(self) -> None:
        require(0 < self.min_pixels <= self.max_pixels, "images.min_pixels", self.min_pixels, "1 to images.max_pixels")
        require(self.workers >= 0, "images.workers", self.workers, "0 or more")
