"""Problems per CPU-second of our evaluation's generation against plain transformers, one problem at a time.

    python -m benchmarks.eval_throughput [--num 200] [--batch-size 64] [--repeats 3] [--json OUT]

Both answer the same embedded problems with the same weights in fp32 on one thread, greedily, up to the same number of
tokens, and both are timed from problem to text: chat template, image processing, generation, decoding. Ours is
`eval.generate.Generator` as `python -m eval.run` uses it, writing of responses included.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

from eval.benches import find_bench
from eval.generate import Generator, Job, plan
from eval.responses import GenerationSettings
from eval.types import Problem
from reopold_vl.images import load_image
from reopold_vl.models import VisionLanguageModel, load_model
from reopold_vl.presets import EMBEDDED

GOAL = 4.0


@dataclass(frozen=True)
class Throughput:
    """The result: both ways' rates, ours over plain, and the share of answers that are the same to the letter."""

    model: str
    problems: int
    batch_size: int
    max_new_tokens: int
    repeats: int
    ours_per_cpu_second: float
    plain_per_cpu_second: float
    ratio: float
    ours_per_second: float
    plain_per_second: float
    wall_ratio: float
    identical: float


def measure(
    model: VisionLanguageModel, problems: Sequence[Problem], *, batch_size: int, max_new_tokens: int, repeats: int
) -> Throughput:
    """Answer `problems` both ways in turn, `repeats` times after a warm-up; raises ValueError for no problems."""
    if not problems or repeats < 1:
        raise ValueError(f"{len(problems)} problems, {repeats} repeats: at least one of each is needed")
    ways: tuple[Callable[[Sequence[Problem]], dict[str, str]], ...] = (
        lambda chosen: answer_batched(model, chosen, batch_size=batch_size, max_new_tokens=max_new_tokens),
        lambda chosen: answer_plain(model, chosen, max_new_tokens=max_new_tokens),
    )
    for way in ways:
        way(problems[:4])
    seconds: list[list[tuple[float, float]]] = [[], []]
    texts: list[dict[str, str]] = [{}, {}]
    for _ in range(repeats):
        for index, way in enumerate(ways):
            wall, cpu = time.perf_counter(), time.process_time()
            texts[index] = way(problems)
            seconds[index].append((time.process_time() - cpu, time.perf_counter() - wall))
    rates = [[len(problems) / median(column) for column in zip(*runs, strict=True)] for runs in seconds]
    same = sum(texts[0][problem.id] == texts[1][problem.id] for problem in problems)
    return Throughput(
        model=model.path,
        problems=len(problems),
        batch_size=batch_size,
        max_new_tokens=max_new_tokens,
        repeats=repeats,
        ours_per_cpu_second=rates[0][0],
        plain_per_cpu_second=rates[1][0],
        ratio=rates[0][0] / rates[1][0],
        ours_per_second=rates[0][1],
        plain_per_second=rates[1][1],
        wall_ratio=rates[0][1] / rates[1][1],
        identical=same / len(problems),
    )


def answer_batched(
    model: VisionLanguageModel, problems: Sequence[Problem], *, batch_size: int, max_new_tokens: int
) -> dict[str, str]:
    """Each problem's answer, as an evaluation gets it."""
    encoder = model.encoder
    settings = GenerationSettings(
        max_new_tokens=max_new_tokens,
        temperature=0.0,
        top_p=1.0,
        seed=0,
        min_pixels=encoder.min_pixels,
        max_pixels=encoder.max_pixels,
        max_prompt_tokens=encoder.max_prompt_tokens,
        dtype="float32",
    )
    jobs = [Job(problem, problem.question, 0, problem.id) for problem in problems]
    generator = Generator(model, bench="embedded", settings=settings, batch_size=batch_size)
    with tempfile.TemporaryDirectory() as directory:
        batches = plan(jobs, encoder, batch_size=batch_size)
        answers = generator.run(batches, Path(directory) / "responses.jsonl", done={})
        return {response.problem.id: response.text for batch in answers for response in batch}


@torch.no_grad()
def answer_plain(model: VisionLanguageModel, problems: Sequence[Problem], *, max_new_tokens: int) -> dict[str, str]:
    """The usual loop: chat template, processor and `model.generate` of transformers for one problem after another."""
    texts = {}
    for problem in problems:
        images: list[dict[str, Any]] = [{"type": "image", "image": load_image(image)} for image in problem.images]
        turn = {"role": "user", "content": [*images, {"type": "text", "text": problem.question}]}
        inputs = model.processor.apply_chat_template(
            [turn], tokenize=True, add_generation_prompt=True, return_dict=True, return_tensors="pt"
        )
        ids = model.policy.model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
        answer = ids[0, inputs["input_ids"].shape[1] :]
        texts[problem.id] = model.tokenizer.decode(answer, skip_special_tokens=True)
    return texts


def table(found: Throughput) -> str:
    """The result in lines for the terminal."""
    return "\n".join(
        [
            f"{found.problems} embedded problems, {found.model}, fp32, one thread, greedy, up to "
            f"{found.max_new_tokens} tokens, median of {found.repeats} repeats",
            "",
            "| | problems per CPU-second | problems per second |",
            "|---|---|---|",
            f"| ours, batches of {found.batch_size} | {found.ours_per_cpu_second:.1f} | {found.ours_per_second:.1f} |",
            f"| transformers, one at a time | {found.plain_per_cpu_second:.1f} | {found.plain_per_second:.1f} |",
            f"| ratio (goal {GOAL:g}x) | {found.ratio:.1f}x | {found.wall_ratio:.1f}x |",
            "",
            f"identical answers: {found.identical:.1%}",
        ]
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and write `--json`."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.eval_throughput",
        description="Our evaluation's generation against plain transformers.",
    )
    parser.add_argument("--num", type=int, default=200, help="problems (default: 200)")
    parser.add_argument("--batch-size", type=int, default=64, help="answers at once in our runs (default: 64)")
    parser.add_argument("--repeats", type=int, default=3, help="timed runs of each way (default: 3)")
    parser.add_argument("--model", default="zoo:student", help="model directory or id (default: zoo:student)")
    parser.add_argument("--json", type=Path, default=None, help="file for the result")
    options = parser.parse_args(argv)
    for name in ("num", "batch_size", "repeats"):
        if getattr(options, name) < 1:
            parser.error(f"--{name.replace('_', '-')} is {getattr(options, name)}: allowed is 1 or more")
    torch.set_num_threads(1)
    images = EMBEDDED.images
    try:
        model = load_model(options.model, device="cpu", min_pixels=images.min_pixels, max_pixels=images.max_pixels)
    except ValueError as error:
        parser.error(str(error))
    bench = find_bench("embedded")
    assert bench.rows is not None
    found = measure(
        model,
        bench.rows("test")[: options.num],
        batch_size=options.batch_size,
        max_new_tokens=bench.max_new_tokens,
        repeats=options.repeats,
    )
    print(table(found))
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(asdict(found), indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
