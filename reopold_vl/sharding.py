"""A model over several processes: copied to each (DDP) or cut up over them (FSDP2), and whole again for decoding."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, MixedPrecisionPolicy, OffloadPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel

from reopold_vl import distributed
from reopold_vl.collate import TokenBatch, answer_groups, collate_rollouts
from reopold_vl.models import VisionLanguageModel
from reopold_vl.policy import Policy
from reopold_vl.sources import ModelError
from reopold_vl.types import Rollout, VisualSample
from reopold_vl.vision import vision_parameters

Groups = Sequence[Sequence[int]]


@dataclass(frozen=True)
class Learner:
    """The student's policy as the gradient pass sees it.

    `module` is what a forward pass with gradient must be called through. Several processes make each pass together,
    through all parts of the model: `filler`, a short answer to a prompt with an image, is what one of them runs along,
    without effect, where it has nothing else or no image.
    """

    policy: Policy
    module: nn.Module
    filler: Rollout | None = None

    def trainable(self) -> list[nn.Parameter]:
        return [parameter for parameter in self.policy.parameters() if parameter.requires_grad]

    def collate(self, rollouts: Sequence[Rollout], groups: Groups | None, *, pad_id: int) -> TokenBatch:
        """The rollouts as one batch of a pass of `common_passes`; the filler is its last row where it is needed."""
        return collate_together(rollouts, groups, self.filler, pad_id=pad_id)

    def forget_filler(self) -> None:
        """Take back the gradients (of zero) of what only the filler went through in an update without an image.

        An optimizer moves a weight whose gradient is zero, by its moments and its decay, and leaves one that has none.
        """
        if self.filler is not None:
            for parameter in vision_parameters(self.policy.model):
                parameter.grad = None

    def passing(self, *, last: bool) -> AbstractContextManager[Any]:
        """Around each forward and backward pass of an update: gradients are exchanged once, in the last one.

        A cut-up model exchanges them in each, because it has no room for whole ones.
        """
        if last or not isinstance(self.module, DistributedDataParallel):
            return nullcontext()
        return self.module.no_sync()


def alone(policy: Policy) -> Learner:
    """The learner of a process that is by itself."""
    return Learner(policy, policy)


def make_filler(model: VisionLanguageModel) -> Rollout:
    """One token of an answer about a small grey picture, as `model` sees it."""
    prompt = model.encoder(VisualSample("filler", "?", images=(Image.new("RGB", (64, 64), "grey"),)))
    nothing = torch.zeros(1)
    return Rollout(prompt, torch.tensor([model.eos_ids[0]]), nothing, nothing, "stop")


def with_filler(rollouts: Sequence[Rollout], filler: Rollout | None) -> list[Rollout]:
    """The rollouts, and the filler, if any, as the last of them where there is no other image."""
    if filler is None or any(rollout.prompt.vision for rollout in rollouts):
        return list(rollouts)
    return [*rollouts, filler]


def common_passes(policy: Policy, filler: Rollout | None, pieces: Sequence[Sequence[Rollout]]) -> list[Groups | None]:
    """The passes that all processes make together, of which this one has `pieces` to bring along: `TokenBatch.groups`.

    Of a cut-up model each has as many groups as the process needs that needs most; what is missing here is empty.
    """
    if not policy.in_step:
        return [None] * int(distributed.largest(len(pieces)))
    wanted = [answer_groups(with_filler(piece, filler), policy.fetch_tokens) for piece in pieces]
    counts = zip_longest(*distributed.gather_json([len(groups) for groups in wanted]), fillvalue=0)
    found: list[Groups | None] = []
    for number, most in enumerate(max(each) for each in counts):
        piece, groups = (pieces[number], wanted[number]) if number < len(pieces) else ([], [])
        if most and not groups:
            groups = [list(range(len(with_filler(piece, filler))))]
        found.append([*groups, *[[]] * (most - len(groups))])
    return found


def collate_together(
    rollouts: Sequence[Rollout], groups: Groups | None, filler: Rollout | None, *, pad_id: int
) -> TokenBatch:
    """`collate_rollouts` of `with_filler`; `groups` is what `common_passes` says of this pass.

    The filler's own token is in the mask; whoever computes a loss leaves it out.
    """
    return replace(collate_rollouts(with_filler(rollouts, filler), pad_id=pad_id), groups=groups)


def spread(
    model: VisionLanguageModel,
    strategy: str,
    *,
    device: torch.device,
    cpu_offload: bool,
    compute: torch.dtype,
    fetch_tokens: int,
) -> Learner:
    """The student as a learner over all processes: `strategy` is none, ddp or fsdp. The optimizer is built after it.

    With fsdp the model may lie on the CPU: `device` is where it computes; see `shard`.
    """
    policy = model.policy
    if strategy == "none":
        return alone(policy)
    if strategy == "fsdp":
        settings: dict[str, Any] = {"device": device, "compute": compute, "cpu_offload": cpu_offload}
        return Learner(policy, policy, shard(model, fetch_tokens=fetch_tokens, **settings))
    filler = make_filler(model)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*broadcast_buffers", category=FutureWarning)
        wrapped = DistributedDataParallel(
            policy,
            find_unused_parameters=has_idle_weights(policy, filler, pad_id=model.pad_id),
            broadcast_buffers=False,
        )
    return Learner(policy, wrapped, filler)


def shard(
    model: VisionLanguageModel,
    *,
    device: torch.device,
    compute: torch.dtype,
    fetch_tokens: int,
    cpu_offload: bool = False,
) -> Rollout:
    """Cut `model` up over the `device`s of all processes in place (FSDP2), layer by layer and what is left together.

    It may lie on the CPU, and comes to the device piece by piece. Returns the filler.

    Matrix products are in `compute` where that is lower than the weights' dtype; weights stay in theirs, and gradients
    are added up in float32. A forward pass needs all processes at once from now on, outside `whole_weights`; one more
    costs them as much as `fetch_tokens` tokens. Raises ModelError where torch is too old.
    """
    if not hasattr(FSDPModule, "reset_iter_state"):
        raise ModelError(f"torch {torch.__version__} is too old for distributed.strategy=fsdp: 2.13 is tested")
    filler, policy = make_filler(model), model.policy
    policy.place = device
    mesh = init_device_mesh(device.type, (distributed.size(),))
    lower = policy.precision == compute != policy.model.dtype
    settings: dict[str, Any] = {
        "mesh": mesh,
        "reshard_after_forward": True,  # the root as well, which otherwise waits for a backward pass
        "mp_policy": MixedPrecisionPolicy(
            param_dtype=compute if lower else None, reduce_dtype=torch.float32, cast_forward_inputs=False
        ),
        "offload_policy": CPUOffloadPolicy(pin_memory=device.type == "cuda") if cpu_offload else OffloadPolicy(),
    }
    layers = set(policy.model._no_split_modules or ())
    for module in list(policy.modules()):
        if type(module).__name__ in layers:
            fully_shard(module, **settings)
    fully_shard(policy, **settings)
    policy.in_step, policy.fetch_tokens = True, fetch_tokens
    warm_up(policy, filler, pad_id=model.pad_id)
    return filler


def has_idle_weights(policy: Policy, filler: Rollout, *, pad_id: int) -> bool:
    """Whether there are weights to train that get no gradient even from an answer to a prompt with an image."""
    batch = collate_rollouts([filler], pad_id=pad_id).to(policy.device)
    policy(batch, batch.host.mask).logprobs.sum().backward()
    idle = any(weight.requires_grad and weight.grad is None for weight in policy.parameters())
    policy.zero_grad(set_to_none=True)
    return idle


@torch.no_grad()
def warm_up(policy: Policy, filler: Rollout, *, pad_id: int) -> None:
    """One pass through the whole of a cut-up model, which thereby learns that `policy` is its root."""
    batch = collate_rollouts([filler], pad_id=pad_id).to(policy.device)
    policy(batch, batch.host.mask)
    forget_passes(policy)


def forget_passes(policy: nn.Module) -> None:
    """Cut the weights up again, and forget in which order passes without gradient went through the parts.

    FSDP2 remembers each pass until a backward one, to fetch weights ahead in it: processes that decoded answers of
    different lengths would fetch different ones, and wait for each other for ever.
    """
    assert isinstance(policy, FSDPModule)
    policy.reset_iter_state()


def parts_of(policy: nn.Module) -> list[FSDPModule]:
    """The modules that are cut up by themselves."""
    return [module for module in policy.modules() if isinstance(module, FSDPModule)]


@contextmanager
def whole_weights(policy: Policy) -> Iterator[None]:
    """The section in which each process has all weights and may run the model by itself, without gradient."""
    if not isinstance(policy, FSDPModule):
        yield
        return
    policy.set_reshard_after_forward(False)
    for part in parts_of(policy):
        part.unshard()
    policy.in_step = False
    try:
        yield
    finally:
        policy.in_step = True
        policy.set_reshard_after_forward(True)
        forget_passes(policy)


def full_state(model: nn.Module) -> dict[str, Tensor] | None:
    """The whole state dict of a cut-up model, on the CPU of the first process (elsewhere empty); None of a whole one.

    All processes must call it. Of tied weights the first name stands for all, as `save_pretrained` has it.
    """
    if not parts_of(model):
        return None
    found = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    every = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    tied = every - {name for name, _ in model.named_parameters()}
    return {name: tensor for name, tensor in found.items() if isinstance(tensor, Tensor) and name not in tied}
