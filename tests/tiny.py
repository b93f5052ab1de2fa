"""Tiny offline models of the real Qwen2.5-VL and Qwen3-VL classes: random weights, their own tokenizer and processor.

The weights are larger than a trained model's initialisation, so that distributions are far from uniform, answers differ
from prompt to prompt and a changed pixel shows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import reopold_vl.torchvision_shim  # noqa: F401  (before transformers' image code)

# isort: split
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import (
    GenerationConfig,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2Tokenizer,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)

from reopold_vl.models import VisionLanguageModel, load_model
from reopold_vl.types import Prompt, Rollout, VisualSample

FAMILIES = ("qwen2_5_vl", "qwen3_vl")
PATCH = {"qwen2_5_vl": 14, "qwen3_vl": 16}
MIN_PIXELS, MAX_PIXELS = 32 * 32, 48 * 32 * 32
SPREAD = 0.25  # standard deviation of the random weights

SPECIAL_TOKENS = (
    "<|im_start|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
TEXTS = ("How many red squares are in the picture?", "user assistant system answer: the sum of both digits is four")
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part['type'] == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tiny_tokenizer(
    texts: Sequence[str] = TEXTS,
    *,
    special: Sequence[str] = SPECIAL_TOKENS,
    named: Mapping[str, str] | None = None,
) -> Qwen2Tokenizer:
    """A byte-level BPE with a few merges and special tokens; about 320 ids. Other texts, other ids.

    `named` are special tokens that the tokenizer has as attributes, such as image_token.
    """
    learned = _learned_bpe(tuple(texts))
    merges: Any = [tuple(pair) for pair in learned["merges"]]  # which the annotation does not know
    tokenizer = Qwen2Tokenizer(
        vocab=dict(learned["vocab"]),
        merges=merges,
        unk_token="<|endoftext|>",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=list(special),
        **(named or {}),
    )
    tokenizer.padding_side = "left"
    return tokenizer


@lru_cache
def _learned_bpe(texts: tuple[str, ...]) -> dict[str, Any]:
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=310, initial_alphabet=alphabet, show_progress=False)
    bpe.train_from_iterator(texts, trainer)
    return json.loads(bpe.to_str())["model"]


def tiny_processor(family: str, tokenizer: Qwen2Tokenizer, *, image_mean: float = 0.5) -> Any:
    """The family's own processor, with its own patch size."""
    patch = PATCH[family]
    image_processor = Qwen2VLImageProcessor(
        size={"shortest_edge": MIN_PIXELS, "longest_edge": MAX_PIXELS},
        patch_size=patch,
        image_mean=[image_mean] * 3,
        image_std=[0.5] * 3,
    )
    if family == "qwen3_vl":
        return Qwen3VLProcessor(
            image_processor, tokenizer, Qwen3VLVideoProcessor(patch_size=patch), chat_template=CHATML
        )
    return Qwen2_5_VLProcessor(
        image_processor, tokenizer, Qwen2VLVideoProcessor(patch_size=patch), chat_template=CHATML
    )


