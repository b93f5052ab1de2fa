"""A training step at real size on one device: tokens a second, memory, and the share of the card's own matmul rate.

    python -m benchmarks.gpu --size 3b [--device cuda] [--train lora,full] [--json OUT] [--results docs/results.md]
    python -m benchmarks.gpu --size tiny --device cpu          # the same code where there is no GPU

The models are Qwen2.5-VL of the published shapes with random weights (`benchmarks/gpu_shapes.py`: no download); the
teacher is the 7B. A step (`gpu_step.py`) samples answers, scores them by student (sampling in bf16 is not exact) and
teacher, and makes one update, as `reopold_vl.train` does: bf16 weights, gradient checkpointing, and reverse KL, so that
every token is trained on. `lora` trains adapters of rank 32 on the language model, `full` all weights with fp32 masters
and moments. Answers have one length: the end token does not stop them. What does not fit is reported as that.

Before that, log-probs of the same weights in bf16 are compared with float32. The device's rate is measured, not looked
up: the best of several large bf16 products. What counts as an operation is said in `gpu_shapes.py`.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch

from benchmarks.gpu_results import Report, table, write_section
from benchmarks.gpu_shapes import SIZES, build_model
from benchmarks.gpu_step import LOADS, TEACHERS, Load, make_prompts, matmul_rate, measure, parity, release
from reopold_vl.models import ModelError, pick_device

PARITY = 0.05  # nats, mean over tokens: as `reopold_vl.check` allows in bf16; a miswired model is off by far more


def benchmark(size: str, load: Load, device: torch.device, *, trains: Sequence[str], steps: int) -> Report:
    """Everything for one size, one thing after another: each has the device to itself."""
    rate = matmul_rate(device)
    mean, largest = parity(size, replace(load, prompts=min(load.prompts, 2)), device)
    release(device)
    found = []
    for train in trains:
        found.append(measure(size, load, device, train=train, steps=steps, rate=rate))
        release(device)
    model = build_model("tiny", dtype=torch.float32, device=torch.device("cpu"))
    prompt = make_prompts(model, replace(load, prompts=1))[0]
    return Report(
        card=torch.cuda.get_device_name(device) if device.type == "cuda" else "the CPU",
        date=time.strftime("%Y-%m-%d"),
        torch=torch.__version__,
        size=size,
        teacher=TEACHERS[size],
        student_parameters=SIZES[size].parameters,
        teacher_parameters=SIZES[TEACHERS[size]].parameters,
        load=asdict(load),
        prompt_tokens=len(prompt.ids),
        image_tokens=int(prompt.token_types.sum()),
        matmul_rate=rate,
        parity_mean=mean,
        parity_max=largest,
        parity_allowed=PARITY,
        training=found,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and write `--json` and `--results`; 1 if bf16 is further from float32 than it may be."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description="A training step at real size.")
    parser.add_argument("--size", choices=tuple(SIZES), default="tiny", help="the student's (default: tiny)")
    parser.add_argument("--device", default="auto", help="auto takes cuda where there is one, else the CPU")
    parser.add_argument("--train", default="lora,full", help="lora, full, or both (default: lora,full)")
    parser.add_argument("--steps", type=int, default=3, help="timed steps after one to warm up (default: 3)")
    for name in ("prompts", "n", "response", "rows", "rows_with_gradient"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, help=f"{name.replace('_', ' ')} of the load")
    parser.add_argument("--json", type=Path, default=None, help="file for the result")
    parser.add_argument("--results", type=Path, default=None, help="page whose section for this card is (re)written")
    options = parser.parse_args(argv)
    trains = options.train.split(",")
    if not set(trains) <= {"lora", "full"}:
        parser.error(f"--train is {options.train}: allowed is lora, full or lora,full")
    given = {name: value for name in asdict(LOADS["tiny"]) if (value := getattr(options, name, None)) is not None}
    for name, value in {**given, "steps": options.steps}.items():
        if value < 1:
            parser.error(f"--{name.replace('_', '-')} is {value}: allowed is 1 or more")
    try:
        device = pick_device(options.device)
    except ModelError as error:
        parser.error(str(error))
    found = benchmark(options.size, replace(LOADS[options.size], **given), device, trains=trains, steps=options.steps)
    print(table(found), end="")
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(asdict(found), indent=2) + "\n", encoding="utf-8")
    if options.results is not None:
        write_section(options.results, found)
    return 0 if found.parity_holds else 1


if __name__ == "__main__":
    raise SystemExit(main())
