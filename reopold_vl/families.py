"""What remains different between model families once transformers' common interface is used; one line a family."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
)


@dataclass(frozen=True)
class Family:
    """How a family takes images, and where its vision layers are (names below `model.base_model`).

    Families with a `grid` take images of any size as patches of `image_processor.patch_size`. The others cut them into
    square tiles, or squeeze them into one: `tile_edge` and `tile_tokens` say where the processor keeps the side of a
    tile in pixels and the number of visual tokens that it becomes.
    """

    tower: str
    projector: tuple[str, ...]
    grid: bool = False
    tile_edge: str = ""
    tile_tokens: str = ""
    nested_images: bool = False
    """The processor wants a list of images for each row of the batch."""
    budget: Callable[[Any, int], dict[str, Any]] | None = None
    """Processor settings that keep an image within so many pixels, where shrinking the image itself does not."""


def _longest_edge(image_processor: Any, max_pixels: int) -> dict[str, Any]:
    """Idefics3 enlarges every image until its longest side is `size`, then cuts it into tiles."""
    tile = image_processor.max_image_size["longest_edge"]
    allowed = max(tile, tile * math.isqrt(max_pixels // tile**2))
    return {"size": {"longest_edge": min(allowed, image_processor.size["longest_edge"])}}


def _number_of_tiles(image_processor: Any, max_pixels: int) -> dict[str, Any]:
    """InternVL takes the number of tiles that fits the image's shape, whatever its size."""
    tile = image_processor.size["height"] * image_processor.size["width"]
    allowed = max(image_processor.min_patches, max_pixels // tile)
    return {"max_patches": min(allowed, image_processor.max_patches)}


_IDEFICS = Family(
    "vision_model",
    ("connector",),
    tile_edge="max_image_size",
    tile_tokens="image_seq_len",
    nested_images=True,
    budget=_longest_edge,
)

FAMILIES: dict[str, Family] = {
    "qwen2_vl": Family("visual", ("visual.merger",), grid=True),
    "qwen2_5_vl": Family("visual", ("visual.merger",), grid=True),
    "qwen3_vl": Family("visual", ("visual.merger", "visual.deepstack_merger_list"), grid=True),
    "qwen3_5": Family("visual", ("visual.merger",), grid=True),
    "glm4v": Family("visual", ("visual.downsample", "visual.merger"), grid=True),
    "smolvlm": _IDEFICS,
    "idefics3": _IDEFICS,
    "internvl": Family(
        "vision_tower",
        ("multi_modal_projector",),
        tile_edge="size",
        tile_tokens="image_seq_length",
        budget=_number_of_tiles,
    ),
    "llava_onevision": Family(
        "vision_tower",
        ("multi_modal_projector", "image_newline"),
        tile_edge="size",
        tile_tokens="num_image_tokens",
        nested_images=True,
    ),
    "gemma3": Family(
        "vision_tower",
        ("multi_modal_projector",),
        tile_edge="size",
        tile_tokens="image_seq_length",
        nested_images=True,
    ),
}


def reason_against(config: Any) -> str | None:
    """Why a model of this configuration cannot be used, or None where its family is known."""
    kind, allowed = config.model_type, ", ".join(FAMILIES)
    if kind in FAMILIES:
        return None
    if kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and kind not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
        return f"{kind} is a text-only model: a vision-language model is needed, allowed are {allowed}"
    return f"model type is {kind}: allowed are {allowed}"


NO_IMAGE_PROCESSOR = "there is no image processor (preprocessor_config.json or processor_config.json is missing)"


def missing_processor(source: str) -> str | None:
    """What a local directory lacks to load a processor from it; None where nothing is known to be missing."""
    files = ("preprocessor_config.json", "processor_config.json")
    found = not Path(source).is_dir() or any(Path(source, file).is_file() for file in files)
    return None if found else NO_IMAGE_PROCESSOR


def processor_fault(processor: Any, config: Any) -> str | None:
    """What a loaded processor lacks for the model of `config`, or None where it is complete."""
    if not hasattr(processor, "image_processor"):
        return NO_IMAGE_PROCESSOR
    if getattr(processor, "chat_template", None) is None:
        return "there is no chat template (chat_template.jinja or chat_template.json is missing)"
    tokens, image = len(processor.tokenizer), config.image_token_id
    if image >= tokens:
        return (
            f"the image token is id {image} and the tokenizer has {tokens} tokens: its files are missing or another's"
        )
    return None


def vision_tower(model: Any) -> Any:
    """The module that is called on the pixels. In families with a patch grid it holds the projector as well, so that
    whoever freezes the tower alone sets the projector free again.
    """
    return _part(model, FAMILIES[model.config.model_type].tower)


def projector(model: Any) -> list[Any]:
    """The modules (and single parameters) between the vision layers and the language model; each has
    `requires_grad_`.
    """
    return [_part(model, name) for name in FAMILIES[model.config.model_type].projector]


def factor(processor: Any, family: str) -> int:
    """Pixels per side of one visual token; rounded in families with tiles."""
    kind = FAMILIES[family]
    if kind.grid:
        return processor.image_processor.patch_size * processor.image_processor.merge_size
    edge = getattr(processor.image_processor, kind.tile_edge)
    side = edge.get("longest_edge") or edge["height"]
    return max(1, round(side / math.sqrt(getattr(processor, kind.tile_tokens))))


def image_settings(processor: Any, family: str, max_pixels: int) -> dict[str, Any]:
    """The processor's `images_kwargs`, for images that `PromptEncoder.images` has brought to their size."""
    kind = FAMILIES[family]
    if kind.grid:
        return {"do_resize": False}  # a second resize with other limits would change the grid
    return kind.budget(processor.image_processor, max_pixels) if kind.budget else {}


def placeholder_ids(config: Any) -> tuple[int, ...]:
    """Token ids that stand for or surround images and videos; none of them belongs into an answer."""
    stems = ("image", "video", "vision_start", "vision_end", "image_start", "image_end", "video_start", "video_end")
    ids = [getattr(config, f"{stem}_token_id", None) for stem in (*stems, "boi", "eoi")]
    return tuple(sorted({token for token in ids if token is not None}))


def _part(model: Any, path: str) -> Any:
    return reduce(getattr, path.split("."), model.base_model)
