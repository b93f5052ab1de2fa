"""LoRA adapters (Hu et al., arXiv 2106.09685) by peft, injected in place: the model keeps its class and its methods.

An adapter on disk is peft's own: adapter_config.json and adapter_model.safetensors, and beside them base.json, which
tells the weights that it was trained on from others of the same shape.
"""

from __future__ import annotations

import copy
import hashlib
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from reopold_vl.lora_targets import AdapterError, as_pattern, target_layers

CONFIG_FILE, WEIGHTS_FILE, BASE_FILE = "adapter_config.json", "adapter_model.safetensors", "base.json"
NAME = "default"  # peft's word for the one adapter of a model
PREFIX = "base_model.model."  # what peft writes before each name


class GradientDropout(nn.Dropout):
    """Dropout in the gradient pass alone: the policy stays in evaluation mode, and its log-probs one number."""

    def forward(self, input: Tensor) -> Tensor:
        return nn.functional.dropout(input, self.p, training=torch.is_grad_enabled())


def has_adapter(model: nn.Module) -> bool:
    return bool(getattr(model, "peft_config", None))


def is_adapter(directory: Path) -> bool:
    """Whether an adapter lies there, rather than a whole model."""
    return (directory / CONFIG_FILE).is_file() and not (directory / "config.json").is_file()


def add_adapter(
    model: Any, *, base: str, rank: int, alpha: float, dropout: float, targets: Sequence[str], seed: int
) -> None:
    """Freeze `model` and put new adapters on its linear layers, which change nothing until they are trained.

    `base` is the path or Hub id that the adapter will name as its base; `targets` are as `target_layers` takes them.
    Adapters are fp32 whatever the weights are, and drawn from `seed`. Raises AdapterError.
    """
    peft = _peft()
    layers = target_layers(model, targets)
    config = peft.LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=as_pattern(layers, others=[name for name, _ in model.named_modules()]),
        base_model_name_or_path=base,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        _inject(model, config)


def load_adapter(model: Any, directory: Path, *, base: str, dropout: float | None = None) -> None:
    """Freeze `model` and put the adapter that lies in `directory` on it; `dropout` replaces the adapter's own.

    `base` is where `model` was loaded from. Raises AdapterError for an adapter of another base, of another kind or
    without weights.
    """
    peft = _peft()
    config = read_config(directory)
    check_base(model, directory, base=base)
    if config.modules_to_save or config.trainable_token_indices:
        raise AdapterError(f"adapter {directory} holds whole modules too: merge it first (python -m reopold_vl.merge)")
    try:
        weights = load_file(directory / WEIGHTS_FILE)
    except (OSError, SafetensorError) as error:
        raise AdapterError(f"adapter {directory}: {WEIGHTS_FILE} cannot be read: {error}") from error
    config.inference_mode = False
    config.base_model_name_or_path = base
    if dropout is not None:
        config.lora_dropout = dropout
    misfit = f"adapter {directory} does not fit {base}"
    try:
        _inject(model, config)
        result = peft.set_peft_model_state_dict(model, weights)
    except (ValueError, RuntimeError, KeyError) as error:  # no such layers; other sizes
        raise AdapterError(f"{misfit}: {' '.join(str(error).split())[:300]}") from error
    missing = [name for name in result.missing_keys if "lora_" in name]
    for problem, names in (("it lacks", missing), ("the model has no", result.unexpected_keys)):
        if names:
            raise AdapterError(f"{misfit}: {problem} {names[0]}")
    _refuse_head(model)


