"""The training step that `benchmarks/gpu.py` times, phase by phase, and what it compares with."""

from __future__ import annotations

import gc
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.gpu_results import Phase, Training
from benchmarks.gpu_shapes import Work, answers_work, build_model
from reopold_vl.learn import learn
from reopold_vl.models import ModelError, VisionLanguageModel
from reopold_vl.objectives import ReverseKL
from reopold_vl.optim import build_optimizer, build_scheduler
from reopold_vl.score import score, score_tokens
from reopold_vl.sharding import alone
from reopold_vl.student import prepare_student
from reopold_vl.types import Prompt, Rollout, ScoredBatch, VisualSample

TEACHERS = {"tiny": "tiny", "3b": "7b", "7b": "7b"}
NEVER = (-1,)  # an end token that is not drawn


@dataclass(frozen=True)
class Load:
    """What a step works on: prompts with one image each, answers a prompt, rows in a pass without and with gradient."""

    prompts: int
    n: int
    response: int
    side: int  # of the images, in pixels
    rows: int
    rows_with_gradient: int


LOADS = {
    "tiny": Load(prompts=2, n=2, response=6, side=84, rows=4, rows_with_gradient=2),
    "3b": Load(prompts=8, n=8, response=512, side=644, rows=64, rows_with_gradient=8),
    "7b": Load(prompts=8, n=8, response=512, side=644, rows=64, rows_with_gradient=8),
}


def make_prompts(model: VisionLanguageModel, load: Load) -> list[Prompt]:
    """Questions about pictures of noise, all of the same length."""
    generator = np.random.default_rng(0)
    pictures = [
        Image.fromarray(generator.integers(0, 256, (load.side, load.side, 3), dtype=np.uint8))
        for _ in range(load.prompts)
    ]
    text = "How many stars are there, and what is the sum of the digits in the largest row?"
    return [model.encoder(VisualSample(str(index), text, "4", (one,))) for index, one in enumerate(pictures)]


def parity(name: str, load: Load, device: torch.device) -> tuple[float, float]:
    """Mean and largest |log-prob in bf16 - in float32|, in nats, of the same weights on the same answers."""
    exact = build_model(name, dtype=torch.float32, device=device)
    generator = torch.Generator().manual_seed(1)
    unknown = torch.zeros(load.response)
    rollouts = [
        Rollout(prompt, torch.randint(0, 256, (load.response,), generator=generator), unknown, unknown, "length")
        for prompt in make_prompts(exact, load)
    ]
    expected = score_tokens(exact, rollouts, rows_at_once=1).logprobs
    rounded = build_model(name, dtype=torch.bfloat16, device=device)
    rounded.policy.model.load_state_dict(exact.policy.model.state_dict())
    del exact
    found = score_tokens(rounded, rollouts, rows_at_once=1).logprobs
    gap = (found - expected).abs()
    return float(gap.mean()), float(gap.max())


def matmul_rate(device: torch.device, *, repeats: int = 10) -> float:
    """Operations a second of square bf16 products, the best of `repeats`."""
    width = 8192 if device.type == "cuda" else 512
    left, right = (torch.randn(width, width, device=device, dtype=torch.bfloat16) for _ in range(2))
    seconds = [timed(lambda: left @ right, device)[1] for _ in range(repeats + 2)][2:]
    return 2 * width**3 / min(seconds)


def timed(call: Callable[[], Any], device: torch.device) -> tuple[Any, float]:
    """What `call` gives and its seconds, the device's work included."""
    synchronize(device)
    start = time.perf_counter()
    found = call()
    synchronize(device)
    return found, time.perf_counter() - start


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_bytes(device: torch.device) -> int:
    """Peak since the last call on a GPU; of the process's whole life elsewhere."""
    if device.type != "cuda":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    found = torch.cuda.max_memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    return found


