"""Does torch.compile pay for the gradient pass? Decoder layers compiled one by one, beside the same layers as they are.

    python -m benchmarks.compiled

One thread, fp32, the CPU, the model of `benchmarks.run` with a frozen tower whose features are kept. Answers of several
lengths, as a run has them: shapes are dynamic. Prints one JSON object: CPU seconds of compiling, in this process and in
those that it starts, and of a pass afterwards, the largest differences of log-probs (nats) and of gradients (relative),
and how many passes pay for the compilation.
"""

from __future__ import annotations

import copy
import json
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import Tensor

from benchmarks.figures.setup import build, random_answers, samples
from reopold_vl.collate import TokenBatch, collate_rollouts
from reopold_vl.policy import Policy

LENGTHS = (48, 96, 64, 32)
REPEATS = 5


def run(policy: Policy, batch: TokenBatch) -> tuple[Tensor, list[Tensor]]:
    """Log-probs, and the gradient of their sum."""
    weights = [weight for weight in policy.parameters() if weight.requires_grad]
    logprobs = policy(batch, batch.mask).logprobs
    return logprobs.detach(), list(torch.autograd.grad(logprobs.sum(), weights))


def timed(policy: Policy, batches: list[TokenBatch]) -> float:
    """CPU seconds, those of the compilers that it starts as well."""
    start = sum(os.times()[:4])
    for batch in batches:
        run(policy, batch)
    return sum(os.times()[:4]) - start


def main() -> None:
    """Compile, compare, measure in turns, print."""
    torch.set_num_threads(1)
    model = build(0, frozen=True, cache_mb=64)
    prompts = [model.encoder(sample) for sample in samples(2, side=448)]
    batches = [collate_rollouts(random_answers(prompts, [[length] * 8] * 2), pad_id=model.pad_id) for length in LENGTHS]
    plain, compiled = model.policy, copy.deepcopy(model.policy)
    torch._dynamo.config.recompile_limit = 64  # each layer is compiled for prompts and for answers
    for layer in compiled.model.model.language_model.layers:
        layer.compile(dynamic=True)
    first = timed(compiled, batches)
    ours, theirs = run(compiled, batches[0]), run(plain, batches[0])
    seconds = [(timed(plain, batches), timed(compiled, batches)) for _ in range(REPEATS)]
    eager, quick = (min(each[k] for each in seconds) / len(batches) for k in (0, 1))
    slopes = [float((a - b).norm() / b.norm().clamp(min=1e-12)) for a, b in zip(ours[1], theirs[1], strict=True)]
    found = {
        "compilation, CPU s": first - eager * len(batches),
        "pass, CPU s": {"plain": eager, "compiled": quick},
        "log-prob difference": float((ours[0] - theirs[0]).abs().max()),
        "gradient difference": max(slopes),
        "passes that pay for it": (first - eager * len(batches)) / (eager - quick) if quick < eager else None,
    }
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