def save_adapter(model: Any, directory: Path, state_dict: Mapping[str, Tensor] | None = None) -> None:
    """Write the model's adapter for peft's `PeftModel.from_pretrained`, for `load_adapter` and for `merge`.

    `state_dict` gives the weights where the module's own are sharded (names as in `model.state_dict()`).
    """
    config = copy.copy(model.peft_config[NAME])
    config.inference_mode = True
    directory.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(str(directory))
    state = _peft().get_peft_model_state_dict(model, state_dict=state_dict, save_embedding_layers=False)
    tensors = {PREFIX + name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    save_file(tensors, directory / WEIGHTS_FILE, metadata={"format": "pt"})
    record = {"base": config.base_model_name_or_path, "fingerprint": model.base_fingerprint}
    (directory / BASE_FILE).write_text(json.dumps(record, indent=1), encoding="utf-8")


def read_config(directory: Path) -> Any:
    """The adapter's settings. Raises AdapterError if there are none, or they are not of LoRA."""
    from peft import LoraConfig, PeftConfig

    path = directory / CONFIG_FILE
    if not path.is_file():
        raise AdapterError(f"adapter {directory}: {CONFIG_FILE} is missing")
    try:
        config = PeftConfig.from_pretrained(str(directory))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise AdapterError(f"adapter {directory}: {CONFIG_FILE} cannot be read: {error}") from error
    if not isinstance(config, LoraConfig):
        raise AdapterError(f"adapter {directory} is of type {config.peft_type}: allowed is LORA")
    if not config.base_model_name_or_path:
        raise AdapterError(f"adapter {directory}: {CONFIG_FILE} names no base (base_model_name_or_path)")
    return config


def check_base(model: nn.Module, directory: Path, *, base: str) -> None:
    """Raises AdapterError unless `model`, loaded from `base`, is what the adapter was trained on.

    By its weights, if the adapter tells them; else by name: the same path or id, or the same last part of it.
    """
    named = read_config(directory).base_model_name_or_path
    theirs, ours = _fingerprint_of(directory), fingerprint(model)
    known = bool(theirs and ours)
    if theirs != ours if known else Path(named).name != Path(base).name:
        why = f"on {named}, and its weights are not those of" if known else f"on {named}, not on"
        raise AdapterError(f"adapter {directory} was trained {why} {base}: give it its own base")


def fingerprint(model: nn.Module) -> str:
    """A hash of some of each weight's values, the same for fp32 and bf16 copies; empty in fp16, which rounds apart."""
    digest = hashlib.sha256()
    for name, weight in model.named_parameters():
        if weight.dtype == torch.float16:
            return ""
        if ".lora_" in name:
            continue
        values = weight.detach().flatten()
        some = values[:: max(1, len(values) // 64)][:64].to(torch.bfloat16).view(torch.int16).cpu()
        digest.update(name.replace(".base_layer.", ".").encode() + some.numpy().tobytes())
    return digest.hexdigest()


def _inject(model: Any, config: Any) -> None:
    from peft.tuners.lora import LoraLayer

    # The whole tree: what lies outside the adapters must not be trained either.
    model.base_fingerprint = fingerprint(model)
    with quiet_peft():
        _peft().inject_adapter_in_model(config, model)
    for name, parameter in model.named_parameters():
        adapts = ".lora_" in name
        parameter.requires_grad_(adapts)
        if adapts:
            parameter.data = parameter.data.float()
    for module in model.modules():
        if isinstance(module, LoraLayer) and isinstance(module.lora_dropout[NAME], nn.Dropout):
            module.lora_dropout[NAME] = GradientDropout(config.lora_dropout)


@contextmanager
def quiet_peft() -> Iterator[None]:
    """peft asks transformers for a name that is going away, and the user is warned of it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing")
        yield


@contextmanager
def base_alone(model: nn.Module) -> Iterator[None]:
    """The section in which the model computes without its adapter: for passes without gradient."""
    from peft.tuners.lora import LoraLayer

    layers = [module for module in model.modules() if isinstance(module, LoraLayer)]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def _refuse_head(model: Any) -> None:
    if hasattr(model.get_output_embeddings(), "lora_A"):
        raise AdapterError("the adapter changes the output head: merge it into its base first (reopold_vl.merge)")


def _fingerprint_of(directory: Path) -> str:
    path = directory / BASE_FILE
    if not path.is_file():
        return ""
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["fingerprint"])
    except (ValueError, KeyError, TypeError) as error:
        raise AdapterError(f"adapter {directory}: {BASE_FILE} cannot be read: {error}") from None


def _peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise AdapterError('LoRA needs peft: pip install -e ".[lora]"') from error
    return peft
