"""Load a vision-language model with all that belongs to it: policy, prompt encoder, end and banned tokens."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import reopold_vl.torchvision_shim  # noqa: F401  (before transformers' image code)

# isort: split
import torch
from safetensors import SafetensorError
from transformers import AutoModelForImageTextToText, AutoProcessor
from transformers.utils import logging as transformers_logging

from reopold_vl.policy import Policy
from reopold_vl.prompts import PromptEncoder
from reopold_vl.rollout.hf import HFEngine

FAMILIES = ("qwen2_5_vl", "qwen3_vl")


class ModelError(ValueError):
    """A model that cannot be loaded or does not fit; the message says which and why."""


@dataclass(frozen=True)
class VisionLanguageModel:
    """A model ready for use: `policy` computes log-probs, `encoder` makes prompts, the ids end and guard sampling."""

    path: str
    policy: Policy
    processor: Any
    encoder: PromptEncoder

    @property
    def tokenizer(self) -> Any:
        return self.processor.tokenizer

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """Tokens that end an answer: the generation settings' own, else the tokenizer's."""
        ids = self.policy.model.generation_config.eos_token_id
        if ids is None:
            ids = self.tokenizer.eos_token_id
        return (ids,) if isinstance(ids, int) else tuple(ids)

    @property
    def pad_id(self) -> int:
        pad = self.tokenizer.pad_token_id
        return self.eos_ids[0] if pad is None else pad

    @property
    def banned_ids(self) -> tuple[int, ...]:
        """Never sampled: image and video placeholders, and rows of the embedding past the tokenizer's last id."""
        config = self.policy.model.config
        names = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
        special = [getattr(config, name, None) for name in names]
        padding = range(len(self.tokenizer), self.policy.model.get_output_embeddings().weight.shape[0])
        return (*sorted({token for token in special if token is not None}), *padding)

    @property
    def num_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.policy.parameters())

    def engine(self, *, rows_at_once: int) -> HFEngine:
        return HFEngine(
            policy=self.policy,
            eos_ids=self.eos_ids,
            pad_id=self.pad_id,
            banned_ids=self.banned_ids,
            rows_at_once=rows_at_once,
        )

    def save(self, directory: Path) -> None:
        """Write a plain Hugging Face directory: weights as safetensors, configuration, tokenizer and processor."""
        self.policy.model.save_pretrained(directory)
        self.processor.save_pretrained(directory)


def load_model(
    path: str,
    *,
    dtype: str = "float32",
    compute: str = "float32",
    attention: str = "sdpa",
    device: str = "auto",
    freeze_vision: bool = False,
    trust_remote_code: bool = False,
    min_pixels: int,
    max_pixels: int,
    max_prompt_tokens: int = 4096,
    allow_url: bool = False,
    instruction: str = "",
) -> VisionLanguageModel:
    """Load a local directory, a Hub id or an embedded model (`zoo:student`, `zoo:teacher`).

    The policy is in evaluation mode (no dropout: log-probs of one state are one number). Raises ModelError for a path
    that is no vision-language model of a known family.
    """
    source = resolve(path)
    transformers_logging.disable_progress_bar()
    try:
        processor = AutoProcessor.from_pretrained(source, trust_remote_code=trust_remote_code)
        model = AutoModelForImageTextToText.from_pretrained(
            source,
            dtype=getattr(torch, dtype),
            attn_implementation=attention,
            trust_remote_code=trust_remote_code,
        )
    except (OSError, ValueError, KeyError, ImportError, SafetensorError) as error:
        raise ModelError(f"{path}: cannot be loaded as a vision-language model: {_first_line(error)}") from error
    kind = model.config.model_type
    if kind not in FAMILIES:
        raise ModelError(f"{path}: model type is {kind}: allowed are {', '.join(FAMILIES)}")
    encoder = PromptEncoder(
        processor=processor,
        min_pixels=min_pixels,
        max_pixels=max_pixels,
        max_prompt_tokens=max_prompt_tokens,
        allow_url=allow_url,
        instruction=instruction,
    )
    place = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    policy = Policy(model.eval(), freeze_vision=freeze_vision, compute=getattr(torch, compute))
    try:
        policy = policy.to(torch.device(place))
    except (RuntimeError, AssertionError) as error:  # torch's own way to say that a device is not there
        raise ModelError(f"{path}: device {device} cannot be used: {_first_line(error)}") from error
    return VisionLanguageModel(path=path, policy=policy, processor=processor, encoder=encoder)


def resolve(path: str) -> str:
    """A directory or a Hub id to load from; raises ModelError for a path that can be neither."""
    if path.startswith("zoo:"):
        directory = Path(__file__).parent / "zoo" / path.removeprefix("zoo:")
        if path not in ("zoo:student", "zoo:teacher"):
            raise ModelError(f"model path is {path}: embedded models are zoo:student and zoo:teacher")
        return str(directory)
    directory = Path(path).expanduser()
    if directory.is_dir():
        config = directory / "config.json"
        if not config.is_file():
            raise ModelError(f"{path}: the directory holds no model (config.json is missing)")
        try:
            json.loads(config.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ModelError(f"{path}: config.json is not JSON: {error}") from None
        return str(directory)
    hub_id = path.count("/") == 1 and not path.startswith((".", "/", "~"))
    if not hub_id:
        raise ModelError(f"{path}: no such directory, and not a Hub id of the form owner/name")
    return path


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
