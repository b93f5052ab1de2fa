"""The language-model head at a real vocabulary: peak memory of log-prob, entropy and backward, and time by tokens kept.

Memory is the growth of the process's peak resident size, each way in a process of its own. Dense is what everyone
writes first: all logits, log-softmax, gather. Where it does not fit into the memory that is free, it is measured on a
quarter and a half of the tokens and continued on a straight line, which the details say. A head that is trained needs
room for its own gradient, vocabulary times width, whichever way the loss is computed; a frozen one (LoRA) does not.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import torch
from torch.nn import functional as F

from benchmarks.figures.process import print_spent, printed
from benchmarks.figures.result import Figure
from benchmarks.figures.setup import tensor_gap
from benchmarks.figures.trl import installed
from reopold_vl.logprobs import token_stats

TOKENS, VOCABULARY = 4096, 151_936
WIDTH = 2048  # Qwen2.5-VL-3B's
DENSE_BYTES = 3 * 4 * TOKENS * VOCABULARY  # logits, log-softmax and one more, at the peak
TILE_VOCABULARY = 32_768  # TRL's own default


def inputs(tokens: int, width: int = 64, *, trained: bool = True) -> list[torch.Tensor]:
    """Hidden states, the head's weight (with a gradient if it is trained), token ids."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(tokens, width, generator=generator).requires_grad_()
    weight = (torch.randn(VOCABULARY, width, generator=generator) * 2 / width**0.5).requires_grad_(trained)
    return [hidden, weight, torch.randint(0, VOCABULARY, (tokens,), generator=generator)]


def a_fifth(tokens: int) -> torch.Tensor:
    """Which tokens a mask of beta = 0.2 keeps, [tokens]."""
    return torch.rand(tokens, generator=torch.Generator().manual_seed(1)) < 0.2


def ours(hidden: torch.Tensor, weight: torch.Tensor, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    logprobs, entropy = token_stats(hidden, weight, None, ids)
    logprobs.sum().backward()
    return logprobs, entropy


def ours_kept(hidden: torch.Tensor, weight: torch.Tensor, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    keep = a_fifth(len(ids))
    return ours(hidden[keep], weight, ids[keep])


def dense_kept(hidden: torch.Tensor, weight: torch.Tensor, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """All logits, and a loss of the kept tokens alone."""
    keep = a_fifth(len(ids))
    logprobs, entropy = (each[keep] for each in dense_stats(hidden, weight, ids))
    logprobs.sum().backward()
    return logprobs, entropy


def dense(hidden: torch.Tensor, weight: torch.Tensor, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    logprobs, entropy = dense_stats(hidden, weight, ids)
    logprobs.sum().backward()
    return logprobs, entropy


def dense_stats(hidden: torch.Tensor, weight: torch.Tensor, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    everywhere = F.linear(hidden, weight).log_softmax(-1)
    entropy = -(everywhere.detach().exp() * everywhere.detach()).sum(-1)
    return everywhere.gather(-1, ids[:, None])[:, 0], entropy


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
    "ours_kept": ours_kept,
    "dense": dense,
    "dense_kept": dense_kept,
    "trl_logprobs": trl_logprobs,
    "trl_divergence": trl_divergence,
}


def child(way: str, tokens: int, trained: bool, threads: int) -> None:
    """Print what one way costs, as JSON."""
    torch.set_num_threads(threads)
    WAYS[way](*inputs(8))  # imports and first touches
    tensors = inputs(tokens, WIDTH, trained=trained)
    print_spent(lambda: WAYS[way](*tensors))


def cost(way: str, tokens: int, *, trained: bool, threads: int = 1) -> dict[str, float]:
    """Peak bytes and CPU seconds of one way."""
    return printed("benchmarks.figures.head", way, tokens, int(trained), threads, threads=threads)


def peak(way: str, *, trained: bool, whole: bool) -> float:
    """Peak bytes for TOKENS tokens, on all cores: how many there are changes no size that counts.

    Unless `whole`, on the line through a quarter and a half of them: with fewer, a trained head's peak would be where
    its gradient is made, which takes less for each token.
    """

    def at(tokens: int) -> float:
        return cost(way, tokens, trained=trained, threads=os.cpu_count() or 1)["bytes"]

    if whole:
        return at(TOKENS)
    quarter, half = at(TOKENS // 4), at(TOKENS // 2)
    return half + 2 * (half - quarter)


def free_bytes() -> int:
    with open("/proc/meminfo", encoding="ascii") as info:
        line = next(line for line in info if line.startswith("MemAvailable"))
    return int(line.split()[1]) * 1024


def agreement(way: str, own: str = "ours") -> dict[str, tuple[float, float]]:
    """Ours against another way on the same few tokens: log-probs, entropy, and the gradients, relative."""
    found = []
    for each in (own, way):
        tensors = inputs(300)
        logprobs, entropy = WAYS[each](*tensors)
        found.append((logprobs.detach(), entropy.detach(), *(tensor.grad for tensor in tensors[:2])))
    (mine, other) = found
    return {
        "log-prob": (float((mine[0] - other[0]).abs().max()), 1e-5),
        "entropy": (float((mine[1] - other[1]).abs().max()), 2e-5),
        "gradient": (tensor_gap(list(zip(mine[2:], other[2:], strict=True))), 1e-5),
    }


PEERS = (
    ("dense", "dense", 0.1),
    ("trl_logprobs", "TRL, GRPO's chunked log-prob", 1.0),
    ("trl_divergence", "TRL, the chunked divergence loss", 1.0),
)


def measure() -> list[Figure]:
    figures = []
    for trained in (False, True):
        mine = peak("ours", trained=trained, whole=True)
        for way, peer_name, goal in PEERS:
            there = way == "dense" or installed()
            whole = way != "dense" or free_bytes() > 1.3 * DENSE_BYTES
            figures.append(
                Figure(
                    f"peak memory, log-prob + entropy + backward, T = {TOKENS}, V = {VOCABULARY:,}, width {WIDTH}, "
                    f"head {'trained' if trained else 'frozen'}",
                    "MB",
                    ours=mine / 1e6,
                    peer=peak(way, trained=trained, whole=whole) / 1e6 if there else None,
                    peer_name=peer_name,
                    goal=goal,
                    checks=agreement("dense" if way == "trl_divergence" else way) if there else {},
                    details={
                        "gradient of the head, MB": trained * 4 * VOCABULARY * WIDTH / 1e6,
                        "the peer's memory is continued from half of the tokens": not whole,
                    },
                )
            )
    return [*figures, kept_share()]


def kept_share(tokens: int = TOKENS // 4) -> Figure:
    """CPU time of a trained head, forward and backward, when a mask keeps a fifth of the tokens."""
    few, everywhere = (cost(way, tokens, trained=True) for way in ("ours_kept", "ours"))
    return Figure(
        f"head forward + backward at beta = 0.2, T = {tokens}, width {WIDTH}",
        "CPU s",
        ours=few["seconds"],
        peer=everywhere["seconds"],
        peer_name="the same at beta = 1",
        goal=0.35,
        checks=agreement("dense_kept", "ours_kept"),
    )


if __name__ == "__main__":
    child(sys.argv[1], int(sys.argv[2]), bool(int(sys.argv[3])), int(sys.argv[4]))
