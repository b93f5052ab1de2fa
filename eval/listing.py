"""`--list`: the benchmarks as text."""

from __future__ import annotations

from eval.benches import BENCHES
from eval.benchmark import Benchmark


def listing() -> str:
    """Every benchmark with its splits, sources, licence and prompts."""
    return "\n\n".join(map(_entry, BENCHES.values()))


def _entry(bench: Benchmark) -> str:
    hidden = f" (answers are hidden: {', '.join(bench.hidden_splits)})" if bench.hidden_splits else ""
    if bench.sources:
        sources = ", ".join(f"{source.id}{f' ({source.config})' if source.config else ''}" for source in bench.sources)
    else:
        sources = "computed, nothing to download" if bench.rows is not None else "your own data (--data-path)"
    return "\n".join(
        [
            f"{bench.name}: {bench.title}",
            f"  splits    {', '.join(bench.splits)}{hidden}",
            f"  source    {sources}",
            f"  licence   {bench.licence}",
            f"  prompts   {', '.join(bench.prompts)} (the first is the default)",
            f"  scorers   {', '.join(bench.graders)}",
            f"  headline  {bench.headline}; answers of at most {bench.max_new_tokens} tokens",
            f"  paper     {bench.citation}",
        ]
    )
