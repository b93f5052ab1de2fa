"""A model in numbers, from its configuration alone: built on torch's meta device, where weights take no memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import nn
from transformers import AutoConfig, AutoModelForImageTextToText

from reopold_vl.check.plan import ModelSize
from reopold_vl.families import projector, reason_against, vision_tower
from reopold_vl.lora import is_adapter, target_layers
from reopold_vl.models import ModelError, adapter_base, resolve
from reopold_vl.vision import freeze_vision


@dataclass(frozen=True)
class Trained:
    """How many parameters are trained, and how many of them LoRA adds."""

    trainable: int
    adapters: int = 0


def skeleton(path: str, *, trust_remote_code: bool = False) -> Any:
    """The model of a directory or Hub id without its weights (an adapter's base). Raises ModelError."""
    own = resolve(path)
    source = adapter_base(path, Path(own)) if is_adapter(Path(own)) else own
    try:
        config = AutoConfig.from_pretrained(source, trust_remote_code=trust_remote_code)
        if (reason := reason_against(config)) is not None:
            raise ModelError(f"{path}: {reason}")
        with torch.device("meta"):
            return AutoModelForImageTextToText.from_config(config, trust_remote_code=trust_remote_code)
    except ModelError:
        raise
    except (OSError, ValueError, KeyError, ImportError, StrictDataclassError) as error:
        line = " ".join(str(error).split())[:200]
        raise ModelError(f"{path}: its configuration cannot be read: {line}") from error


def size_of(model: Any) -> ModelSize:
    """The numbers that memory depends on; `model` may be on the meta device or loaded."""
    text = model.config.get_text_config()
    vision = getattr(model.config, "vision_config", None)
    inputs, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    heads = text.num_attention_heads
    width = getattr(text, "head_dim", None) or text.hidden_size // heads
    experts = getattr(text, "num_experts_per_tok", None) or 1
    inner = getattr(text, "moe_intermediate_size", None) if experts > 1 else None
    depth = _first(vision, "depth", "num_hidden_layers", "num_layers")
    vision_hidden = _first(vision, "embed_dim", "hidden_size")
    ratio = getattr(vision, "mlp_ratio", 4)
    return ModelSize(
        parameters=_count(model),
        vision_parameters=sum(_count(module) for module in vision_parts(model)),
        embedding_parameters=0 if inputs is head else inputs.numel(),
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        intermediate=experts * (inner or text.intermediate_size),
        query_width=heads * width,
        key_width=(getattr(text, "num_key_value_heads", None) or heads) * width,
        heads=heads,
        vocabulary=head.shape[0],
        adapter_width=sum(sum(weight) for weight in _linear_shapes(model, ())),
        vision_layers=depth,
        vision_hidden=vision_hidden,
        vision_intermediate=_first(vision, "intermediate_size") or int(ratio * vision_hidden),
        patches_per_token=_patches_per_token(model.config, vision),
    )


def trained(
    model: Any,
    *,
    rank: int = 0,
    targets: Sequence[str] = (),
    tower_fixed: bool = False,
    projector_fixed: bool = False,
) -> Trained:
    """What these settings of the student train; `rank` 0 is no LoRA. Changes which weights of `model` want gradients.

    Raises AdapterError for targets that name no layer.
    """
    if rank > 0:
        adapters = rank * sum(sum(shape) for shape in _linear_shapes(model, targets))
        return Trained(adapters, adapters)
    freeze_vision(model, tower=tower_fixed, projector=projector_fixed)
    return Trained(sum(weight.numel() for weight in model.parameters() if weight.requires_grad))


def vision_parts(model: Any) -> list[nn.Module]:
    """The tower, and what of the projector lies outside it."""
    tower = vision_tower(model)
    inside = {id(weight) for weight in tower.parameters()}
    return [tower, *(part for part in projector(model) if not {id(weight) for weight in _weights(part)} <= inside)]


def _linear_shapes(model: Any, targets: Sequence[str]) -> list[tuple[int, int]]:
    modules = dict(model.named_modules())
    layers = [modules[name] for name in target_layers(model, targets)]
    return [(layer.in_features, layer.out_features) for layer in layers]


def _weights(part: Any) -> list[nn.Parameter]:
    return [part] if isinstance(part, nn.Parameter) else list(part.parameters())


def _count(part: Any) -> int:
    return sum(weight.numel() for weight in _weights(part))


def _first(config: Any, *names: str) -> int:
    """The first of these settings that the configuration has, else 0."""
    return next((value for name in names if (value := getattr(config, name, None)) is not None), 0)


def _patches_per_token(config: Any, vision: Any) -> float:
    """Patches of the tower that become one visual token, by the words of the families."""
    merge = getattr(vision, "spatial_merge_size", None) or getattr(config, "scale_factor", None)
    if merge:
        return float(merge**2)
    if getattr(config, "downsample_ratio", None):
        return float(config.downsample_ratio**-2)
    tokens, side = getattr(config, "mm_tokens_per_image", None), getattr(vision, "image_size", None)
    return (side / vision.patch_size) ** 2 / tokens if tokens and side else 1.0
