"""Are log-probs and gradients those of plain transformers? One line a model.

    python -m benchmarks.parity                      # a tiny random model of each family, on the CPU
    python -m benchmarks.parity DIRECTORY_OR_HUB_ID  # real weights (fp32; the pictures are noise)

The reference knows nothing of `Policy`: the processor's own chat template on the whole conversation, one row at a time,
no padding, no cache, `model(...).logits`.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from reopold_vl.collate import collate_rollouts
from reopold_vl.families import FAMILIES, vision_tower
from reopold_vl.models import VisionLanguageModel, load_model
from reopold_vl.prompts import messages
from reopold_vl.types import Rollout, VisualSample


@dataclass(frozen=True)
class Parity:
    """Largest errors: `logprob_error` in nats, `gradient_error` as `gradient_error` below has it.

    `tower_calls` is how often an image went through the vision tower; `vocabulary` is the tokenizer's size.
    """

    family: str
    logprob_error: float
    gradient_error: float
    tower_calls: float
    vocabulary: int


def samples(width: int, height: int) -> list[VisualSample]:
    """One image; none; two of different sizes; one with a longer question. All of random colours."""

    def picture(scale: float, seed: int) -> Image.Image:
        size = (round(height * scale), round(width * scale), 3)
        return Image.fromarray(np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8))

    return [
        VisualSample("one", "How many red squares?", "1", (picture(1, 1),)),
        VisualSample("none", "the sum of four and four?", "8"),
        VisualSample("two", "In <image> and <image> the sum is?", "2", (picture(0.7, 2), picture(1.6, 3))),
        VisualSample("long", "How many red squares are in the picture? " * 3, "3", (picture(1.2, 4),)),
    ]


def plain_inputs(vlm: VisionLanguageModel, sample: VisualSample) -> dict[str, Tensor]:
    """What the processor's chat template makes of the conversation with the pictures in it."""
    images = iter(vlm.encoder.images(sample))
    conversation = messages(sample)
    for message in conversation:
        for part in message["content"]:
            if part["type"] == "image":
                part["image"] = next(images)
    encoded = vlm.processor.apply_chat_template(
        conversation, tokenize=True, add_generation_prompt=True, return_dict=True, return_tensors="pt"
    )
    return dict(encoded)


def plain_distribution(vlm: VisionLanguageModel, rollout: Rollout) -> torch.distributions.Categorical:
    """What plain transformers says of the rollout's tokens."""
    inputs = plain_inputs(vlm, rollout.prompt.sample)
    length = inputs["input_ids"].shape[1]
    for name, fill in (("mm_token_type_ids", 0), ("token_type_ids", 0), ("attention_mask", 1)):
        if name in inputs:
            more = torch.full_like(rollout.response_ids, fill)[None]
            inputs[name] = torch.cat([inputs[name], more.to(inputs[name].dtype)], 1)
    inputs["input_ids"] = torch.cat([inputs["input_ids"], rollout.response_ids[None]], 1)
    device = vlm.policy.device
    logits = vlm.policy.model(**{name: tensor.to(device) for name, tensor in inputs.items()}).logits
    return torch.distributions.Categorical(logits=logits[0, length - 1 : -1].float(), validate_args=False)


def answers(vlm: VisionLanguageModel, problems: Sequence[VisualSample], *, n: int, seed: int) -> list[Rollout]:
    """`n` answers of 1 to 6 random text tokens to each problem."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for prompt in [vlm.encoder(problem) for problem in problems]:
        for _ in range(n):
            length = int(torch.randint(1, 7, (), generator=generator))
            ids = torch.randint(0, 256, (length,), generator=generator)
            found.append(Rollout(prompt, ids, torch.zeros(length), torch.zeros(length), "length"))
    return found


@contextmanager
def tower_rows(vlm: VisionLanguageModel) -> Iterator[list[int]]:
    """The number of patches, or of tiles, in each call of the vision tower."""
    seen: list[int] = []

    def note(_: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        seen.append((args[0] if args else kwargs["pixel_values"]).shape[0])

    handle = vision_tower(vlm.policy.model).register_forward_pre_hook(note, with_kwargs=True)
    yield seen
    handle.remove()


def gradients(model: Any) -> dict[str, Tensor]:
    """The gradients of all parameters that have one, which are then taken away."""
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return found


def gradient_error(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> float:
    """The largest error of a parameter's gradient, relative to its norm or to a thousandth of the largest norm.

    Some true gradients are 0 (a key's bias), where all that there is is rounding.
    """
    if ours.keys() != theirs.keys():
        raise ValueError(f"other parameters have a gradient: {sorted(ours.keys() ^ theirs.keys())}")
    floor = 1e-3 * max(float(gradient.norm()) for gradient in theirs.values())
    return max(float((ours[name] - true).norm()) / max(float(true.norm()), floor) for name, true in theirs.items())


def measure(vlm: VisionLanguageModel, rollouts: Sequence[Rollout]) -> Parity:
    """`Policy` on all rollouts at once against plain transformers on each alone."""
    policy = vlm.policy
    batch = collate_rollouts(rollouts, pad_id=vlm.pad_id).to(policy.device)
    weights = torch.randn(batch.mask.shape, generator=torch.Generator().manual_seed(5)).to(policy.device)
    with tower_rows(vlm) as seen:
        logprobs = policy(batch, batch.host.mask).logprobs
    (weights * logprobs).sum().backward()
    ours = gradients(policy.model)
    error, needed = 0.0, dict[int, int]()
    for row, rollout in enumerate(rollouts):
        with tower_rows(vlm) as alone:
            expected = plain_distribution(vlm, rollout).log_prob(rollout.response_ids.to(policy.device))
        needed[id(rollout.prompt)] = sum(alone)
        error = max(error, float((logprobs[row, : len(expected)] - expected).detach().abs().max()))
        (weights[row, : len(expected)] * expected).sum().backward()
    return Parity(
        family=policy.model.config.model_type,
        logprob_error=error,
        gradient_error=gradient_error(ours, gradients(policy.model)),
        tower_calls=sum(seen) / sum(needed.values()),
        vocabulary=len(vlm.tokenizer),
    )


def tiny_models() -> Iterator[VisionLanguageModel]:
    """A random model of each family, saved and loaded back; the builders belong to the tests."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from tiny_families import load_family, save_family  # pyright: ignore[reportMissingImports]

    with tempfile.TemporaryDirectory() as root:
        for family in FAMILIES:
            yield load_family(save_family(Path(root) / family, family, seed=0))


def main(paths: Sequence[str]) -> None:
    real = (load_model(path, min_pixels=4 * 28 * 28, max_pixels=1280 * 28 * 28) for path in paths)
    width, height = (640, 480) if paths else (70, 90)
    print(f"{'family':16} {'max |dlogp|':>12} {'gradient error':>15} {'tower calls per image':>22} {'vocabulary':>11}")
    for vlm in real if paths else tiny_models():
        found = measure(vlm, answers(vlm, samples(width, height), n=2, seed=3))
        print(
            f"{found.family:16} {found.logprob_error:12.1e} {found.gradient_error:15.1e} {found.tower_calls:22.2f} "
            f"{found.vocabulary:11,}",
            flush=True,
        )


if __name__ == "__main__":
    main(sys.argv[1:])
