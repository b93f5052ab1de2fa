"""What a build's filters and streams need beside the rows: the benchmarks' index, a token counter, models."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from data_recipes.builder import Tools
from data_recipes.config import BuildConfig, Filters
from data_recipes.filters import CountTokens, PassRates
from data_recipes.parallel import BLOCK_ROWS
from data_recipes.stream import Stream
from data_recipes.types import Checked
from reopold_vl.types import VisualSample


def toolmaker(config: BuildConfig) -> Callable[[Path], Tools]:
    """A function that makes the tools which these settings ask for, given the work directory of a build."""

    def make(work: Path) -> Tools:
        index = None
        if config.contamination and config.benchmarks:
            from data_recipes.benchmark_index import get_index

            # Kept in the work directory: a resumed build compares with the same benchmarks.
            index = get_index(config.benchmarks, config.contamination_index or work / "index.npz")
            listed = ", ".join(index.benches) or "no benchmark"
            print(f"contamination: {len(index.items):,} problems of {listed}", file=sys.stderr)
        return Tools(index, count_tokens(config), measure_pass_rates(config, config.seed, work / "pass_rates.jsonl"))

    return make


def count_tokens(filters: Filters) -> CountTokens | None:
    """Tokens of a checked row's prompt under the settings' processor; None where tokens are not asked for."""
    if not filters.max_prompt_tokens or filters.processor is None:
        return None
    from data_recipes.tokens import token_counter

    count = token_counter(filters.processor, max_pixels=filters.processor_max_pixels)
    return lambda row: count(row.sample, row.sizes)


def measure_pass_rates(filters: Filters, seed: int, cache: Path) -> PassRates | None:
    """Share of right answers of the settings' model; measured rows are kept in `cache`, which a resumed build reads.

    The rates of a block depend on the block alone, not on where a build began.
    """
    if filters.pass_rate_model is None:
        return None
    from data_recipes.teacher import Sampling, load_sampler, pass_rates

    known: dict[int, float] = {}
    for line in cache.read_bytes().splitlines() if cache.exists() else ():
        try:
            number, rate = json.loads(line)
        except ValueError:
            continue  # a kill in the middle of a line
        known[number] = math.nan if rate is None else rate
    model = load_sampler(filters.pass_rate_model)
    sampling = Sampling(k=filters.pass_rate_samples, seed=seed)

    def measure(rows: Sequence[Checked]) -> Sequence[float]:
        if any(row.number not in known for row in rows):
            block = rows[0].number // BLOCK_ROWS
            rates = pass_rates(model, [whole_sample(row) for row in rows], sampling, first_block=block)
            known.update(zip((row.number for row in rows), rates, strict=True))
            with cache.open("a", encoding="utf-8") as file:
                for row, rate in zip(rows, rates, strict=True):
                    file.write(json.dumps([row.number, None if math.isnan(rate) else rate]) + "\n")
        return [known[row.number] for row in rows]

    return measure


def whole_sample(row: Checked) -> VisualSample:
    """The sample with its images, which a checked row holds apart."""
    return replace(row.sample, images=row.image_bytes)


def with_teacher(stream: Stream, config: BuildConfig) -> Stream:
    """The stream with a teacher's right responses, where the settings name one."""
    if config.teacher is None:
        return stream
    from data_recipes.teacher import Sampling, load_sampler, teacher_stream

    sampling = Sampling(
        k=config.teacher_samples,
        temperature=config.teacher_temperature,
        max_new_tokens=config.teacher_max_new_tokens,
        seed=config.seed,
    )
    return teacher_stream(stream, load_sampler(config.teacher), sampling, max_responses=config.teacher_keep)
