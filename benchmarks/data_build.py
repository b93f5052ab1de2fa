"""Rows a second and peak memory of `data_recipes.build` on the embedded task: `python -m benchmarks.data_build`.

Every size is built in a process of its own, with its defaults (contamination against the embedded benchmark
included); its peak is that of the building process, worker processes come on top. Figures for a machine with little
else to do.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print a table; the last line is JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.data_build", description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[2000, 20000], help="sizes to build (2000 20000)")
    parser.add_argument("--num-proc", type=int, nargs="+", default=[1], help="numbers of worker processes (1)")
    parser.add_argument("--flags", nargs=argparse.REMAINDER, default=[], help="the rest: flags for data_recipes.build")
    arguments = parser.parse_args(argv)
    found = []
    names = ("rows", "num_proc", "seconds", "rows_per_second", "cpu_seconds", "peak_mib", "worker_peak_mib", "disk_mib")
    print("".join(f"{name:>17}" for name in names))
    for num_proc in arguments.num_proc:
        for rows in arguments.rows:
            one = measure(rows, num_proc, arguments.flags)
            found.append(one)
            print("".join(f"{one[name]:17,}" for name in names), flush=True)
    print(json.dumps(found))
    return 0


def measure(rows: int, num_proc: int, flags: Sequence[str] = ()) -> dict[str, Any]:
    """Build so many rows in a fresh process; seconds and peak resident memory, of it and of its largest worker."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "out"
        command = [sys.executable, "-m", "benchmarks.data_build", "child", str(rows), str(num_proc), str(out), *flags]
        started = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
        seconds = time.perf_counter() - started
        if done.returncode:
            raise SystemExit(f"the build of {rows} rows failed: {done.stderr[-1000:]}")
        peaks = json.loads(done.stdout.splitlines()[-1])
        kept = json.loads((out / "manifest.json").read_text(encoding="utf-8"))["rows"]["kept"]
        disk = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    return {
        "rows": rows,
        "kept": kept,
        "num_proc": num_proc,
        "seconds": round(seconds, 2),
        "rows_per_second": round(rows / seconds, 1),
        **peaks,
        "disk_mib": round(disk / 2**20, 2),
    }


def child(arguments: Sequence[str]) -> int:
    """Build, then print the peaks of this process and of its largest worker."""
    from data_recipes.build import main as build

    rows, num_proc, out, *flags = arguments
    code = build(["embedded", "--limit", rows, "--num-proc", num_proc, "--output-dir", out, *flags])
    scale = 2**20 if sys.platform == "darwin" else 2**10  # ru_maxrss is in bytes there, in KiB elsewhere
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu = sum(usage.ru_utime + usage.ru_stime for usage in usages)
    own, workers = (usage.ru_maxrss / scale for usage in usages)
    print(json.dumps({"peak_mib": round(own, 1), "worker_peak_mib": round(workers, 1), "cpu_seconds": round(cpu, 2)}))
    return code


if __name__ == "__main__":
    raise SystemExit(child(sys.argv[2:]) if sys.argv[1:2] == ["child"] else main())
