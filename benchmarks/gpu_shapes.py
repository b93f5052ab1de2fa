"""Qwen2.5-VL of the published shapes with random weights, built from numbers alone, and what its passes cost.

Operations are counted by formula, a multiplication and an addition as two:

    matrix products   2 per weight of every linear layer and token; the vision tower's per patch, its merger's per
                      visual token, the head's per scored token
    attention         4 per query width, layer and pair of positions, the causal half alone; in the tower all pairs of
                      a window of 64 patches, in its four whole layers all pairs of an image

Norms, activations, softmax, sampling and the optimizer are left out. A backward pass costs two forward passes where the
weights are trained and one where only what runs through them is (LoRA). Recomputation by checkpointing is not counted:
a share of the card's rate says how much of it goes into the result.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import reopold_vl.torchvision_shim  # noqa: F401  (before transformers' image code)

# isort: split
import torch
from torch import nn
from transformers import GenerationConfig, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from reopold_vl.models import VisionLanguageModel
from reopold_vl.policy import Policy
from reopold_vl.prompts import PromptEncoder
from reopold_vl.zoo.architecture import build_processor, build_tokenizer, token_id

WINDOW_PATCHES = 64  # 112 pixels of patches of 14, squared


@dataclass(frozen=True)
class Size:
    """The numbers of a model's configuration that differ between sizes; `parameters` is what they must come to."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int
    tied: bool
    mrope_section: tuple[int, int, int]
    vision_hidden: int
    vision_intermediate: int
    vision_layers: int
    vision_heads: int
    whole_layers: tuple[int, ...]
    parameters: int


_TOWER: dict[str, Any] = {
    "vision_hidden": 1280,
    "vision_intermediate": 3420,
    "vision_layers": 32,
    "vision_heads": 16,
    "whole_layers": (7, 15, 23, 31),
}
# Qwen/Qwen2.5-VL-3B-Instruct and -7B-Instruct: config.json of either, and the sums of their safetensors.
SIZES = {
    "tiny": Size(64, 160, 3, 4, 2, 512, True, (2, 3, 3), 32, 64, 2, 2, (1,), 246_240),
    "3b": Size(2048, 11008, 36, 16, 2, 151_936, True, (16, 24, 24), **_TOWER, parameters=3_754_622_976),
    "7b": Size(3584, 18944, 28, 28, 4, 152_064, False, (16, 24, 24), **_TOWER, parameters=8_292_166_656),
}


def build_config(size: Size, tokenizer: Any) -> Qwen2_5_VLConfig:
    """The configuration of a Qwen2.5-VL of that size, with the special tokens of a tokenizer built here."""
    end, pad = token_id(tokenizer, "<|im_end|>"), token_id(tokenizer, "<|endoftext|>")
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": list(size.mrope_section)}
    return Qwen2_5_VLConfig(
        text_config={
            "vocab_size": size.vocabulary,
            "hidden_size": size.hidden,
            "intermediate_size": size.intermediate,
            "num_hidden_layers": size.layers,
            "num_attention_heads": size.heads,
            "num_key_value_heads": size.kv_heads,
            "max_position_embeddings": 128_000,
            "rms_norm_eps": 1e-6,
            "bos_token_id": pad,
            "eos_token_id": end,
            "pad_token_id": pad,
            "rope_parameters": rope,
        },
        vision_config={
            "depth": size.vision_layers,
            "hidden_size": size.vision_hidden,
            "intermediate_size": size.vision_intermediate,
            "num_heads": size.vision_heads,
            "out_hidden_size": size.hidden,
            "patch_size": 14,
            "window_size": 112,
            "fullatt_block_indexes": list(size.whole_layers),
        },
        image_token_id=token_id(tokenizer, "<|image_pad|>"),
        video_token_id=token_id(tokenizer, "<|video_pad|>"),
        vision_start_token_id=token_id(tokenizer, "<|vision_start|>"),
        vision_end_token_id=token_id(tokenizer, "<|vision_end|>"),
        tie_word_embeddings=size.tied,
    )


