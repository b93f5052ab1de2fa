"""Is this pair wired right? Checked before step 0, and by `python -m reopold_vl.check`.

Silent miswiring is what users of distillation tools lose GPU-days to: a teacher that gets no pixels, other image
tokens, another end token. Each check raises ModelError naming the first difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch

from reopold_vl.models import ModelError, VisionLanguageModel, load_model
from reopold_vl.prompts import messages
from reopold_vl.score import engine_gaps, score_tokens
from reopold_vl.types import Prompt, Rollout, VisualSample

# Cached decoding against one forward pass, mean over tokens in nats: fp32 agrees to 1e-6, bf16 to a few 1e-3 on small
# models and more on deep ones (a single token may be off by ten times that); a miswired model is off by 0.1 and more.
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.05, torch.float16: 0.02}


@dataclass(frozen=True)
class PairReport:
    """What the checks measured; with `shared_prompts` the teacher takes the student's prompts as they are."""

    shared_prompts: bool
    engine_gap: float
    pixel_effect: float

    def __str__(self) -> str:
        shared = "identical" if self.shared_prompts else "encoded apart for the teacher"
        return (
            f"vocabulary, end tokens and template agree; image tensors {shared}; teacher = student gives mean |R| "
            f"{self.engine_gap:.1e}; without its pixels the teacher's log-probs move by {self.pixel_effect:.1e}"
        )


def check_pair(
    student: VisionLanguageModel, teacher: VisionLanguageModel, samples: Sequence[VisualSample]
) -> PairReport:
    """Check tokenizer, end tokens, chat template, image grid, scoring and sight on a few samples.

    Raises ModelError naming the first difference.
    """
    check_vocabulary(student, teacher)
    check_template(student, teacher, samples[0])
    prompts = [student.encoder(sample) for sample in samples]
    shared = all(check_grid(prompt, teacher.encoder(prompt.sample), student, teacher) for prompt in prompts)
    rollouts = student.engine(rows_at_once=len(prompts)).generate(prompts, n=1, max_new_tokens=8, seed=0)
    gap = check_scoring(student, rollouts)
    return PairReport(shared, gap, check_sight(teacher, rollouts))


def check_vocabulary(student: VisionLanguageModel, teacher: VisionLanguageModel) -> None:
    """Same tokens under the same ids (embedding matrices may be padded differently) and the same end tokens."""
    ours, theirs = student.tokenizer.get_vocab(), teacher.tokenizer.get_vocab()
    if ours != theirs:
        by_id = {index: token for token, index in ours.items()}
        others = {index: token for token, index in theirs.items()}
        first = min(index for index in {*by_id, *others} if by_id.get(index) != others.get(index))
        raise ModelError(
            f"tokenizers differ: id {first} is {by_id.get(first)!r} for the student ({student.path}) and "
            f"{others.get(first)!r} for the teacher ({teacher.path})"
        )
    if set(student.eos_ids) != set(teacher.eos_ids):
        names = [model.tokenizer.convert_ids_to_tokens(list(model.eos_ids)) for model in (student, teacher)]
        raise ModelError(f"end tokens differ: {names[0]} for the student and {names[1]} for the teacher")


def check_template(student: VisionLanguageModel, teacher: VisionLanguageModel, sample: VisualSample) -> None:
    """Both chat templates render the same text."""
    texts = [
        model.processor.apply_chat_template(messages(sample), tokenize=False, add_generation_prompt=True)
        for model in (student, teacher)
    ]
    if texts[0] != texts[1]:
        at = next((i for i, (a, b) in enumerate(zip(*texts, strict=False)) if a != b), min(map(len, texts)))
        raise ModelError(
            f"chat templates differ at character {at}: {texts[0][at : at + 40]!r} for the student and "
            f"{texts[1][at : at + 40]!r} for the teacher"
        )


