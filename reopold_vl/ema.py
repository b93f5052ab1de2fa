"""A moving average of the weights that are trained, in fp32."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class MovingAverage:
    """average <- d average + (1 - d) weight after every update, with d = min(decay, (1 + updates) / (10 + updates)).

    The ramp lets the first updates replace the untrained weights (TensorFlow's ExponentialMovingAverage). It hooks
    into the optimizer, so that updates which were skipped for their gradient do not count. Build it when the module's
    parameters are the final ones (after sharding); sharded parameters are averaged shard by shard.
    """

    def __init__(self, module: nn.Module, optimizer: torch.optim.Optimizer, *, decay: float) -> None:
        self.decay = decay
        self._optimizer = optimizer
        self.updates = 0
        self._weights = {name: weight for name, weight in module.named_parameters() if weight.requires_grad}
        self.averages = {name: weight.detach().float().clone() for name, weight in self._weights.items()}
        # A rate of 0 moves nothing; torch's checkpoints take such a step to create an optimizer's state.
        optimizer.register_step_post_hook(
            lambda stepped, *_: self.update() if any(group["lr"] for group in stepped.param_groups) else None
        )

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights as they are now."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, weight in self._weights.items():
            finest = self._optimizer.state.get(weight, {}).get("master", weight)  # fp32, where the weight is bf16
            self.averages[name].lerp_(finest.detach().float(), 1 - decay)

    @contextmanager
    @torch.no_grad()
    def in_place(self) -> Iterator[None]:
        """Within it the module has the averages for weights; at its end it has its own again, bit for bit."""
        own = {name: weight.detach().clone() for name, weight in self._weights.items()}
        try:
            self._fill(self.averages)
            yield
        finally:
            self._fill(own)

    @torch.no_grad()
    def _fill(self, values: Mapping[str, Tensor]) -> None:
        for name, weight in self._weights.items():
            weight.copy_(values[name])

    def state_dict(self) -> dict[str, Any]:
        """The averages themselves (not copies) by parameter name, and the number of updates, as tensors."""
        return {"updates": torch.tensor(self.updates), "averages": dict(self.averages)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave; raises ValueError if it is of other weights."""
        averages = state["averages"]
        if averages.keys() != self.averages.keys():
            raise ValueError("the moving average is of other weights than those that are trained now")
        self.updates = int(state["updates"])
        for name, average in self.averages.items():
            average.copy_(averages[name])