def tiny_vlm(
    family: str,
    *,
    seed: int,
    hidden: int = 32,
    layers: int = 3,
    padded_vocab: int = 0,
    image_mean: float = 0.5,
    texts: Sequence[str] = TEXTS,
) -> tuple[Any, Any]:
    """(model, processor) of `family`; `padded_vocab` adds that many embedding rows past the tokenizer's last id."""
    tokenizer = tiny_tokenizer(texts)
    names = ("<|im_end|>", "<|endoftext|>", *SPECIAL_TOKENS)
    ids: dict[str, Any] = {token: tokenizer.convert_tokens_to_ids(token) for token in names}
    qwen3 = family == "qwen3_vl"
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [4, 2, 2]}  # sums to half of the head size
    text_config = {
        "vocab_size": len(tokenizer) + padded_vocab,
        "hidden_size": hidden,
        "intermediate_size": 2 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": hidden // 16,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "max_position_embeddings": 4096,
        "initializer_range": SPREAD,
        "bos_token_id": ids["<|endoftext|>"],
        "eos_token_id": ids["<|im_end|>"],
        "pad_token_id": ids["<|endoftext|>"],
        "rope_parameters": {**rope, "mrope_interleaved": True} if qwen3 else rope,
    }
    vision_config = {
        "depth": 3 if qwen3 else 2,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 2,
        "out_hidden_size": hidden,
        "patch_size": PATCH[family],
        "initializer_range": SPREAD,
    }
    if qwen3:
        vision_config |= {"num_position_embeddings": 64, "deepstack_visual_indexes": [0, 1, 2]}
    else:
        vision_config |= {
            "window_size": 112,
            "fullatt_block_indexes": [1],
        }  # the first block sees windows of 4x4 tokens
    kinds: tuple[Any, Any] = (
        (Qwen3VLConfig, Qwen3VLForConditionalGeneration)
        if qwen3
        else (Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration)
    )
    config_kind, model_kind = kinds
    config = config_kind(
        text_config=text_config,
        vision_config=vision_config,
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
    )
    torch.manual_seed(seed)
    model = model_kind(config)
    model.generation_config = GenerationConfig(eos_token_id=ids["<|im_end|>"], pad_token_id=ids["<|endoftext|>"])
    return model.eval(), tiny_processor(family, tokenizer, image_mean=image_mean)


def save_tiny(path: Path, family: str, **settings: Any) -> Path:
    """Write a plain Hugging Face directory; `settings` are those of `tiny_vlm`."""
    model, processor = tiny_vlm(family, **settings)
    model.save_pretrained(path)
    processor.save_pretrained(path)
    return path


def plain_text_model(path: Path) -> Path:
    """A language model that sees nothing, as a plain Hugging Face directory."""
    tokenizer = tiny_tokenizer()
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
    )
    Qwen2ForCausalLM(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def load_tiny(path: Path, *, max_pixels: int = MAX_PIXELS) -> VisionLanguageModel:
    """What `load_model` makes of a tiny directory, on the CPU."""
    return load_model(str(path), device="cpu", min_pixels=MIN_PIXELS, max_pixels=max_pixels)


def picture(width: int, height: int, seed: int) -> Image.Image:
    """Random colours; every pixel matters."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def mixed_samples() -> list[VisualSample]:
    """One image; none; two of different sizes (one of more than one attention window); one with a long question."""
    return [
        VisualSample("one", "How many red squares?", "1", (picture(70, 90, 1),)),
        VisualSample("none", "the sum of four and four?", "8"),
        VisualSample("two", "In <image> and <image> the sum is?", "2", (picture(64, 64, 2), picture(200, 130, 3))),
        VisualSample("long", "How many red squares are in the picture? " * 3, "3", (picture(100, 60, 4),)),
    ]


def random_rollouts(vlm: VisionLanguageModel, prompts: Sequence[Prompt], *, n: int, seed: int) -> list[Rollout]:
    """Answers of random text tokens, of lengths 1 to 6, whose log-probs are not the model's."""
    generator = torch.Generator().manual_seed(seed)
    rollouts = []
    for prompt in prompts:
        for _ in range(n):
            length = int(torch.randint(1, 7, (), generator=generator))
            ids = torch.randint(0, 256, (length,), generator=generator)
            stats = torch.rand(2, length, generator=generator)
            rollouts.append(Rollout(prompt, ids, -3 * stats[0], 4 * stats[1], "length"))
    return rollouts


def plain_distribution(model: Any, rollout: Rollout) -> torch.distributions.Categorical:
    """What plain transformers says of the rollout's tokens: one row, no padding, no cache, nothing of ours."""
    prompt = rollout.prompt
    ids = torch.cat([prompt.ids, rollout.response_ids])[None]
    types = torch.cat([prompt.token_types, torch.zeros_like(rollout.response_ids)])[None]
    output = model(input_ids=ids, attention_mask=torch.ones_like(ids), mm_token_type_ids=types, **dict(prompt.vision))
    return torch.distributions.Categorical(logits=output.logits[0, len(prompt.ids) - 1 : -1].float())