def check_grid(ours: Prompt, theirs: Prompt, student: VisionLanguageModel, teacher: VisionLanguageModel) -> bool:
    """Whether both models want the very same image tensors.

    Other tensors of the same patch size must cover the same grid: a teacher with another pixel limit would look at
    another image. With another patch size the teacher encodes the same picture by itself.
    """
    if not ours.vision:
        return True
    if student.encoder.factor == teacher.encoder.factor and not torch.equal(ours.ids, theirs.ids):
        grids = [prompt.vision["image_grid_thw"].tolist() for prompt in (ours, theirs)]
        raise ModelError(f"image grids differ: {grids[0]} for the student and {grids[1]} for the teacher")
    same = ours.ids.equal(theirs.ids) and ours.vision["pixel_values"].shape == theirs.vision["pixel_values"].shape
    return same and torch.equal(ours.vision["pixel_values"], theirs.vision["pixel_values"])


def check_scoring(student: VisionLanguageModel, rollouts: Sequence[Rollout]) -> float:
    """The student as its own teacher must give R = 0; the mean |R| in nats over all tokens."""
    scored = score_tokens(student, rollouts, rows_at_once=len(rollouts))
    gap = float(engine_gaps(rollouts, scored.logprobs).mean())
    allowed = TOLERANCE[student.policy.precision]
    if not gap <= allowed:
        raise ModelError(f"scoring disagrees with sampling by {gap:.3g} nats (allowed {allowed}): R would be noise")
    return gap


def check_sight(teacher: VisionLanguageModel, rollouts: Sequence[Rollout]) -> float:
    """Change the pixels and the teacher's log-probs must change; the largest change in nats, 0 without images."""
    own = [replace(rollout, prompt=teacher.encoder(rollout.prompt.sample)) for rollout in rollouts]
    plain = score_tokens(teacher, own, rows_at_once=len(own)).logprobs
    if plain.isnan().any():
        raise ModelError(f"the teacher ({teacher.path}) gives NaN for log-probs: broken weights, or dtype overflows")
    if not any(rollout.prompt.vision for rollout in own):
        return 0.0
    changed = [replace(rollout, prompt=_inverted(rollout.prompt)) for rollout in own]
    effect = float((score_tokens(teacher, changed, rows_at_once=len(own)).logprobs - plain).abs().max())
    if effect == 0:
        raise ModelError(f"the teacher ({teacher.path}) does not see the image: other pixels, same log-probs")
    return effect


def _inverted(prompt: Prompt) -> Prompt:
    vision = {name: -tensor if name == "pixel_values" else tensor for name, tensor in prompt.vision.items()}
    return replace(prompt, vision=vision)


def main(
    student: str,
    teacher: str,
    /,
    data: str | None = None,
    max_pixels: int = 1280 * 28 * 28,
    dtype: Literal["float32", "bfloat16"] = "float32",
    teacher_device: str = "auto",
) -> None:
    """Check that a student and a teacher fit together, before a GPU-hour is spent.

    Args:
        student: Directory, Hub id, or zoo:student.
        teacher: Directory, Hub id, or zoo:teacher.
        data: Rows to try the pair on, as in --data.path of training; the embedded benchmark without it.
        max_pixels: Images are shrunk to this area.
        dtype: Precision of both models' weights; bfloat16 halves the memory.
        teacher_device: Where the teacher goes, such as cuda:1; the student takes the first device.
    """
    from reopold_vl.data import load_samples
    from reopold_vl.zoo.task import problems

    models = [
        load_model(path, dtype=dtype, device=device, min_pixels=4 * 28 * 28, max_pixels=max_pixels)
        for path, device in ((student, "auto"), (teacher, teacher_device))
    ]
    samples = problems("train", 4) if data is None else load_samples(data, limit=4).samples
    print(check_pair(models[0], models[1], samples))


if __name__ == "__main__":
    import tyro

    from reopold_vl.cli_errors import fail

    try:
        tyro.cli(main, prog="python -m reopold_vl.check")
    except ValueError as problem_found:
        raise SystemExit(fail(str(problem_found))) from None