class Step:
    """Student, teacher and optimizer, and a training step of them that is timed phase by phase."""

    def __init__(self, size: str, load: Load, device: torch.device, *, train: str) -> None:
        self.load, self.device, self.lora = load, device, train == "lora"
        self.student = build_model(size, dtype=torch.bfloat16, device=device)
        self.teacher = build_model(TEACHERS[size], dtype=torch.bfloat16, device=device, seed=1)
        self.teacher.policy.requires_grad_(False)
        self.prompts = make_prompts(self.student, load)
        module = self.student.policy.model
        self.work = self._work(module, self.teacher.policy.model)
        prepare_student(self.student, rank=32 if self.lora else 0, gradient_checkpointing=True)
        self.optimizer = build_optimizer(
            self.student.policy, lr=1e-6, betas=(0.9, 0.999), weight_decay=0.0, master=not self.lora
        )
        self.scheduler = build_scheduler(self.optimizer, name="constant", warmup_updates=0, updates=100)
        self.update_seconds = 0.0
        self.optimizer.register_step_pre_hook(lambda *_: self._clock(-1))
        self.optimizer.register_step_post_hook(lambda *_: self._clock(1))

    def _clock(self, sign: int) -> None:
        synchronize(self.device)
        self.update_seconds += sign * time.perf_counter()

    def _work(self, student: Any, teacher: Any) -> dict[str, float]:
        """Operations of each phase; the gradient pass is forward and backward."""
        patches = len(self.prompts[0].vision["pixel_values"])
        shape = {
            "prompt": len(self.prompts[0].ids),
            "patches": patches,
            "n": self.load.n,
            "response": self.load.response,
        }
        count = self.load.prompts
        own: Work = answers_work(student, **shape)
        return {
            "rollout": count * own.times(1, 1),
            "student scoring": count * own.times(1, 1),
            "teacher scoring": count * answers_work(teacher, **shape).times(1, 1),
            # The tower is part of "all weights"; under LoRA nothing is propagated back into it.
            "gradient pass": count * (own.times(2, 1) if self.lora else own.times(3, 3)),
        }

    def run(self, seed: int) -> dict[str, tuple[float, int]]:
        """One step: seconds and peak bytes of each phase."""
        found: dict[str, tuple[float, int]] = {}

        def phase(name: str, call: Callable[[], Any]) -> Any:
            peak_bytes(self.device)
            result, seconds = timed(call, self.device)
            found[name] = (seconds, peak_bytes(self.device))
            return result

        rows = self.load.rows
        engine = replace(self.student.engine(rows_at_once=rows), eos_ids=NEVER)
        n, length = self.load.n, self.load.response
        rollouts = phase("rollout", lambda: engine.generate(self.prompts, n=n, max_new_tokens=length, seed=seed))
        ours = phase("student scoring", lambda: score_tokens(self.student, rollouts, rows_at_once=rows))
        theirs = phase("teacher scoring", lambda: score_tokens(self.teacher, rollouts, rows_at_once=rows))
        batch = score(rollouts, ours, theirs)
        self.update_seconds = 0.0
        phase("gradient pass", lambda: self._learn(rollouts, batch, seed))
        seconds, peak = found["gradient pass"]
        found["gradient pass"] = (seconds - self.update_seconds, peak)
        found["update"] = (self.update_seconds, peak)
        return found

    def _learn(self, rollouts: Sequence[Rollout], batch: ScoredBatch, seed: int) -> None:
        result = learn(
            alone(self.student.policy),
            rollouts,
            batch,
            ReverseKL()(batch, step=seed),
            optimizer=self.optimizer,
            scheduler=self.scheduler,
            updates=1,
            rows_at_once=self.load.rows_with_gradient,
            max_grad_norm=1.0,
            pad_id=self.student.pad_id,
        )
        if result.skipped or result.empty:
            raise ModelError("the step gave a gradient that is not finite, or none")


def measure(size: str, load: Load, device: torch.device, *, train: str, steps: int, rate: float) -> Training:
    """`steps` timed steps after one to warm up: medians of each phase, or that they do not fit."""
    step = None
    try:
        step = Step(size, load, device, train=train)
        runs = [step.run(seed) for seed in range(steps + 1)][1:]
    except torch.OutOfMemoryError as error:
        return Training(train, fits=False, reason=str(error).strip().splitlines()[0][:200], phases=[])
    tokens = load.prompts * load.n * load.response
    phases = []
    for name in runs[0]:
        seconds = median(run[name][0] for run in runs)
        done = step.work.get(name)
        share = None if done is None else done / seconds / rate
        phases.append(Phase(name, seconds, tokens / seconds, done, share, max(run[name][1] for run in runs)))
    return Training(train, fits=True, reason="", phases=phases)


def release(device: torch.device) -> None:
    """Give back what dead models held, so that the next one has the whole device."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
