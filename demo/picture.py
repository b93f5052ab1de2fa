"""Whatever a visitor uploads, as a picture of a size that is safe to work on; or one line saying why not."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from demo.errors import DemoError

if TYPE_CHECKING:
    from PIL.Image import Image

    from reopold_vl.types import VisualSample

MAX_UPLOAD_BYTES = 20 * 2**20
MAX_PIXELS = 40_000_000
MAX_SIDE = 2048  # pixels kept of the longer side: more than any model here takes
MAX_QUESTION_CHARACTERS = 20_000


def read_picture(source: Any) -> Image:
    """One upload as upright RGB, shrunk to MAX_SIDE; of an animation the first frame.

    Raises DemoError for what is no picture, is damaged, or has more than MAX_UPLOAD_BYTES or MAX_PIXELS.
    """
    from reopold_vl.images import ImageError, image_size, load_image

    if isinstance(source, str | Path):
        path = Path(source)
        if not path.is_file():
            raise DemoError("picture: the upload is gone; choose it once more")
        if path.stat().st_size > MAX_UPLOAD_BYTES:
            raise DemoError(
                f"picture: {path.stat().st_size / 2**20:.0f} MB; allowed are {MAX_UPLOAD_BYTES // 2**20} MB"
            )
    try:
        width, height = image_size(source)
        if width * height > MAX_PIXELS:
            raise DemoError(f"picture: {width} x {height} pixels; allowed are {MAX_PIXELS // 10**6} million")
        image = load_image(source)
    except ImageError as error:
        raise DemoError(f"picture: {str(error).rpartition(': ')[2]}") from error
    if max(image.size) > MAX_SIDE:
        image.thumbnail((MAX_SIDE, MAX_SIDE))
    return image


def make_sample(image: Image | None, question: Any, gold: str | None = None, source: str = "") -> VisualSample:
    """What the models are asked; raises DemoError for an empty or endless question."""
    from reopold_vl.types import VisualSample

    if not isinstance(question, str) or not question.strip():
        raise DemoError("question: there is none; type one and ask again")
    if len(question) > MAX_QUESTION_CHARACTERS:
        raise DemoError(f"question: {len(question):,} characters; allowed are {MAX_QUESTION_CHARACTERS:,}")
    return VisualSample("question", question.strip(), gold, images=() if image is None else (image,), source=source)
