"""config.yaml: every run writes one, `--config` and `--resume` read it back; a typo in it is an error."""

from __future__ import annotations

import dataclasses
import difflib
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reopold_vl.config import ConfigError, TrainConfig
from reopold_vl.objectives import OBJECTIVES


def read_config(path: Path) -> TrainConfig:
    """A config.yaml; raises ConfigError naming what is wrong with it."""
    import yaml

    if not path.is_file():
        raise ConfigError(f"config file {path} does not exist")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"config file {path} cannot be read: {error}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"config file {path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"config file {path} holds no settings")
    try:
        return from_dict(values)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def write_config(config: TrainConfig, path: Path) -> None:
    """The file that --config and --resume read back."""
    import yaml

    path.write_text(yaml.safe_dump(to_dict(config), sort_keys=False), encoding="utf-8")


def to_dict(config: TrainConfig) -> dict[str, Any]:
    """Plain values for config.yaml; `objective` gains its registered name."""
    values = dataclasses.asdict(config)
    name = next(name for name, kind in OBJECTIVES.items() if type(config.objective) is kind)
    values["objective"] = {"name": name, **values["objective"]}
    values["output_dir"] = str(config.output_dir)
    values["trackers"] = list(config.trackers)
    values["optim"]["betas"] = list(config.optim.betas)
    return values


@functools.cache  # building one takes some 40 ms
def _adapter(kind: type) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


def from_dict(values: Mapping[str, Any]) -> TrainConfig:
    """The inverse of `to_dict`; absent fields keep their defaults. Raises ConfigError with one line."""
    from pydantic import ValidationError

    values = dict(values)
    objective = values.pop("objective", {})
    if not isinstance(objective, Mapping):
        raise ConfigError(
            f"objective is {objective!r}: allowed is a name and its settings (objective: {{name: reopold}})"
        )
    objective = dict(objective)
    name = objective.pop("name", "reopold")
    kind = OBJECTIVES.get(name) if isinstance(name, str) else None
    if kind is None:
        raise ConfigError(f"objective.name is {name!r}: allowed is {', '.join(OBJECTIVES)}")
    try:
        _check_names(TrainConfig, values, "")
        _check_names(kind, objective, "objective.")
        # The objective is built apart: its class is told by its name, not by its fields.
        config = _adapter(TrainConfig).validate_python(values)
        return dataclasses.replace(config, objective=_adapter(kind).validate_python(objective))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        named = first["type"] == "value_error" or not place  # ours: it names the field and the value already
        raise ConfigError(message if named else f"{place} is {first['input']!r}: {message}") from None


def _check_names(kind: Any, values: Mapping[str, Any], prefix: str) -> None:
    """Unknown fields would be dropped in silence: name the first and the nearest known one."""
    known = {item.name: item for item in dataclasses.fields(kind)}
    for name, value in values.items():
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1)
            hint = f" (did you mean {prefix}{near[0]}?)" if near else f": allowed are {', '.join(known)}"
            raise ConfigError(f"unknown setting {prefix}{name}{hint}")
        factory = known[name].default_factory
        if isinstance(value, Mapping) and factory is not dataclasses.MISSING:
            _check_names(type(factory()), value, f"{prefix}{name}.")
