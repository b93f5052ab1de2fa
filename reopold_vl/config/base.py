"""What every part of the configuration is checked with."""

from __future__ import annotations


class ConfigError(ValueError):
    """A setting that cannot be; the message names the field, the value and what is allowed."""


def require(condition: bool, name: str, value: object, allowed: str) -> None:
    """Raises ConfigError in the toolkit's one form unless `condition` holds."""
    if not condition:
        raise ConfigError(f"{name} is {value}: allowed is {allowed}")
