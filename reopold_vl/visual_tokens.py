"""From image tensors in CPU memory to visual tokens on the model's device, without waiting for it on the way."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

import reopold_vl.torchvision_shim  # noqa: F401  (before transformers' image code)

# isort: split
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
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


class PatchProduct(nn.Conv3d):
    """A convolution over patches no larger than its kernel: the one product that it is, and not a convolution's kernel.

    transformers can put an `nn.Linear` there while it loads a checkpoint (`fusion_config`); that renames the weight for
    whoever saves, shards or averages weights, and for all models of the process.
    """

    @classmethod
    def take_over(cls, model: Any) -> None:
        """Where the model's tower embeds patches so; weights, and their names and shapes, stay as they are."""
        embed = getattr(getattr(vision_tower(model), "patch_embed", None), "proj", None)
        if (
            type(embed) is nn.Conv3d
            and embed.padding == (0, 0, 0)
            and embed.dilation == (1, 1, 1)
            and embed.groups == 1
        ):
            embed.__class__ = cls

    def forward(self, input: Float[Tensor, "patches channels *kernel"]) -> Float[Tensor, "patches hidden 1 1 1"]:
        if input.shape[2:] != self.kernel_size:
            return super().forward(input)
        return nn.functional.linear(input.flatten(1), self.weight.flatten(1), self.bias)[..., None, None, None]


class Visual(NamedTuple):
    """Visual tokens of some rows, one row's behind the other's, and their places in these, counted row by row.

    `deeper` is what Qwen3-VL adds behind each of its first layers (arXiv 2511.21631).
    """

    tokens: Float[Tensor, "tokens hidden"]
    deeper: tuple[Float[Tensor, "tokens hidden"], ...]
    places: Int[Tensor, " tokens"]


def select_rows(features: Any | None, prompts: PromptBatch, rows: Sequence[int], *, behind: int = 0) -> Visual | None:
    """Of the images' features those of the prompts `rows`, in that order and repeated as they are (gradients add up).

    `behind` tokens follow each prompt. It has as many features as it has placeholders, so that several images a prompt
    or none are no special case. Raises RuntimeError where there are not as many.
    """
    if features is None:
        return None
    types = prompts.host.token_types == 1
    counts = types.sum(1).tolist()

    def pick(parts: Any) -> Tensor:
        per_prompt = torch.cat([part.reshape(-1, part.shape[-1]) for part in parts]).split(counts)
        return torch.cat([per_prompt[row] for row in rows])

    deeper = getattr(features, "deepstack_features", None) or ()
    places = torch.nn.functional.pad(types[list(rows)], (0, behind)).flatten().nonzero()[:, 0]
    return Visual(pick(features.pooler_output), tuple(map(pick, deeper)), moved(places, prompts.ids.device))


def embed(model: Any, ids: Int[Tensor, "batch length"], visual: Visual | None) -> Float[Tensor, "batch length hidden"]:
    """The decoder's inputs. transformers looks for places on the device, for which the backward pass waits."""
    words = model.get_input_embeddings()(ids)
    if visual is None:
        return words
    return words.flatten(0, 1).index_copy(0, visual.places, visual.tokens.to(words.dtype)).view_as(words)


def decoder_of(model: Any, visual: Visual | None) -> Callable[..., Any]:
    """What takes the decoder's inputs; it adds the deeper features of `visual`."""
    if visual is None or not visual.deeper:
        return model.base_model
    decoder = model.base_model.language_model
    _take_places(type(decoder))
    return partial(decoder, visual_pos_masks=visual.places, deepstack_visual_embeds=list(visual.deeper))


@lru_cache
def _take_places(decoder: Any) -> None:
    """Have Qwen3-VL's decoder add features at places as well; at a mask it looks for them in each layer anew."""
    at_mask = decoder._deepstack_process

    def add(self: Any, hidden: Tensor, where: Tensor, features: Tensor) -> Tensor:
        if where.dtype == torch.bool:
            return at_mask(self, hidden, where, features)
        return hidden.flatten(0, 1).index_add(0, where, features.to(hidden.dtype)).view_as(hidden)

    decoder._deepstack_process = add


def refuse_placeholders(model: Any, response_ids: Int[Tensor, "batch time"]) -> None:
    """Raises ValueError where an answer holds the token that stands for an image's visual tokens."""
    placeholder = model.config.image_token_id
    if bool((response_ids == placeholder).any()):
        raise ValueError(f"an answer holds token {placeholder}, which stands for an image: allowed is text")
