"""Which layers of a model are adapted, and how an adapter's settings name them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from torch import nn

from reopold_vl.vision import vision_modules


class AdapterError(ValueError):
    """An adapter that cannot be made, read or put on this model; the message says why."""


def target_layers(model: Any, targets: Sequence[str]) -> list[str]:
    """Names of the linear layers that `targets` name; without targets, all of the language model.

    A target is a layer's name, the end of it, or any whole part of it (q_proj, layers.3, visual.blocks). It means the
    language model's layers if it names any of them, else those of the vision tower and the projector. Raises
    AdapterError for a target that matches nothing, and for the head, which log-probs are computed with directly.
    """
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    seeing = {id(module) for part in vision_modules(model) for module in part.modules()}
    head = model.get_output_embeddings()
    modules = dict(model.named_modules())
    language = [name for name in linear if id(modules[name]) not in seeing and modules[name] is not head]
    if not targets:
        return language
    found: list[str] = []
    for target in targets:
        matches = _matching(language, target) or _matching(linear, target)
        if not matches:
            some = ", ".join(sorted({name.rsplit(".", 1)[-1] for name in language}))
            raise AdapterError(f"student.lora.targets is {target!r}, which names no linear layer: there are {some}")
        if any(modules[name] is head for name in matches):
            raise AdapterError(f"student.lora.targets is {target!r}: allowed is any linear layer but the output head")
        found += matches
    return [name for name in linear if name in found]


def as_pattern(layers: Sequence[str], others: Sequence[str]) -> str:
    """A regular expression for the names `layers`; numbers are left open if that adds none of the names `others`."""
    exact = [re.escape(name) for name in layers]
    open_numbers = [re.sub(r"(?<=\\\.)\d+(?=\\\.)", r"\\d+", name) for name in exact]
    pattern = "|".join(dict.fromkeys(open_numbers))
    adds = any(re.fullmatch(pattern, name) for name in set(others) - set(layers))
    return "|".join(exact) if adds else pattern


def _matching(layers: Sequence[str], target: str) -> list[str]:
    return [name for name in layers if f".{target}." in f".{name}."]
