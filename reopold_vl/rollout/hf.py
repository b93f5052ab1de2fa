"""The Hugging Face engine: images once, each prompt prefilled once for its n samples, finished rows dropped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from reopold_vl.collate import collate_prompts, moved
from reopold_vl.decoding import keep_rows, sampling_cache
from reopold_vl.logprobs import logit_stats
from reopold_vl.policy import Policy, like_positions
from reopold_vl.rollout import prompt_batches
from reopold_vl.rollout.draws import draw_tokens, uniform_numbers
from reopold_vl.rollout.layout import columns_side_by_side
from reopold_vl.types import Prompt, Rollout

# To ask a GPU which answers have ended is to wait for it: ended ones go on for a few steps there, unseen.
STEPS_BETWEEN_CHECKS = {"cpu": 1, "cuda": 8}


@dataclass(frozen=True)
class HFEngine:
    """Samples from the very module that is trained, so there is nothing to synchronise.

    `banned_ids` (image and video placeholders, ids past the tokenizer's last) are never sampled: a placeholder
    without an image would break the next forward pass. Log-probs are nevertheless those of the full vocabulary.
    """

    policy: Policy
    eos_ids: tuple[int, ...]
    pad_id: int
    banned_ids: tuple[int, ...] = ()
    rows_at_once: int = 256
    _banned: Tensor = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_banned", moved(torch.tensor(self.banned_ids, dtype=torch.long), self.policy.device))

    @property
    def exact(self) -> bool:
        """Cached decoding equals the full forward to about 5e-7 in fp32; bf16 is off by up to 4e-3."""
        return self.policy.precision == torch.float32

    def sync(self) -> None:
        """Nothing to do: the weights are the student's own."""

    @torch.no_grad()
    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        n: int,
        max_new_tokens: int,
        seed: int,
        keys: Sequence[int] | None = None,
        temperature: float = 1.0,
        top_p: float = 1.0,
    ) -> list[Rollout]:
        """`n` answers to each prompt, those of one prompt side by side, in the order of `prompts`.

        `temperature` 0 is greedy. Prompts of similar length share a batch of at most `rows_at_once` answers. An answer
        is a function of the weights, the prompt, its key, the answer's number and `seed`; `Engine.generate` has more.
        """
        keys = range(len(prompts)) if keys is None else keys
        if len(keys) != len(prompts):
            raise ValueError(f"keys has {len(keys)} entries for {len(prompts)} prompts")
        draw = self._draw(temperature=temperature, top_p=top_p)
        groups: dict[int, list[Rollout]] = {}
        for indices in prompt_batches(prompts, max(1, self.rows_at_once // n)):
            chunk = [prompts[index] for index in indices]
            found = _Samples.empty(len(chunk) * n, max_new_tokens, self.pad_id, self.policy.device)
            numbers = uniform_numbers(seed, [keys[index] for index in indices], n, max_new_tokens)
            # Around all steps: copies of the weights, autocast's and those laid out anew, live as long as these.
            with self.policy.autocast(), columns_side_by_side(self.policy):
                for _ in self._grow(found, chunk, n=n, draw=draw, numbers=numbers):
                    pass
            rollouts = found.rollouts([prompt for prompt in chunk for _ in range(n)])
            groups.update({index: rollouts[k * n : (k + 1) * n] for k, index in enumerate(indices)})
        return [rollout for index in range(len(prompts)) for rollout in groups[index]]

    @torch.no_grad()
    def stream(
        self,
        prompt: Prompt,
        *,
        max_new_tokens: int,
        seed: int,
        key: int = 0,
        temperature: float = 1.0,
        top_p: float = 1.0,
    ) -> Iterator[Rollout]:
        """One answer while it grows: the rollout so far after every token ("length" until its end is drawn).

        The last one is what `generate` gives for the same arguments, as the first answer to the prompt of that key.
        Closing the iterator ends the generation.
        """
        draw = self._draw(temperature=temperature, top_p=top_p)
        found = _Samples.empty(1, max_new_tokens, self.pad_id, self.policy.device)
        numbers = uniform_numbers(seed, [key], 1, max_new_tokens)
        for _ in self._grow(found, [prompt], n=1, draw=draw, numbers=numbers):
            yield found.rollouts([prompt])[0]

    def _draw(self, *, temperature: float, top_p: float) -> partial[Tensor]:
        return partial(draw_tokens, temperature=temperature, top_p=top_p, banned=self._banned)

    def _grow(
        self,
        found: _Samples,
        prompts: list[Prompt],
        *,
        n: int,
        draw: partial[Tensor],
        numbers: Float[Tensor, "rows time"],
    ) -> Iterator[None]:
        """Fill `found` with `n` answers to each prompt; control goes back to the caller after every step."""
        policy, device = self.policy, self.policy.device
        numbers, eos = moved(numbers, device), moved(torch.tensor(self.eos_ids), device)
        batch = collate_prompts(prompts, pad_id=self.pad_id).to(device)
        hidden, prompt_cache, positions, next_position = policy.read_prompts(batch)
        rows = torch.arange(len(prompts)).repeat_interleave(n)
        attention = policy.model.config.get_text_config()._attn_implementation
        cache = sampling_cache(prompt_cache, rows, attention=attention, device=device)
        del prompt_cache
        rows = moved(rows, device)
        steps, length = found.ids.shape[1], batch.ids.shape[1]
        # Of prompt and answer; where no prompt is padded there is nothing to mask.
        mask = None if batch.even else nn.functional.pad(batch.mask[rows], (0, steps), value=True)
        logits, position = policy.next_logits(hidden[rows, -1]), next_position[rows]
        alive = torch.arange(len(rows), device=device)
        between_checks = STEPS_BETWEEN_CHECKS.get(device.type, 1)
        for step in range(steps):
            tokens = draw(logits, numbers[alive, step])
            going = found.record(step, alive, tokens, logits, eos)
            yield
            if step + 1 == steps:
                break
            if (step + 1) % between_checks == 0:
                running = going.cpu().nonzero()[:, 0]
                if len(running) == 0:
                    break
                if len(running) < len(alive):
                    running = keep_rows(cache, running, device=device)
                    alive, tokens, position = (part[running] for part in (alive, tokens, position))
                    mask = None if mask is None else mask[running]
            hidden = policy.hidden_states(
                ids=tokens[:, None],
                mask=None if mask is None else mask[:, : length + step + 1],
                positions=like_positions(position + step, positions),
                cache=cache,
            )
            logits = policy.next_logits(hidden[:, -1])


@dataclass(frozen=True)
class _Samples:
    """The answers of one chunk while they grow; [R, T] on the device."""

    ids: Int[Tensor, "rows time"]
    logprobs: Float[Tensor, "rows time"]
    entropy: Float[Tensor, "rows time"]
    lengths: Int[Tensor, " rows"]
    stopped: Tensor

    @classmethod
    def empty(cls, rows: int, time: int, pad_id: int, device: torch.device) -> _Samples:
        shape = (rows, time)
        return cls(
            ids=torch.full(shape, pad_id, device=device),
            logprobs=torch.zeros(shape, device=device),
            entropy=torch.zeros(shape, device=device),
            lengths=torch.zeros(rows, dtype=torch.long, device=device),
            stopped=torch.zeros(rows, dtype=torch.bool, device=device),
        )

    def record(self, step: int, alive: Tensor, tokens: Tensor, logits: Tensor, eos: Tensor) -> Tensor:
        """Write the tokens of the rows `alive` at `step` that have not ended before; which of these rows go on."""
        logprobs, entropy = logit_stats(logits, tokens)
        going = ~self.stopped[alive]
        self.ids[alive, step] = torch.where(going, tokens, self.ids[alive, step])
        self.logprobs[alive, step] = torch.where(going, logprobs, 0.0)
        self.entropy[alive, step] = torch.where(going, entropy, 0.0)
        self.lengths[alive] += going.long()
        stop = going & torch.isin(tokens, eos)
        self.stopped[alive] |= stop
        return going & ~stop

    def rollouts(self, prompts: list[Prompt]) -> list[Rollout]:
        ids, logprobs, entropy = self.ids.cpu(), self.logprobs.cpu(), self.entropy.cpu()
        lengths, stopped = self.lengths.tolist(), self.stopped.tolist()
        return [
            Rollout(
                prompt=prompt,
                response_ids=ids[row, : lengths[row]],
                logprobs=logprobs[row, : lengths[row]],
                entropy=entropy[row, : lengths[row]],
                finish_reason="stop" if stopped[row] else "length",
            )
            for row, prompt in enumerate(prompts)
        ]
