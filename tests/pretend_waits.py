"""What the pretend GPU notes, call by call: run by test_waits.py in a process of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from benchmarks import pretend_gpu


def noted(work: Callable[[], Any]) -> list[str]:
    with pretend_gpu.waits() as found:
        work()
        return [wait.what for wait in found]


def mixed(here: torch.Tensor, there: torch.Tensor) -> bool:
    with pretend_gpu.waits():
        try:
            _ = here + there
        except RuntimeError as error:
            return "in CPU memory" in str(error)
    return False


def main() -> None:
    device = pretend_gpu.install()
    layer = nn.Linear(4, 4)
    expected = layer(torch.ones(2, 4)).detach()
    pretend_gpu.move(layer)
    ones = torch.ones(2, 4)
    with pretend_gpu.waits():
        there = ones.to(device)
        places = torch.tensor([1, 0]).pin_memory().to(device)
        assert torch.equal(layer(there).cpu(), expected) and layer(there).device == device
    quiet: list[Callable[[], Any]] = [
        lambda: ones.pin_memory().to(device),
        lambda: torch.zeros(3, device=device) + 1,
        lambda: there[places],
        lambda: there.index_select(0, places),
        lambda: layer(there).log_softmax(-1).sum().backward(),
        lambda: there.scatter(1, places[:, None], 0.0),
    ]
    for work in quiet:
        assert noted(work) == [], noted(work)
    loud: dict[str, Callable[[], Any]] = {
        "copy to the device": lambda: ones.to(device),
        "copy from the device": lambda: there.cpu(),
        "_local_scalar_dense": lambda: float(there.sum()),
        "tolist": lambda: there.tolist(),
        "nonzero": lambda: there.nonzero(),
        "index with a mask": lambda: there[there > 0],
        "index from CPU memory": lambda: there[torch.tensor([0])],
        "_unique2": lambda: there.unique(),
        "numbers to the device": lambda: torch.tensor([1, 2], device=device),
        "shown": lambda: f"{there.sum()}",
    }
    for what, work in loud.items():
        assert noted(work) == [what], (what, noted(work))
    assert layer.weight.grad is not None and layer.weight.grad.device == device
    assert mixed(ones, there)
    print("counted")


if __name__ == "__main__":
    main()
