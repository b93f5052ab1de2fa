"""Load a vision-language model with all that belongs to it: policy, prompt encoder, end and banned tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import reopold_vl.torchvision_shim  # noqa: F401  (before transformers' image code)

# isort: split
import torch
from torch import Tensor

from reopold_vl.families import placeholder_ids
from reopold_vl.feature_cache import FeatureCache
from reopold_vl.lora import AdapterError, has_adapter, is_adapter, load_adapter, save_adapter
from reopold_vl.policy import Policy
from reopold_vl.prompts import PromptEncoder
from reopold_vl.rollout.hf import HFEngine
from reopold_vl.sources import Files, ModelError, adapter_base, first_line, has_processor, read, resolve
from reopold_vl.types import Answer, Rollout, VisualSample


@dataclass(frozen=True)
class VisionLanguageModel:
    """A model ready for use: `policy` computes log-probs, `encoder` makes prompts, the ids end and guard sampling."""

    path: str
    policy: Policy
    processor: Any
    encoder: PromptEncoder
    filler: Rollout | None = None
    """Of a model that is cut up over processes: what one runs along with the others when it has nothing to score."""

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
        padding = range(len(self.tokenizer), self.policy.model.get_output_embeddings().weight.shape[0])
        return (*placeholder_ids(self.policy.model.config), *padding)

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

    def answer(
        self, samples: Sequence[VisualSample], *, max_new_tokens: int, rows_at_once: int
    ) -> tuple[list[Answer | None], list[str]]:
        """One greedy answer to each sample, in their order; None where one cannot be encoded, with the reasons."""
        prompts, reasons = self.encoder.encode_all(samples)
        engine = self.engine(rows_at_once=rows_at_once)
        rollouts = engine.generate(prompts, n=1, max_new_tokens=max_new_tokens, seed=0, temperature=0.0)
        found = {
            id(rollout.prompt.sample): Answer(
                self.tokenizer.decode(rollout.response_ids, skip_special_tokens=True), rollout.finish_reason
            )
            for rollout in rollouts
        }
        return [found.get(id(sample)) for sample in samples], reasons

    def save(self, directory: Path, state_dict: Mapping[str, Tensor] | None = None) -> None:
        """Write a plain Hugging Face directory, weights as safetensors, or the adapter if there is one; and the
        processor. `state_dict` holds the model's full weights where its own are sharded.
        """
        if has_adapter(self.policy.model):
            save_adapter(self.policy.model, directory, state_dict)
        else:
            self.policy.model.save_pretrained(directory, state_dict=state_dict)
        self.processor.save_pretrained(directory)


def load_model(
    path: str,
    *,
    dtype: str = "float32",
    compute: str = "float32",
    attention: str = "sdpa",
    device: str = "auto",
    feature_cache_mb: int = 0,
    trust_remote_code: bool = False,
    min_pixels: int,
    max_pixels: int,
    max_prompt_tokens: int = 4096,
    allow_url: bool = False,
    instruction: str = "",
) -> VisionLanguageModel:
    """Load a local directory, a Hub id or an embedded model (`zoo:student`, `zoo:teacher`); `families.FAMILIES` lists
    the model types. A directory with a LoRA adapter is loaded with its base.

    The policy is in evaluation mode (no dropout: log-probs of one state are one number). Raises ModelError for a path
    that is no vision-language model of a known family, and for a device that is not there.
    """
    place = pick_device(device)
    own = resolve(path)
    adapter = Path(own) if is_adapter(Path(own)) else None
    source = own if adapter is None else adapter_base(path, adapter)
    files = Files(path, source, own if has_processor(own) else source)
    config, processor, model = read(files, dtype=dtype, attention=attention, trust_remote_code=trust_remote_code)
    encoder = PromptEncoder(
        processor=processor,
        family=config.model_type,
        image_token_id=config.image_token_id,
        min_pixels=min_pixels,
        max_pixels=max_pixels,
        max_prompt_tokens=max_prompt_tokens,
        allow_url=allow_url,
        instruction=instruction,
    )
    if adapter is not None:
        try:
            load_adapter(model, adapter, base=source)
        except AdapterError as error:
            raise ModelError(f"{path}: {error}") from error
    cache = FeatureCache(feature_cache_mb) if feature_cache_mb else None
    policy = Policy(model.eval(), compute=getattr(torch, compute), feature_cache=cache)
    try:
        policy = policy.to(place)
    except (RuntimeError, AssertionError) as error:  # torch's own way to say that a device is not there
        raise ModelError(f"{path}: device {device} cannot be used: {first_line(error)}") from error
    return VisionLanguageModel(path=path, policy=policy, processor=processor, encoder=encoder)


def pick_device(device: str, *, field: str = "device") -> torch.device:
    """`auto` is cuda where there is one, else the CPU; raises ModelError, naming `field`, for what is not there."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(device)
    except RuntimeError:
        raise ModelError(f"{field} is {device!r}: allowed is auto, cpu, cuda or cuda:N") from None
    if place.type != "cuda":
        return place
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count == 0:
        why = "this torch is built without CUDA" if torch.version.cuda is None else "torch finds no GPU"
        raise ModelError(f"{field} is {device}, and {why}: allowed is auto or cpu")
    if (place.index or 0) >= count:
        raise ModelError(f"{field} is {device}: allowed is auto, cpu or cuda:0 to cuda:{count - 1}")
    return place


def pick_dtype(dtype: str, place: torch.device) -> str:
    """`auto` is bfloat16 on a GPU and float32 elsewhere, for models that only answer and score."""
    if dtype != "auto":
        return dtype
    return "bfloat16" if place.type == "cuda" else "float32"
