"""Tiny offline models of every family in `reopold_vl.families`: the real classes, random weights, their own processors.

The tokenizer is that of tiny.py with the family's own special tokens; Qwen2.5-VL and Qwen3-VL are built there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tiny
import torch
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    GenerationConfig,
    Glm4vImageProcessor,
    Glm4vProcessor,
    Glm4vVideoProcessor,
    GotOcr2ImageProcessor,
    Idefics3ImageProcessor,
    Idefics3Processor,
    InternVLProcessor,
    InternVLVideoProcessor,
    LlavaOnevisionImageProcessor,
    LlavaOnevisionProcessor,
    LlavaOnevisionVideoProcessor,
    Qwen2Tokenizer,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
    SmolVLMImageProcessor,
    SmolVLMProcessor,
    SmolVLMVideoProcessor,
)
from transformers.models.gemma3 import Gemma3ImageProcessor, Gemma3Processor

from reopold_vl.families import FAMILIES
from reopold_vl.models import VisionLanguageModel

HIDDEN, LAYERS = 32, 4
TILE = 32  # pixels; 4 x 4 patches of 8
GREY: dict[str, Any] = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
SIGLIP = {
    "model_type": "siglip_vision_model",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": TILE,
    "patch_size": 8,
    "vision_use_head": False,
}
GRID = {
    "depth": 2,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_heads": 2,
    "out_hidden_size": HIDDEN,
    "patch_size": 14,
}
QWEN_TOKENS = ("<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>")
QWEN_IDS = {
    "image_token_id": "<|image_pad|>",
    "video_token_id": "<|video_pad|>",
    "vision_start_token_id": "<|vision_start|>",
    "vision_end_token_id": "<|vision_end|>",
}
SIZE: Any = {"shortest_edge": tiny.MIN_PIXELS, "longest_edge": tiny.MAX_PIXELS}


@dataclass(frozen=True)
class Recipe:
    """`image` stands for an image in the chat template; `ids` are configuration entries that name a token."""

    processor: Callable[[Qwen2Tokenizer, str], Any]
    image: str
    ids: dict[str, str]
    vision: dict[str, Any]
    tokens: tuple[str, ...] = ()
    named: dict[str, str] = field(default_factory=dict)
    text: dict[str, Any] = field(default_factory=dict)
    outer: dict[str, Any] = field(default_factory=dict)


def qwen2_vl(tokenizer: Qwen2Tokenizer, template: str) -> Any:
    images = Qwen2VLImageProcessor(size=SIZE, patch_size=14, **GREY)
    return Qwen2VLProcessor(images, tokenizer, Qwen2VLVideoProcessor(patch_size=14), chat_template=template)


def qwen3_5(tokenizer: Qwen2Tokenizer, template: str) -> Any:
    images = Qwen2VLImageProcessor(size=SIZE, patch_size=16, **GREY)
    return Qwen3VLProcessor(images, tokenizer, Qwen3VLVideoProcessor(), chat_template=template)


def glm4v(tokenizer: Qwen2Tokenizer, template: str) -> Any:
    # Its limits count both frames of a temporal patch.
    size: Any = {name: 2 * pixels for name, pixels in SIZE.items()}
    images = Glm4vImageProcessor(size=size, **GREY)
    return Glm4vProcessor(images, tokenizer, Glm4vVideoProcessor(), chat_template=template)


def smolvlm(tokenizer: Qwen2Tokenizer, template: str) -> Any:
    sizes: dict[str, Any] = {"size": {"longest_edge": 2 * TILE}, "max_image_size": {"longest_edge": TILE}}
    images, videos = SmolVLMImageProcessor(**sizes, **GREY), SmolVLMVideoProcessor(**sizes)
    return SmolVLMProcessor(images, tokenizer, videos, image_seq_len=4, chat_template=template)


def idefics3(tokenizer: Qwen2Tokenizer, template: str) -> Any:
    sizes: dict[str, Any] = {"size": {"longest_edge": 3 * TILE}, "max_image_size": {"longest_edge": TILE}}
    images = Idefics3ImageProcessor(**sizes, **GREY)
    return Idefics3Processor(images, tokenizer, image_seq_len=4, chat_template=template)


def internvl(tokenizer: Qwen2Tokenizer, template: str) -> Any:
    size: Any = {"height": TILE, "width": TILE}
    images = GotOcr2ImageProcessor(size=size, max_patches=6, **GREY)
    videos = InternVLVideoProcessor(size=size)
    return InternVLProcessor(images, tokenizer, videos, image_seq_length=4, chat_template=template)


PINPOINTS = [[a * TILE, b * TILE] for a in (1, 2, 3) for b in (1, 2, 3)]


def llava_onevision(tokenizer: Qwen2Tokenizer, template: str) -> Any:
    size: Any = {"height": TILE, "width": TILE}
    images = LlavaOnevisionImageProcessor(size=size, image_grid_pinpoints=PINPOINTS, **GREY)
    settings: dict[str, Any] = {"num_image_tokens": 16, "vision_feature_select_strategy": "full"}
    return LlavaOnevisionProcessor(
        images,
        tokenizer,
        LlavaOnevisionVideoProcessor(size=size),
        chat_template=template,
        vision_aspect_ratio="anyres_max_4",
        **settings,
    )


def gemma3(tokenizer: Qwen2Tokenizer, template: str) -> Any:
    images = Gemma3ImageProcessor(size={"height": TILE, "width": TILE}, **GREY)
    return Gemma3Processor(images, tokenizer, chat_template=template, image_seq_length=4)


MROPE = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [4, 2, 2]}
IDEFICS_VISION = {name: value for name, value in SIGLIP.items() if name not in ("model_type", "vision_use_head")}
IDEFICS_TOKENS = tuple(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7))
IDEFICS_NAMED = {
    "image_token": "<image>",
    "fake_image_token": "<fake_token_around_image>",
    "global_image_token": "<global-img>",
    "end_of_utterance_token": "<end_of_utterance>",
}
IDEFICS: dict[str, Any] = {
    "image": "<image>",
    "ids": {"image_token_id": "<image>"},
    "vision": IDEFICS_VISION,
    "tokens": IDEFICS_TOKENS,
    "named": IDEFICS_NAMED,
    "text": {"model_type": "llama"},
}
RECIPES: dict[str, Recipe] = {
    "qwen2_vl": Recipe(
        qwen2_vl,
        "<|vision_start|><|image_pad|><|vision_end|>",
        QWEN_IDS,
        # Qwen2-VL calls its width embed_dim, and the decoder's hidden_size.
        {"depth": 2, "embed_dim": 32, "hidden_size": HIDDEN, "mlp_ratio": 2, "num_heads": 2, "patch_size": 14},
        tokens=QWEN_TOKENS,
        text={"rope_parameters": MROPE},
    ),
    "qwen3_5": Recipe(
        qwen3_5,
        "<|vision_start|><|image_pad|><|vision_end|>",
        QWEN_IDS,
        {**GRID, "patch_size": 16, "num_position_embeddings": 64},
        tokens=QWEN_TOKENS,
        text={
            # Linear attention works in chunks of 64 positions, which padding on the left shifts: rounding alone, but
            # weights as large as the others' would make 4e-5 of it in a log-prob of -8, in plain transformers as well.
            "initializer_range": 0.1,
            "layer_types": ["linear_attention", "full_attention"] * 2,
            "head_dim": 32,
            "linear_key_head_dim": 16,
            "linear_value_head_dim": 16,
            "linear_num_key_heads": 1,
            "linear_num_value_heads": 2,
            "rope_parameters": {
                **MROPE,
                "mrope_section": [2, 1, 1],
                "mrope_interleaved": True,
                "partial_rotary_factor": 0.25,
            },
        },
    ),
    "glm4v": Recipe(
        glm4v,
        "<|begin_of_image|><|image|><|end_of_image|>",
        {
            "image_token_id": "<|image|>",
            "video_token_id": "<|video|>",
            "image_start_token_id": "<|begin_of_image|>",
            "image_end_token_id": "<|end_of_image|>",
            "video_start_token_id": "<|begin_of_video|>",
            "video_end_token_id": "<|end_of_video|>",
        },
        {**GRID, "image_size": 56},
        tokens=("<|begin_of_image|>", "<|end_of_image|>", "<|begin_of_video|>", "<|end_of_video|>"),
        named={"image_token": "<|image|>", "video_token": "<|video|>"},
        text={"rope_parameters": {**MROPE, "mrope_section": [2, 1, 1], "partial_rotary_factor": 0.5}},
    ),
    "smolvlm": Recipe(smolvlm, **IDEFICS),
    "idefics3": Recipe(idefics3, **IDEFICS),
    "internvl": Recipe(
        internvl,
        "<IMG_CONTEXT>",
        {"image_token_id": "<IMG_CONTEXT>"},
        {
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": TILE,
            "patch_size": 8,
            "layer_scale_init_value": 1.0,
        },
        named={
            "start_image_token": "<img>",
            "end_image_token": "</img>",
            "context_image_token": "<IMG_CONTEXT>",
            "video_token": "<video>",
        },
        text={"model_type": "qwen2"},
        outer={"image_seq_length": 4},
    ),
    "llava_onevision": Recipe(
        llava_onevision,
        "<image>\n",
        {"image_token_index": "<image>", "video_token_index": "<video>"},
        SIGLIP,
        tokens=("<image>", "<video>"),
        text={"model_type": "qwen2"},
        outer={"image_grid_pinpoints": PINPOINTS, "vision_aspect_ratio": "anyres_max_4"},
    ),
    "gemma3": Recipe(
        gemma3,
        "<start_of_image>",
        {
            "image_token_index": "<image_soft_token>",
            "boi_token_index": "<start_of_image>",
            "eoi_token_index": "<end_of_image>",
        },
        SIGLIP,
        named={"image_token": "<image_soft_token>", "boi_token": "<start_of_image>", "eoi_token": "<end_of_image>"},
        text={
            "layer_types": ["sliding_attention", "full_attention"] * 2,
            "sliding_window": 12,  # less than a prompt
            "query_pre_attn_scalar": 16,
        },
        outer={"mm_tokens_per_image": 4},
    ),
}
assert {*RECIPES, *tiny.FAMILIES} == {*FAMILIES}


def build(family: str, *, seed: int, padded_vocab: int = 0) -> tuple[Any, Any]:
    """(model, processor) of `family`; `padded_vocab` adds that many embedding rows past the tokenizer's last id."""
    if family in tiny.FAMILIES:
        return tiny.tiny_vlm(family, seed=seed, padded_vocab=padded_vocab)
    recipe = RECIPES[family]
    tokens = ("<|im_start|>", *recipe.tokens, *recipe.named.values())
    tokenizer = tiny.tiny_tokenizer(special=tokens, named=recipe.named)
    template = tiny.CHATML.replace("<|vision_start|><|image_pad|><|vision_end|>", recipe.image)
    ids = {name: tokenizer.convert_tokens_to_ids(token) for name, token in recipe.ids.items()}
    text = {
        "vocab_size": len(tokenizer) + padded_vocab,
        "hidden_size": HIDDEN,
        "intermediate_size": 2 * HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "max_position_embeddings": 4096,
        "initializer_range": tiny.SPREAD,
        "bos_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = {"initializer_range": tiny.SPREAD, **recipe.vision}
    config = AutoConfig.for_model(
        family, text_config=text | recipe.text, vision_config=vision, tie_word_embeddings=True, **ids, **recipe.outer
    )
    torch.manual_seed(seed)
    model = AutoModelForImageTextToText.from_config(config)
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1 and ("vision" in name or "projector" in name or not parameter.any()):
            torch.nn.init.normal_(parameter, std=tiny.SPREAD)  # some start small, or at zero
    model.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    return model.eval(), recipe.processor(tokenizer, template)


def save_family(path: Path, family: str, **settings: Any) -> Path:
    """Write a plain Hugging Face directory; `settings` are those of `build`."""
    model, processor = build(family, **settings)
    model.save_pretrained(path)
    processor.save_pretrained(path)
    return path


def load_family(path: Path) -> VisionLanguageModel:
    return tiny.load_tiny(path)
