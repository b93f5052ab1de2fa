"""What every part of the configuration is checked with."""

from __future__ import annotations

from functools import partial

from reopold_vl import cli_errors


class ConfigError(ValueError):
    """A setting that cannot be; the message names the field, the value and what is allowed."""


require = partial(cli_errors.require, ConfigError)
