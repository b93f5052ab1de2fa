"""Tokenizer, processor and model configurations of the embedded pair, built offline without any download.

Both models are the real `Qwen2_5_VLForConditionalGeneration` at tiny size and share one tokenizer and processor: a
byte-level BPE over the benchmark's own texts (so that any text encodes, a word of the benchmark is one token and each
digit is one token) with Qwen's special tokens and a minimal ChatML template.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import reopold_vl.torchvision_shim  # noqa: F401  (before transformers' image code)

# isort: split
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from transformers import (
    GenerationConfig,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2Tokenizer,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)

from reopold_vl.zoo.task import DESCRIBE, TYPES, describe, problem

MERGED_PATCH = 28  # pixels of one visual token's side
WORD_EMBEDDING_STD = 0.06  # word embeddings have a norm near 0.6 then, and so do visual tokens (see supervised.py)
# Positions are small here (3x3 cells, about 70 tokens), and Qwen gives height and width the slow two thirds of the
# frequencies: at the usual base a column would turn by less than 0.01, which a tiny model learns to use very late.
ROPE_THETA = 10.0
SPECIAL_TOKENS = [
    "<|im_start|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
]
# Words that a user's question may hold and the benchmark's texts do not: one token each keeps such prompts short.
MORE_WORDS = (
    "system user assistant You are a helpful The answer is of in it and image picture yes no Think step by step"
)
QWEN_SPLIT = (  # the pre-tokenizer of the Qwen2 family: single digits, words with their leading space
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' or 'image' in part or 'image_url' in part %}"
    "<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part['type'] == 'video' or 'video' in part %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif 'text' in part %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@dataclass(frozen=True)
class Size:
    """Widths and depths of a model; head sizes follow from them."""

    hidden: int
    layers: int
    intermediate: int
    heads: int
    kv_heads: int
    vision_hidden: int
    vision_depth: int


STUDENT = Size(hidden=96, layers=3, intermediate=256, heads=4, kv_heads=4, vision_hidden=48, vision_depth=1)
TEACHER = Size(hidden=176, layers=4, intermediate=416, heads=4, kv_heads=4, vision_hidden=64, vision_depth=1)


def build_tokenizer() -> Qwen2Tokenizer:
    """Train the byte-level BPE on the benchmark's train texts; deterministic."""
    texts = [DESCRIBE, *(f" {word}" for word in MORE_WORDS.split())] * 20 + MORE_WORDS.split() * 20
    for index in range(60 * len(TYPES)):
        item = problem("train", index)
        texts += [item.sample.question, item.steps, describe(item.question.grid)]
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bpe.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=640, min_frequency=10, initial_alphabet=alphabet, show_progress=False)
    )
    learned = json.loads(bpe.to_str())["model"]
    tokenizer = Qwen2Tokenizer(
        vocab=learned["vocab"],
        merges=[tuple(pair) for pair in learned["merges"]],  # pyright: ignore[reportArgumentType]
        unk_token="<|endoftext|>",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=SPECIAL_TOKENS,
        model_max_length=4096,
    )
    tokenizer.padding_side = "left"
    return tokenizer


def build_processor(tokenizer: Qwen2Tokenizer) -> Qwen2_5_VLProcessor:
    """Images of 84x84 pixels stay as they are (9 visual tokens); others are scaled to between 4 and 64 tokens."""
    pixels = MERGED_PATCH * MERGED_PATCH
    image_processor = Qwen2VLImageProcessor(
        size={"shortest_edge": 4 * pixels, "longest_edge": 64 * pixels},
        patch_size=14,
        merge_size=2,
        temporal_patch_size=2,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
    return Qwen2_5_VLProcessor(
        image_processor=image_processor,
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(patch_size=14),
        chat_template=CHATML,
    )


def token_id(tokenizer: Qwen2Tokenizer, token: str) -> int:
    """The id of one special token."""
    found = tokenizer.convert_tokens_to_ids(token)
    assert isinstance(found, int)
    return found


def build_config(size: Size, tokenizer: Qwen2Tokenizer) -> Qwen2_5_VLConfig:
    """The configuration of a tiny Qwen2.5-VL; the rotary sections must sum to half of the head size."""
    half_head = size.hidden // size.heads // 2
    side = half_head // 3
    return Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": size.hidden,
            "intermediate_size": size.intermediate,
            "num_hidden_layers": size.layers,
            "num_attention_heads": size.heads,
            "num_key_value_heads": size.kv_heads,
            "max_position_embeddings": 4096,
            "initializer_range": 0.05,
            "bos_token_id": token_id(tokenizer, "<|endoftext|>"),
            "eos_token_id": token_id(tokenizer, "<|im_end|>"),
            "pad_token_id": token_id(tokenizer, "<|endoftext|>"),
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": ROPE_THETA,
                "mrope_section": [half_head - 2 * side, side, side],
            },
        },
        vision_config={
            "depth": size.vision_depth,
            "hidden_size": size.vision_hidden,
            "intermediate_size": 3 * size.vision_hidden,
            "num_heads": 4,
            "out_hidden_size": size.hidden,
            "patch_size": 14,
            "window_size": 112,
            "fullatt_block_indexes": list(range(size.vision_depth)),
            "initializer_range": 0.05,
        },
        image_token_id=token_id(tokenizer, "<|image_pad|>"),
        video_token_id=token_id(tokenizer, "<|video_pad|>"),
        vision_start_token_id=token_id(tokenizer, "<|vision_start|>"),
        vision_end_token_id=token_id(tokenizer, "<|vision_end|>"),
        tie_word_embeddings=True,
    )


def build_model(size: Size, tokenizer: Qwen2Tokenizer, seed: int) -> Qwen2_5_VLForConditionalGeneration:
    """A randomly initialised fp32 model."""
    torch.manual_seed(seed)
    model = Qwen2_5_VLForConditionalGeneration(build_config(size, tokenizer))
    nn.init.normal_(model.model.language_model.embed_tokens.weight, std=WORD_EMBEDDING_STD)
    model.generation_config = GenerationConfig(
        eos_token_id=token_id(tokenizer, "<|im_end|>"),
        pad_token_id=token_id(tokenizer, "<|endoftext|>"),
        bos_token_id=token_id(tokenizer, "<|endoftext|>"),
        max_new_tokens=64,
    )
    return model


def save_pair_member(model: nn.Module, processor: Qwen2_5_VLProcessor, directory: Path) -> None:
    """Write a plain Hugging Face directory that AutoModelForImageTextToText and AutoProcessor load."""
    directory.mkdir(parents=True, exist_ok=True)
    processor.tokenizer.backend_tokenizer.no_padding()  # decoding in batches left its padding here; don't freeze it
    model.save_pretrained(directory)  # pyright: ignore[reportCallIssue]
    processor.save_pretrained(directory)
