"""How many tokens a prompt has under a given processor, images included, without making a tensor of any image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from data_recipes.types import RecipeError
from reopold_vl.types import VisualSample

Size = tuple[int, int]
CountPrompt = Callable[[VisualSample, Sequence[Size]], int]


def token_counter(processor: str, *, min_pixels: int = 4 * 28 * 28, max_pixels: int) -> CountPrompt:
    """A function (sample, image sizes) -> tokens of the chat prompt, as `reopold_vl.prompts` encodes it.

    `processor` is a model directory, a Hub id or an embedded model; the pixel budget is that of training. Raises
    RecipeError where it cannot be loaded; the function raises ValueError for a sample that cannot be a prompt (one
    whose text holds a special token of the model among them, as training does).
    """
    import reopold_vl.torchvision_shim  # noqa: F401  (before transformers' image code)

    # isort: split
    from PIL import Image
    from transformers import AutoProcessor

    from reopold_vl.images import fit_image
    from reopold_vl.models import ModelError, resolve
    from reopold_vl.prompts import messages

    try:
        loaded: Any = AutoProcessor.from_pretrained(resolve(processor))
    except ModelError as error:
        raise RecipeError(f"processor: {error}") from error
    except (OSError, ValueError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise RecipeError(f"processor is {processor}: no processor can be loaded ({first})") from error
    images: Any = getattr(loaded, "image_processor", None)
    if not hasattr(images, "patch_size") or not hasattr(images, "merge_size"):
        allowed = "one whose images are a grid of patches, such as Qwen-VL's or GLM-4V's"
        raise RecipeError(f"processor is {processor}, a {type(loaded).__name__}: allowed is {allowed}")
    factor = images.patch_size * images.merge_size

    @lru_cache(maxsize=4096)
    def image_tokens(size: Size) -> int:
        # The very function that prompts are made with, on a blank of that size: shapes it pads or shrinks included.
        fitted = fit_image(Image.new("RGB", size), factor=factor, min_pixels=min_pixels, max_pixels=max_pixels)
        return (fitted.width // factor) * (fitted.height // factor)

    forbidden = loaded.tokenizer.all_special_tokens

    def written(sample: VisualSample) -> str:
        return " ".join([sample.question, *(sample.choices or ()), sample.system or ""])

    def count(sample: VisualSample, sizes: Sequence[Size]) -> int:
        # `messages` asks only how many images there are.
        counted = VisualSample(
            sample.id, sample.question, None, tuple(sizes), sample.choices, sample.source, sample.system
        )
        if special := next((token for token in forbidden if token in written(sample)), None):
            raise ValueError(f"the text contains the special token {special!r}")
        text = loaded.apply_chat_template(messages(counted), tokenize=False, add_generation_prompt=True)
        ids = loaded.tokenizer(text)["input_ids"]
        return len(ids) - len(sizes) + sum(image_tokens(size) for size in sizes)

    return count
