"""Where a model's files are, and reading them through transformers."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import reopold_vl.torchvision_shim  # noqa: F401  (before transformers' image code)

# isort: split
import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor
from transformers.utils import logging as transformers_logging

from reopold_vl.families import missing_processor, processor_fault, reason_against
from reopold_vl.lora import AdapterError, is_adapter, read_config


class ModelError(ValueError):
    """A model that cannot be loaded or does not fit; the message says which and why."""


@dataclass(frozen=True)
class Files:
    """What the user calls a model, and the directories or Hub ids that its weights and its processor are in."""

    path: str
    weights: str
    processor: str


def read(files: Files, *, dtype: str, attention: str = "sdpa", trust_remote_code: bool = False) -> tuple[Any, Any, Any]:
    """(configuration, processor, model) of a known family; raises ModelError for anything else."""
    transformers_logging.disable_progress_bar()
    try:
        config = AutoConfig.from_pretrained(files.weights, trust_remote_code=trust_remote_code)
        if (reason := reason_against(config)) is not None:
            raise ModelError(f"{files.path}: {reason}")
        if (missing := missing_processor(files.processor)) is not None:
            raise ModelError(f"{files.path}: {missing}")
        processor = AutoProcessor.from_pretrained(files.processor, trust_remote_code=trust_remote_code)
        if (fault := processor_fault(processor, config)) is not None:
            raise ModelError(f"{files.path}: {fault}")
        with _quiet_transformers():
            loaded: Any = AutoModelForImageTextToText.from_pretrained(
                files.weights,
                dtype=getattr(torch, dtype),
                attn_implementation=attention,
                trust_remote_code=trust_remote_code,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are refused below, in one line
            )
    except (ModelError, torch.OutOfMemoryError):
        raise
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError, StrictDataclassError) as error:
        line = " ".join(str(error).split())[:300] or type(error).__name__
        raise ModelError(f"{files.path}: cannot be loaded as a vision-language model: {line}") from error
    model, found = loaded
    if (fault := _weights_fault(found)) is not None:
        raise ModelError(f"{files.path}: {fault}")
    if found["unexpected_keys"]:
        some = ", ".join(sorted(found["unexpected_keys"])[:3])
        note = f"note: {files.path}: {len(found['unexpected_keys'])} weights have no place in the model: {some}"
        print(note, file=sys.stderr)
    return config, processor, model


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """transformers prints a table of what does not fit; it is told in one line instead."""
    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(before)


def _weights_fault(found: Mapping[str, Any]) -> str | None:
    """What the files lack of the model's weights: transformers would draw it at random, and a run would look sound."""
    if found["mismatched_keys"]:
        name, theirs, ours = min(found["mismatched_keys"])
        return f"{name} is {tuple(theirs)} in the weights and {tuple(ours)} by config.json: they belong to two models"
    missing = sorted(found["missing_keys"])
    if missing:
        names = "weight is" if len(missing) == 1 else "weights are"
        return f"{len(missing)} {names} missing from its files: {', '.join(missing[:3])}"
    return None


def resolve(path: str) -> str:
    """A directory or a Hub id to load from; raises ModelError for a path that can be neither."""
    if path.startswith("zoo:"):
        directory = Path(__file__).parent / "zoo" / path.removeprefix("zoo:")
        if path not in ("zoo:student", "zoo:teacher"):
            raise ModelError(f"model path is {path}: embedded models are zoo:student and zoo:teacher")
        return str(directory)
    directory = Path(path).expanduser()
    if directory.is_dir():
        if is_adapter(directory):
            return str(directory)
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


def first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def adapter_base(path: str, adapter: Path) -> str:
    """Where the base of an adapter's directory is loaded from; raises ModelError if it is not there."""
    try:
        base = read_config(adapter).base_model_name_or_path
        found = resolve(base)
    except AdapterError as error:
        raise ModelError(f"{path}: {error}") from error
    except ModelError as error:
        raise ModelError(f"{path}: its base is not there ({error}): say where in adapter_config.json") from error
    if is_adapter(Path(found)):
        raise ModelError(f"{path}: its base {base} is an adapter itself: merge that one first (reopold_vl.merge)")
    return found


def has_processor(directory: str) -> bool:
    return any((Path(directory) / name).is_file() for name in ("processor_config.json", "preprocessor_config.json"))