def build_module(size: Size, tokenizer: Any, *, dtype: torch.dtype, device: torch.device, seed: int = 0) -> Any:
    """The module with random weights, made where it stays (`meta`: shapes alone)."""
    torch.manual_seed(seed)
    with device:
        module = Qwen2_5_VLForConditionalGeneration._from_config(
            build_config(size, tokenizer), dtype=dtype, attn_implementation="sdpa"
        )
    ends = token_id(tokenizer, "<|im_end|>"), token_id(tokenizer, "<|endoftext|>")
    module.generation_config = GenerationConfig(eos_token_id=ends[0], pad_token_id=ends[1])
    return module.eval()


def build_model(
    name: str, *, dtype: torch.dtype, device: torch.device, seed: int = 0, max_pixels: int = 1280 * 28 * 28
) -> VisionLanguageModel:
    """A model of `SIZES[name]` ready for use; its tokenizer knows 450 tokens, the rest of the vocabulary is padding."""
    tokenizer = build_tokenizer()
    processor = build_processor(tokenizer)
    encoder = PromptEncoder(
        processor=processor,
        family="qwen2_5_vl",
        image_token_id=token_id(tokenizer, "<|image_pad|>"),
        min_pixels=4 * 28 * 28,
        max_pixels=max_pixels,
    )
    module = build_module(SIZES[name], tokenizer, dtype=dtype, device=device, seed=seed)
    return VisionLanguageModel(f"random/{name}", Policy(module), processor, encoder)


@dataclass(frozen=True)
class Work:
    """Operations of a pass: `linear` in matrix products with weights, `attention` between tokens, `tower` in images."""

    linear: float
    attention: float
    tower: float = 0.0

    def times(self, decoder: float, tower: float) -> float:
        """All of them, the decoder's and the tower's a number of times."""
        return decoder * (self.linear + self.attention) + tower * self.tower

    def __add__(self, other: Work) -> Work:
        return Work(self.linear + other.linear, self.attention + other.attention, self.tower + other.tower)


def weights_in(module: nn.Module) -> int:
    """Weights of the linear layers in `module`."""
    return sum(layer.weight.numel() for layer in module.modules() if isinstance(layer, nn.Linear))


def image_work(module: Any, patches: int) -> Work:
    """One image of so many patches through the vision tower and its merger."""
    tower, config = module.base_model.visual, module.config.vision_config
    per_patch = weights_in(tower.blocks) + tower.patch_embed.proj.weight.numel()
    linear = 2 * patches * (per_patch + weights_in(tower.merger) / config.spatial_merge_size**2)
    whole = len(config.fullatt_block_indexes)
    seen = whole * patches + (config.depth - whole) * min(WINDOW_PATCHES, patches)
    return Work(0.0, 0.0, linear + 4 * config.hidden_size * patches * seen)


def decoder_work(module: Any, *, tokens: int, past: int = 0, scored: int) -> Work:
    """`tokens` new positions of one row behind `past` ones, and the head on `scored` of them."""
    config = module.config.text_config
    width = config.num_attention_heads * (config.hidden_size // config.num_attention_heads)
    pairs = tokens * past + tokens * (tokens + 1) / 2
    linear = weights_in(module.base_model.language_model) * tokens + config.hidden_size * config.vocab_size * scored
    return Work(2.0 * linear, 4.0 * width * config.num_hidden_layers * pairs)


def answers_work(module: Any, *, prompt: int, patches: int, n: int, response: int) -> Work:
    """One prompt and its `n` answers, sampled or scored: image and prompt once, then the answers' own tokens."""
    answers = decoder_work(module, tokens=response - 1, past=prompt, scored=response)
    once = decoder_work(module, tokens=prompt, scored=0) + image_work(module, patches)
    return sum((answers for _ in range(n)), once)
