"""The benchmarks by name. A new one is a file with a `BENCH` and one line here. Loads neither torch nor `datasets`."""

from __future__ import annotations

import difflib

from eval.benches import (
    ai2d,
    chartqa,
    clevr_count,
    custom,
    dynamath,
    embedded,
    geometry3k,
    hallusionbench,
    logicvista,
    mathverse,
    mathvision,
    mathvista,
    mmmu,
    mmmu_pro,
    mmstar,
    scienceqa,
    tabmwp,
    wemath,
)
from eval.benchmark import Benchmark, BenchmarkError

BENCHES: dict[str, Benchmark] = {
    bench.name: bench
    for bench in (
        mathvista.BENCH,
        mathverse.BENCH,
        mathvision.BENCH,
        wemath.BENCH,
        geometry3k.BENCH,
        geometry3k.BENCH_CHOICES,
        logicvista.BENCH,
        dynamath.BENCH,
        hallusionbench.BENCH,
        mmmu.BENCH,
        mmmu_pro.BENCH,
        mmmu_pro.FOUR_OPTIONS,
        mmmu_pro.VISION,
        mmstar.BENCH,
        chartqa.BENCH,
        ai2d.BENCH,
        scienceqa.BENCH,
        clevr_count.BENCH,
        tabmwp.BENCH,
        embedded.BENCH,
        custom.BENCH,
    )
}


def find_bench(name: str) -> Benchmark:
    """The benchmark of this name, upper or lower case, "-" or "_"; raises BenchmarkError naming the nearest ones."""
    wanted = name.strip().lower().replace("-", "_")
    if wanted in BENCHES:
        return BENCHES[wanted]
    near = difflib.get_close_matches(wanted, BENCHES, n=3, cutoff=0.5)
    meant = f"did you mean {' or '.join(near)}? " if near else ""
    raise BenchmarkError(f"unknown benchmark {name!r}: {meant}known: {', '.join(BENCHES)}")
