"""The vision tower and its projector as parameters: what of them is trained."""

from __future__ import annotations

from typing import Any

from torch import nn

from reopold_vl.families import projector, vision_tower


def vision_modules(model: Any) -> list[nn.Module]:
    """The tower and the modules of the projector (which some families keep inside the tower)."""
    return [part for part in (vision_tower(model), *projector(model)) if isinstance(part, nn.Module)]


def freeze_vision(model: Any, *, tower: bool, projector: bool) -> None:
    """Keep the tower, the projector or both out of training; what is neither stays as it is."""
    projecting = _projector_parameters(model)
    own = {id(parameter) for parameter in projecting}
    seeing = [parameter for parameter in vision_tower(model).parameters() if id(parameter) not in own]
    for frozen, parameters in ((tower, seeing), (projector, projecting)):
        for parameter in parameters if frozen else []:
            parameter.requires_grad_(False)


def vision_trains(model: Any) -> bool:
    """Whether any weight between the pixels and the language model is trained."""
    return any(parameter.requires_grad for parameter in vision_parameters(model))


def vision_parameters(model: Any) -> list[nn.Parameter]:
    """All weights between the pixels and the language model."""
    return [*vision_tower(model).parameters(), *_projector_parameters(model)]


def _projector_parameters(model: Any) -> list[nn.Parameter]:
    found: list[nn.Parameter] = []
    for part in projector(model):
        found += [part] if isinstance(part, nn.Parameter) else list(part.parameters())
    return found
