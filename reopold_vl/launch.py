"""What torchrun tells a process about itself, read from the environment: neither torch nor the network is touched."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from typing import NoReturn

TOLD = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


def launched() -> bool:
    """Whether this process is one of those that torchrun (or something that speaks as it does) started."""
    return all(name in os.environ for name in TOLD)


def launched_rank() -> int:
    """This process's number; 0 without torchrun."""
    return int(os.environ["RANK"]) if launched() else 0


def launched_size() -> int:
    """How many processes there are; 1 without torchrun."""
    return int(os.environ["WORLD_SIZE"]) if launched() else 1


def run(main: Callable[[], int]) -> NoReturn:
    """End this process with what `main` returns.

    One that works with others and fails ends at once: to hang up properly, it would wait for their answer.
    """
    try:
        code = main()
    except Exception:
        if not launched():
            raise
        traceback.print_exc()
        code = 1
    if launched() and code:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    raise SystemExit(code)
