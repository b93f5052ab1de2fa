"""The language-model head at a real vocabulary: peak memory of log-prob, entropy and backward, and time by tokens kept.

Memory is the growth of the process's peak resident size, each way in a process of its own. Dense is what everyone
writes first: all logits, log-softmax, gather. Where it does not fit into the memory that is free, it is measured on a
quarter of the tokens and multiplied by four, which the details say.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from torch.nn import functional as F

from benchmarks.figures.result import Figure
from benchmarks.figures.trl import installed
from reopold_vl.logprobs import token_stats

TOKENS, VOCABULARY, HIDDEN = 4096, 151_936, 64
DENSE_BYTES = 6 * 4 * TOKENS * VOCABULARY
TILE_VOCABULARY = 32_768  # TRL's own default


def inputs(tokens: int) -> list[torch.Tensor]:
    """Hidden states, the head's weight, token ids."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(tokens, HIDDEN, generator=generator).requires_grad_()
    weight = (torch.randn(VOCABULARY, HIDDEN, generator=generator) / 4).requires_grad_()
    return [hidden, weight, torch.randint(0, VOCABULARY, (tokens,), generator=generator)]


def ours(hidden: torch.Tensor, weight: torch.Tensor, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    logprobs, entropy = token_stats(hidden, weight, None, ids)
    logprobs.sum().backward()
    return logprobs, entropy


def dense(hidden: torch.Tensor, weight: torch.Tensor, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    everywhere = F.linear(hidden, weight).log_softmax(-1)
    entropy = -(everywhere.detach().exp() * everywhere.detach()).sum(-1)
    logprobs = everywhere.gather(-1, ids[:, None])[:, 0]
    logprobs.sum().backward()
    return logprobs, entropy


def trl_logprobs(hidden: torch.Tensor, weight: torch.Tensor, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """GRPOTrainer's, which gives what ours gives."""
    from trl.kernels.chunked_logprob import ChunkedLogProbFunction  # pyright: ignore

    found = ChunkedLogProbFunction.apply(hidden, weight, None, ids, 1.0, TILE_VOCABULARY, None, 1.0, ("entropy",))
    logprobs, entropy = found[:2]  # pyright: ignore[reportOptionalSubscript]
    logprobs.sum().backward()
    return logprobs, entropy


def trl_divergence(hidden: torch.Tensor, weight: torch.Tensor, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """DistillationTrainer's reverse KL, between two students."""
    from trl.trainer.distillation_trainer import _chunked_divergence_loss  # pyright: ignore

    states = hidden[None]
    loss, entropy, _ = _chunked_divergence_loss(
        states, states.detach() * 1.1, weight, weight.detach(), torch.ones_like(ids)[None], beta=1.0
    )
    loss.backward()
    return loss, entropy


WAYS: dict[str, Callable[..., tuple[torch.Tensor, torch.Tensor]]] = {
    "ours": ours,
    "dense": dense,
    "trl_logprobs": trl_logprobs,
    "trl_divergence": trl_divergence,
}


def resident(field: str) -> int:
    """Bytes of this process: VmRSS now, VmHWM at most so far."""
    with open("/proc/self/status", encoding="ascii") as status:
        line = next(line for line in status if line.startswith(field))
    return int(line.split()[1]) * 1024


def child(way: str, tokens: int) -> None:
    """Print what one way costs, as JSON."""
    torch.set_num_threads(1)
    WAYS[way](*inputs(8))  # imports and first touches
    tensors = inputs(tokens)
    with open("/proc/self/clear_refs", "w", encoding="ascii") as reset:
        reset.write("5")  # the high-water mark starts anew
    before, start = resident("VmRSS"), time.process_time()
    WAYS[way](*tensors)
    print(json.dumps({"bytes": resident("VmHWM") - before, "seconds": time.process_time() - start}))


def cost(way: str, tokens: int = TOKENS) -> dict[str, float]:
    """Peak bytes and CPU seconds of one way, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.figures.head", way, str(tokens)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    return json.loads(done.stdout.splitlines()[-1])


def free_bytes() -> int:
    with open("/proc/meminfo", encoding="ascii") as info:
        line = next(line for line in info if line.startswith("MemAvailable"))
    return int(line.split()[1]) * 1024


def agreement(way: str) -> dict[str, tuple[float, float]]:
    """Ours against another way on the same few tokens: log-probs, entropy, and the gradients, relative."""
    found = []
    for each in (ours, WAYS[way]):
        tensors = inputs(300)
        logprobs, entropy = each(*tensors)
        found.append((logprobs.detach(), entropy.detach(), *(tensor.grad for tensor in tensors[:2])))
    (mine, other) = found
    relative = max(float((a - b).norm() / b.norm()) for a, b in zip(mine[2:], other[2:], strict=True))  # pyright: ignore
    return {
        "log-prob": (float((mine[0] - other[0]).abs().max()), 1e-5),
        "entropy": (float((mine[1] - other[1]).abs().max()), 2e-5),
        "gradient": (relative, 1e-5),
    }


def measure() -> list[Figure]:
    mine = cost("ours")
    part = 1 if free_bytes() > 1.3 * DENSE_BYTES else 4
    whole = {name: value * part for name, value in cost("dense", TOKENS // part).items()}
    name = f"peak memory, log-prob + entropy + backward, T = {TOKENS}, V = {VOCABULARY:,}"
    figures = [
        Figure(
            name,
            "MB",
            ours=mine["bytes"] / 1e6,
            peer=whole["bytes"] / 1e6,
            peer_name="dense",
            goal=0.1,
            checks=agreement("dense"),
            details={"ours": mine, "dense": whole, "dense measured on 1 token of": part},
        )
    ]
    for way, of in (("trl_logprobs", "GRPO's chunked log-prob"), ("trl_divergence", "the chunked divergence loss")):
        theirs = cost(way) if installed() else None
        figures.append(
            Figure(
                name,
                "MB",
                ours=mine["bytes"] / 1e6,
                peer=None if theirs is None else theirs["bytes"] / 1e6,
                peer_name=f"TRL, {of}",
                goal=1.0,
                checks=agreement(way) if way == "trl_logprobs" and installed() else {},
                details={"ours": mine, "peer": theirs},
            )
        )
    return [*figures, kept_share()]


def kept_share() -> Figure:
    """CPU time of the head, forward and backward, when a fifth of the tokens is kept."""
    few, all_tokens = cost("ours", TOKENS // 5), cost("ours", TOKENS)
    return Figure(
        "head forward + backward at beta = 0.2",
        "CPU s",
        ours=few["seconds"],
        peer=all_tokens["seconds"],
        peer_name="the same at beta = 1",
        goal=0.35,
    )


if __name__ == "__main__":
    child(sys.argv[1], int(sys.argv[2]))
