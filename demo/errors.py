"""What a visitor or an operator did that cannot work: one line, shown as it is."""

from __future__ import annotations


class DemoError(ValueError):
    """Bad input; the message names it and says what is allowed."""
