"""From image tensors in CPU memory to visual tokens on the model's device, without waiting for it on the way."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import reopold_vl.torchvision_shim  # noqa: F401  (before transformers' image code)

# isort: split
import torch
from jaxtyping import Int
from torch import Tensor
from transformers import vision_utils

from reopold_vl.collate import PromptBatch, moved
from reopold_vl.families import vision_tower
from reopold_vl.feature_cache import FeatureCache

# Their towers' forward passes take what transformers would otherwise work out from the grids on the device.
PLANNED = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_5")


def encode(model: Any, vision: Mapping[str, Tensor], device: torch.device, cache: FeatureCache | None) -> Any | None:
    """The vision tower's output for all images of `PromptBatch.vision`, or None without images.

    Only images that are not in the cache go to the device.
    """
    if "pixel_values" not in vision:
        return None
    accepted = inspect.signature(model.base_model.get_image_features).parameters
    inputs = {name: tensor for name, tensor in vision.items() if name in accepted}
    run = partial(_run, model, device)
    return run(inputs) if cache is None else cache(run, inputs)


def _run(model: Any, device: torch.device, inputs: Mapping[str, Tensor]) -> Any:
    encode = model.base_model.get_image_features
    tower = vision_tower(model)
    if model.config.model_type not in PLANNED or tower.config._attn_implementation != "sdpa":
        return encode(**{name: moved(tensor, device) for name, tensor in inputs.items()}, return_dict=True)
    grid = inputs["image_grid_thw"]  # stays in CPU memory, where the tower looks at it in every layer
    return encode(
        **{name: moved(tensor, device) for name, tensor in inputs.items() if name != "image_grid_thw"},
        image_grid_thw=grid,
        **tower_plan(tower, grid, device),
        return_dict=True,
    )


def tower_plan(tower: Any, grid: Int[Tensor, "images 3"], device: torch.device) -> dict[str, Tensor]:
    """What one of the PLANNED towers makes of its grids, made in CPU memory; keyword arguments of its forward pass.

    Lengths of pieces stay there, because torch.split wants numbers. What is looked up on the device goes to it.
    """
    merge = tower.config.spatial_merge_size
    plan = {"position_ids": moved(vision_utils.get_vision_position_ids(grid, merge), device)}
    if hasattr(tower, "window_size"):
        index, pieces = vision_utils.get_vision_window_index(
            grid, spatial_merge_size=merge, window_size=tower.window_size, patch_size=tower.patch_size
        )
        plan |= {"window_index": moved(index, device), "cu_window_seqlens": pieces}
    if hasattr(tower, "interpolation_mode"):
        indices, weights = vision_utils.get_vision_interpolation_indices_and_weights(
            grid,
            num_grid_per_side=tower.num_grid_per_side,
            mode=tower.interpolation_mode,
            align_corners=tower.interpolation_align_corners,
            spatial_merge_size=merge,
        )
        plan |= {"interp_indices": moved(indices, device), "interp_weights": moved(weights, device)}
    return plan


@contextmanager
def unchecked_placeholders(model: Any) -> Iterator[None]:
    """Inside it a model of the PLANNED families does not compare the numbers of placeholders and features.

    It would read both from the device; `select_rows` and `refuse_placeholders` have looked in CPU memory.
    """
    if model.config.model_type not in PLANNED:
        yield
        return
    base = model.base_model
    checked = type(base).get_placeholder_mask

    def unchecked(*args: Any, image_features: Any = None, **kwargs: Any) -> Any:
        return checked(base, *args, **kwargs)

    vars(base)["get_placeholder_mask"] = unchecked
    try:
        yield
    finally:
        vars(base).pop("get_placeholder_mask", None)  # another thread may have been here


def refuse_placeholders(model: Any, response_ids: Int[Tensor, "batch time"]) -> None:
    """Raises ValueError where an answer holds the token that stands for an image's visual tokens."""
    placeholder = model.config.image_token_id
    if bool((response_ids == placeholder).any()):
        raise ValueError(f"an answer holds token {placeholder}, which stands for an image: allowed is text")


def select_rows(features: Any | None, prompts: PromptBatch, rows: Sequence[int]) -> Any | None:
    """The image features of the prompts `rows`, in that order and repeated as they are (gradients add up).

    A prompt has as many as it has placeholders, so that several images a prompt or none are no special case. Raises
    RuntimeError where there are not as many features. Qwen3-VL's deep-stack features are taken along.
    """
    if features is None:
        return None
    counts = (prompts.host.token_types == 1).sum(1).tolist()

    def pick(parts: Any) -> Any:
        tokens = torch.cat([part.reshape(-1, part.shape[-1]) for part in parts])
        per_prompt = tokens.split(counts)
        picked = [per_prompt[row] for row in rows]
        return torch.cat(picked) if torch.is_tensor(parts) else picked

    selected = copy.copy(features)
    selected.pooler_output = pick(features.pooler_output)
    if getattr(features, "deepstack_features", None) is not None:
        selected.deepstack_features = [pick(layer) for layer in features.deepstack_features]
    return selected
