"""Muon for the weight matrices, AdamW for everything else: fewer samples than AdamW alone needs (see README.md).

Muon (Jordan et al., 2024, https://kellerjordan.github.io/posts/muon/) replaces a matrix's momentum by the nearest
orthogonal matrix, found by five Newton-Schulz steps. Scaled by 0.2 sqrt(longest side) (Liu et al., 2025,
arXiv 2502.16982) its updates are as large as AdamW's, so that both share one learning rate. Matrices of one shape are
orthogonalised together in bfloat16: `torch.optim.Muon` takes them one by one, which costs more than the gradient here.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

MOMENTUM = 0.95
SHORTEST_SIDE = 32  # of a matrix that Muon takes
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


def orthogonalised(matrices: Tensor, steps: int = 5) -> Tensor:
    """Matrices [n, a, b] with all singular values moved near 1 (between about 0.7 and 1.2)."""
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.transpose(1, 2) if tall else matrices
    x = (x / (x.flatten(1).norm(dim=1)[:, None, None] + 1e-7)).bfloat16()
    a, b, c = NEWTON_SCHULZ
    for _ in range(steps):
        square = x @ x.transpose(1, 2)
        x = a * x + (b * square + c * square @ square) @ x
    return (x.transpose(1, 2) if tall else x).float()


class Muon(torch.optim.Optimizer):
    """Updates parameters that need equal shapes together; groups hold matrices of one shape and a `scale` of the lr."""

    def __init__(self, groups: list[dict], weight_decay: float = 0.01) -> None:
        super().__init__(groups, {"lr": 0.0, "scale": 1.0, "weight_decay": weight_decay})
        self.momenta: dict[int, Tensor] = {}

    @torch.no_grad()
    def step(self) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One update; every parameter must have a gradient."""
        for number, group in enumerate(self.param_groups):
            gradients = torch.stack([parameter.grad for parameter in group["params"]])
            momentum = self.momenta.setdefault(number, torch.zeros_like(gradients))
            momentum.lerp_(gradients, 1 - MOMENTUM)
            updates = orthogonalised(gradients.lerp(momentum, MOMENTUM))
            size = 0.2 * max(gradients.shape[1:]) ** 0.5
            for parameter, update in zip(group["params"], updates, strict=True):
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(update, alpha=-group["lr"] * size)


class MatrixAndRest:
    """The two optimizers behind one `update(lr)`: clips the gradients, steps, clears."""

    def __init__(self, parts: Iterable[tuple[nn.Module, float]], weight_decay: float = 0.01) -> None:
        """`parts` are modules with the scale of their learning rate; shared parameters belong to the first."""
        shapes: dict[tuple, list[nn.Parameter]] = {}
        rest: dict[float, list[nn.Parameter]] = {}
        taken: set[int] = set()
        for module, scale in parts:
            embeddings = {id(layer.weight) for layer in module.modules() if isinstance(layer, nn.Embedding)}
            for parameter in module.parameters():
                if id(parameter) in taken:
                    continue
                taken.add(id(parameter))
                is_matrix = parameter.ndim == 2 and min(parameter.shape) >= SHORTEST_SIDE
                if is_matrix and id(parameter) not in embeddings:
                    shapes.setdefault((tuple(parameter.shape), scale), []).append(parameter)
                else:
                    rest.setdefault(scale, []).append(parameter)
        self.parameters = [p for group in (*shapes.values(), *rest.values()) for p in group]
        matrices = [{"params": group, "scale": scale} for (_, scale), group in shapes.items()]
        others = [{"params": group, "scale": scale} for scale, group in rest.items()]
        adamw = torch.optim.AdamW(others, lr=0.0, betas=(0.9, 0.98), weight_decay=weight_decay)
        self.optimizers = (Muon(matrices, weight_decay), adamw)

    def update(self, lr: float) -> None:
        """One clipped step at this learning rate, times each group's scale."""
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = lr * group["scale"]
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
