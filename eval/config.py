"""The command line of `python -m eval.run`: flags by tyro, errors of one line; nothing heavy is imported."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from eval.types import Scorer
from reopold_vl import cli_errors
from reopold_vl.cli_errors import nearest, parse_flags

PROGRAM = "python -m eval.run"

USAGE = """Measure a vision-language model, beside a baseline: accuracy with intervals, and speed.

  python -m eval.run                                         the embedded student against the embedded teacher
  python -m eval.run --bench mathvista,mathverse --model DIR_OR_ID --baseline DIR_OR_ID
  python -m eval.run --score evals/NAME                      score stored responses again, without a model
  python -m eval.run --list                                  the benchmarks: splits, sources, licences, prompts

Responses are stored as they come and taken up again by the next run into the same directory."""


class EvalError(ValueError):
    """Bad arguments, or an evaluation that cannot go on; the message is one line."""


require = partial(cli_errors.require, EvalError)


@dataclass(frozen=True)
class EvalConfig:
    """All settings of one evaluation; the fields are the flags."""

    bench: str = "embedded"
    """Benchmarks by name, separated by commas (see --list)."""

    model: str | None = None
    """The model to measure: directory, Hub id, or zoo:student (the default)."""

    baseline: str | None = None
    """What to compare it with, such as its teacher; "none" for nothing. Without --model the default is zoo:teacher."""

    limit: int | None = None
    """Only the first this many problems of each benchmark."""

    split: str | None = None
    """Split of the benchmarks; by default each one's own."""

    data_path: str | None = None
    """Local data in the Hub's schema in place of a download: parquet, jsonl, or a directory of them; with several
    benchmarks NAME=PATH for each, separated by commas (those without a path are downloaded)."""

    prompt: str | None = None
    """How problems are worded: one of the benchmark's prompts (see --list); by default its first."""

    scorer: Scorer = "strict"
    """strict: an answer counts when it is stated, never by luck. official: the benchmark's published rule."""

    n: int = 1
    """Answers to each problem; more than 1 needs a temperature, and gives pass@k and maj@k."""

    temperature: float = 0.0
    """0 is greedy."""

    top_p: float = 1.0
    """Sample from the likeliest tokens that have this share together."""

    max_new_tokens: int | None = None
    """Longest answer in tokens; by default the benchmark's own. Longer ones are cut and counted as truncated."""

    seed: int = 0
    """Every random choice follows from it."""

    batch_size: int = 64
    """Answers generated together; halved when memory runs out."""

    min_pixels: int = 4 * 28 * 28
    """Smaller images are enlarged to this area."""

    max_pixels: int = 1280 * 28 * 28
    """Larger images are shrunk to this area."""

    max_prompt_tokens: int = 8192
    """Problems whose prompt has more tokens are failed inputs: listed, not scored."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Precision of weights and products; auto is float32 on a CPU and bfloat16 on a GPU."""

    device: str = "auto"
    """Where the models run: auto, cpu, cuda, cuda:1."""

    threads: int | None = None
    """CPU threads of torch; None leaves torch's choice, but takes 1 where all models are embedded ones: with more they
    are slower."""

    trust_remote_code: bool = False
    """Run code that comes with a model."""

    speed: bool = True
    """Measure the speed of both models as well."""

    speed_problems: int = 64
    """Problems that speed is measured on (with a batch size of 1 on 16 of them at most)."""

    judge: str | None = None
    """OpenAI-compatible endpoint that reads the final answer out of responses in which the rules find none."""

    judge_model: str | None = None
    """The judge's model, by the name that its endpoint knows."""

    score: tuple[Path, ...] = ()
    """Score these stored responses (files or directories) again; needs no model."""

    export: str = ""
    """Also write the official submission formats, by name, separated by commas."""

    output_dir: Path | None = None
    """Where everything is written; by default evals/ and the model's name, with --score beside the responses."""

    resume: bool = True
    """Take up stored responses; with --no-resume start over."""

    list: bool = False
    """List the benchmarks and leave."""

    def __post_init__(self) -> None:
        for name in ("limit", "n", "batch_size", "max_new_tokens", "max_prompt_tokens", "threads", "speed_problems"):
            value = getattr(self, name)
            require(value is None or value >= 1, name, value, "1 or more")
        require(self.temperature >= 0, "temperature", self.temperature, "0 or more")
        require(0 < self.top_p <= 1, "top_p", self.top_p, "above 0 and at most 1")
        require(self.seed >= 0, "seed", self.seed, "0 or more")
        require(0 < self.min_pixels <= self.max_pixels, "min_pixels", self.min_pixels, "1 to max_pixels")
        require(self.n == 1 or self.temperature > 0, "n", self.n, "1 at temperature 0 (greedy answers are all alike)")
        require(bool(self.benches), "bench", repr(self.bench), "names separated by commas")
        if self.data_path is not None and len(self.benches) > 1:
            named = [part.partition("=") for part in _names(self.data_path)]
            good = all(mark and path and name in self.benches for name, mark, path in named)
            allowed = "NAME=PATH for benchmarks of --bench, separated by commas, where there are several"
            require(good, "data_path", self.data_path, allowed)
        if self.judge is not None:
            web = re.match(r"https?://[^/\s]+", self.judge)
            require(web is not None, "judge", self.judge, "an address such as http://localhost:8000/v1")
            require(
                bool(self.judge_model), "judge_model", self.judge_model, "the name of a model that the judge serves"
            )

    @property
    def benches(self) -> tuple[str, ...]:
        return _names(self.bench)

    def data_path_of(self, bench: str) -> str | None:
        """Where a benchmark's local data lies; None where it is to be downloaded."""
        if self.data_path is None or (len(self.benches) == 1 and f"{bench}=" not in self.data_path):
            return self.data_path
        return dict(part.split("=", 1) for part in _names(self.data_path)).get(bench)

    @property
    def exports(self) -> tuple[str, ...]:
        return _names(self.export)

    @property
    def model_path(self) -> str:
        return self.model or "zoo:student"

    @property
    def baseline_path(self) -> str | None:
        """What the model is compared with; the embedded teacher only where nothing else was asked for."""
        if self.baseline is None:
            return "zoo:teacher" if self.model is None else None
        return None if self.baseline == "none" else self.baseline

    @property
    def torch_threads(self) -> int | None:
        """Threads to set; None leaves torch's choice."""
        paths = [path for path in (self.model_path, self.baseline_path) if path is not None]
        return 1 if self.threads is None and all(path.startswith("zoo:") for path in paths) else self.threads

    @property
    def directory(self) -> Path:
        """Where the results go (not for --score, which looks at its files)."""
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", self.model_path).strip("-.")
        return self.output_dir or Path("evals") / (name or "model")


def parse(argv: list[str]) -> EvalConfig:
    """The settings from the arguments; raises EvalError, or SystemExit for --help."""
    return parse_flags(EvalConfig(), argv, program=PROGRAM, usage=USAGE, error=EvalError)


def choose(name: str, known: Collection[str], what: str) -> None:
    """Raise EvalError, with the nearest name, unless `name` is known."""
    if name not in known:
        raise EvalError(f"unknown {what} {name!r}{nearest(name, known)}")


def _names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
