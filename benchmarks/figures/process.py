"""What a piece of work costs in a process of its own: memory's high-water mark cannot be told apart within one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any


def resident(field: str) -> int:
    """Bytes of this process: VmRSS now, VmHWM at most so far."""
    with open("/proc/self/status", encoding="ascii") as status:
        line = next(line for line in status if line.startswith(field))
    return int(line.split()[1]) * 1024


def print_spent(work: Callable[[], object]) -> None:
    """Do it and print, as JSON, its CPU seconds and by how many bytes the resident size has grown at its peak."""
    with open("/proc/self/clear_refs", "w", encoding="ascii") as reset:
        reset.write("5")  # the high-water mark starts anew
    before, start = resident("VmRSS"), time.process_time()
    work()
    print(json.dumps({"bytes": resident("VmHWM") - before, "seconds": time.process_time() - start}))


def printed(module: str, *arguments: object, threads: int = 1) -> dict[str, Any]:
    """The JSON in the last line that a new process of `python -m module arguments` prints."""
    done = subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": str(threads)},
    )
    return json.loads(done.stdout.splitlines()[-1])
