"""How a step's time and memory grow with the answers to a prompt, their length and the images of a prompt."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.figures.live import live_bytes
from benchmarks.figures.process import print_spent, printed
from benchmarks.figures.result import Figure, cpu_seconds
from benchmarks.figures.rollout import generate
from benchmarks.figures.setup import NEVER, Step, build, engine, naive_gap, random_answers, samples, update_gap
from eval.flops import operations
from reopold_vl.objectives import ReverseKL
from reopold_vl.score import score_tokens
from reopold_vl.types import Rollout

BASE = {"n": 4, "response": 64, "images": 1}
AXES = {"n": (1, 2, 4, 8, 16), "response": (64, 128, 256, 512, 1024), "images": (1, 2, 4, 8)}
LABELS = {"n": "answers to a prompt", "response": "response tokens", "images": "images in a prompt"}
SIDE, RUNS = 224, 3


def prepared(n: int, response: int, images: int) -> Callable[[], list[Rollout]]:
    """A step, ready to run."""
    student, teacher = build(0), build(1)
    Step(student, teacher, 2, 8, updates=1).run(samples(1, side=56), seed=0)  # as little for each setting
    step = Step(student, teacher, n, response, updates=1)
    return partial(step.run, samples(2, side=SIDE, images=images), seed=1)


def child(n: int, response: int, images: int) -> None:
    """Print what a step costs, as JSON."""
    torch.set_num_threads(1)
    print_spent(prepared(n, response, images))


def seconds(**settings: int) -> float:
    """CPU time of a step: the median of RUNS processes."""
    return median(
        printed("benchmarks.figures.growth", *(settings[name] for name in BASE))["seconds"] for _ in range(RUNS)
    )


COSTS: dict[str, Callable[..., float]] = {
    "time": seconds,
    "memory": lambda **settings: live_bytes(prepared(**settings)),
}


def measure() -> list[Figure]:
    """The steepest doubling on each axis: 2 is linear."""
    found = []
    for axis, values in AXES.items():
        checks = agreement(**{**BASE, axis: values[-1]})
        for what, cost in COSTS.items():
            costs = [cost(**{**BASE, axis: value}) for value in values]
            steepest, at = max((costs[k + 1] / costs[k], values[k]) for k in range(len(values) - 1))
            details: dict[str, Any] = {"axis": axis, "values": values, what: costs}
            if axis == "response" and what == "time":
                details["operations"] = [operations(prepared(**{**BASE, axis: value})) for value in values[-2:]]
            found.append(
                Figure(
                    f"growth of a step's {what}, {LABELS[axis]} {values[0]} to {values[-1]}, steepest doubling "
                    f"({at} to {2 * at}; in all {costs[-1] / costs[0]:.1f} for {values[-1] // values[0]})",
                    "times",
                    ours=steepest,
                    peer=2.0,
                    peer_name="linear",
                    goal=1.0,
                    checks=checks,
                    details=details,
                )
            )
    return [*found, rollout_growth()]


def agreement(n: int, response: int, images: int) -> dict[str, tuple[float, float]]:
    """Ours against plain transformers, where it is largest: log-probs and an update."""
    model = build(0)
    prompts = [model.encoder(question) for question in samples(2, side=SIDE, images=images)]
    rollouts = random_answers(prompts, [[response] * n] * 2)
    few = [0, len(rollouts) - 1]
    found = score_tokens(model, rollouts, rows_at_once=64).logprobs[few]
    return {
        "log-prob": (naive_gap(model, [rollouts[row] for row in few], found), 1e-5),
        "update": (update_gap(model, rollouts, ReverseKL(), 64), 1e-5),
    }


def rollout_growth() -> Figure:
    """How sampling slows down with length, beside transformers: each token looks back at all before it."""
    model, shorter = build(0), AXES["response"][-2]
    prompts = [model.encoder(question) for question in samples(2, side=SIDE)]
    n, sampler = BASE["n"], engine(model, 64)

    def ours(longest: int) -> float:
        return cpu_seconds(lambda: sampler.generate(prompts, n=n, max_new_tokens=longest, seed=1))[1]

    def theirs(longest: int) -> float:
        settings = {"do_sample": True, "num_return_sequences": n}
        return cpu_seconds(lambda: generate(model, prompts, NEVER, longest=longest, **settings))[1]

    found = {name: [way(shorter), way(2 * shorter)] for name, way in (("ours", ours), ("theirs", theirs))}
    [answer] = sampler.generate(prompts[:1], n=1, max_new_tokens=2 * shorter, seed=1)
    return Figure(
        f"growth of a rollout's time, response tokens {shorter} to {2 * shorter}",
        "times",
        ours=found["ours"][1] / found["ours"][0],
        peer=found["theirs"][1] / found["theirs"][0],
        peer_name="transformers generate",
        goal=1.0,
        checks={"log-prob": (naive_gap(model, [answer], answer.logprobs[None]), 1e-5)},
        details=found,
    )


def longer_text(figures: list[Figure]) -> str:
    """How the arithmetic of a step grows with the last doubling of the answers' length."""
    [figure] = [figure for figure in figures if "operations" in figure.details]
    shorter, longer = figure.details["operations"]
    before, after = figure.details["time"][-2:]
    few, many = figure.details["values"][-2:]
    return (
        f"From {few} to {many} response tokens the arithmetic of a step grows {longer / shorter:.2f} times and its CPU "
        f"time {after / before:.2f} times.\n"
    )


def plot(figures: list[Figure], path: Path) -> None:
    """The curves behind the figures, each as a multiple of its first point, with a line for linear growth."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    canvas, places = plt.subplots(1, len(AXES), figsize=(11, 3.9), constrained_layout=True)
    for axes, (axis, label) in zip(places, LABELS.items(), strict=True):
        for details in (figure.details for figure in figures if figure.details.get("axis") == axis):
            _curve(axes, details)
        values = AXES[axis]
        times = [value / values[0] for value in values]
        axes.plot(values, times, "--", color="grey", zorder=1)
        axes.annotate("linear", (values[-2], times[-2]), (-6, 4), textcoords="offset points", ha="right", color="grey")
        axes.set_xscale("log", base=2)
        axes.set_yscale("log", base=2)
        axes.minorticks_off()
        axes.set_xticks(values, [str(value) for value in values])
        axes.set_yticks(ticks := [2**power for power in range(5)], [f"{tick} x" for tick in ticks])
        axes.set(xlabel=label, ylim=(0.9, 22))
        axes.grid(color="#dddddd", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(loc="upper left", frameon=False, fontsize=9)
    canvas.suptitle("Cost of a training step, as a multiple of its cost at the left end", fontsize=11)
    path.parent.mkdir(parents=True, exist_ok=True)
    canvas.savefig(path, dpi=130)
    plt.close(canvas)


def _curve(axes: Any, details: dict[str, Any]) -> None:
    time_taken = "time" in details
    costs = details["time" if time_taken else "memory"]
    ends = [f"{cost:.2g} s" if time_taken else f"{cost / 1e6:,.0f} MB" for cost in (costs[0], costs[-1])]
    axes.plot(
        details["values"],
        [cost / costs[0] for cost in costs],
        marker="o" if time_taken else "s",
        color="#1f77b4" if time_taken else "#d95f02",
        label=f"{'CPU time' if time_taken else 'memory'}, {ends[0]} to {ends[1]}",
    )


if __name__ == "__main__":
    child(*(int(argument) for argument in sys.argv[1:]))
