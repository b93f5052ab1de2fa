"""Policy: the one wrapped module. Everything differentiable goes through its `forward`."""

from __future__ import annotations

from functools import cached_property, partial
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from reopold_vl import visual_tokens
from reopold_vl.collate import PromptBatch, TokenBatch, collate_prompts, length_groups, moved, token_places
from reopold_vl.feature_cache import FeatureCache
from reopold_vl.logprobs import Read, Reader, token_stats
from reopold_vl.masks import Attention
from reopold_vl.prefix import answer_cache, by_itself, prompt_cache
from reopold_vl.types import Prompt
from reopold_vl.vision import vision_trains


class Policy(nn.Module):
    """A Hugging Face vision-language model as a distribution over response tokens.

    `forward(batch, keep)` returns log-probabilities and entropies, [B, T], of the response tokens where `keep` is
    true and zeros elsewhere. The vision tower runs once per image of the batch, the decoder once per prompt that has
    several answers and once per answer, the head on the kept tokens alone. Positions are always explicit: the model's
    own bookkeeping (`rope_deltas`) is overwritten by every forward and would leak from one batch into the next.
    Whatever Python must know of a batch is looked up in CPU memory (`batch.host`): to ask a GPU is to wait for it.
    """

    def __init__(
        self, model: Any, *, compute: torch.dtype = torch.float32, feature_cache: FeatureCache | None = None
    ) -> None:
        """`compute` torch.bfloat16 runs matrix products in bf16 under autocast; the weights stay as they are.

        A `feature_cache` is for a vision tower and projector that are not trained.
        """
        super().__init__()
        visual_tokens.PatchProduct.take_over(model)
        self.model = model
        self.compute = compute
        self.feature_cache = feature_cache
        self.place: torch.device | None = None  # where it computes, if its weights rest elsewhere
        self.in_step = False  # cut up over processes, which must all run the same parts in the same order
        self.fetch_tokens = 0  # what one more pass of a cut-up model costs, in tokens: its weights are fetched again

    @property
    def device(self) -> torch.device:
        return self.model.device if self.place is None else self.place

    @property
    def precision(self) -> torch.dtype:
        """The dtype that log-probs are computed in: the lower one of weights and matrix products."""
        return self.compute if self.model.dtype == torch.float32 else self.model.dtype

    @cached_property
    def _attention(self) -> Attention:
        return Attention.of(self.model)

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.compute == torch.bfloat16)

    def forward(self, batch: TokenBatch, keep: Bool[Tensor, "batch time"], read: Reader[Read] = token_stats) -> Read:
        """`read(states, head.weight, head.bias, ids)` makes a NamedTuple of [tokens] of kept states; here [B, T].

        `keep` in CPU memory lets nobody wait for a GPU. Raises ValueError where it has another shape than the answers.
        """
        hidden, places = self.kept_states(batch, keep)
        head = self.model.get_output_embeddings()
        with self.autocast():
            found = read(hidden, head.weight, head.bias, batch.response_ids.flatten()[places])
        zeros = torch.zeros(keep.numel(), dtype=torch.float32, device=self.device)  # cloned: FSDP warns of views
        return type(found)(*(zeros.scatter(0, places, values).view(keep.shape).clone() for values in found))

    def kept_states(
        self, batch: TokenBatch, keep: Bool[Tensor, "batch time"]
    ) -> tuple[Float[Tensor, "tokens hidden"], Int[Tensor, " tokens"]]:
        """`response_states` of the tokens in `keep`, row by row, and their `token_places`."""
        if keep.shape != batch.response_ids.shape:
            raise ValueError(f"keep is {tuple(keep.shape)} for answers of {tuple(batch.response_ids.shape)} tokens")
        places = token_places(keep, self.device)
        return self.response_states(batch).flatten(0, 1).index_select(0, places), places

    def response_states(self, batch: TokenBatch) -> Float[Tensor, "batch time hidden"]:
        """The last hidden states that predict each response token."""
        visual_tokens.refuse_placeholders(self.model, batch.host.response_ids)
        if self.shares_prompts(batch):
            return self._states_behind_shared_prompts(batch)
        prompts, rows = batch.prompts, batch.rows
        features = self.encode_images(prompts)
        prompt_positions, next_position = self.positions(prompts)
        steps = torch.arange(batch.response_ids.shape[1] - 1, device=rows.device)
        # The last response token predicts nothing that is scored, so it is no input.
        ids = torch.cat([prompts.ids[rows], batch.response_ids[:, :-1]], 1)
        later = next_position[rows] + steps
        hidden = self.hidden_states(
            ids=ids,
            # What is padded on the right comes after all that is read of a row.
            mask=None if prompts.even else torch.cat([prompts.mask[rows], batch.mask[:, :-1]], 1),
            positions=torch.cat([prompt_positions[..., rows, :], like_positions(later, prompt_positions)], -1),
            token_types=torch.cat([prompts.token_types[rows], torch.zeros_like(batch.response_ids[:, :-1])], 1),
            visual=visual_tokens.select_rows(features, prompts, batch.host.rows.tolist(), behind=len(steps)),
        )
        # The state at the prompt's last token predicts the first response token.
        return hidden[:, prompts.ids.shape[1] - 1 :]

    def shares_prompts(self, batch: TokenBatch) -> bool:
        """Whether each prompt is read once for all its answers, rather than once for each."""
        if batch.groups is not None:
            return len(batch.groups) > 0
        return not self.in_step and len(batch.rows) > len(batch.prompts.ids)

    def _states_behind_shared_prompts(self, batch: TokenBatch) -> Float[Tensor, "batch time hidden"]:
        """`response_states` from one pass of the prompts and some of the answers, those of similar length together."""
        prompts, rows, time = batch.prompts, batch.rows, batch.response_ids.shape[1]
        prompt_hidden, cache, positions, next_position = self.read_prompts(prompts)
        pieces: list[Tensor] = []
        order: list[int] = []
        lengths = batch.host.mask.sum(1).tolist()
        apart = self.in_step and torch.is_grad_enabled()
        for group in length_groups(lengths) if batch.groups is None else batch.groups:
            # Any answer's first token, where other processes have something to read and this one goes along.
            members, longest = (group, max(lengths[row] for row in group)) if group else ([0], 1)
            chosen = moved(torch.tensor(members), self.device)
            own = rows[chosen]
            states = [prompt_hidden[own, -1:]]
            length = self._input_length(longest)
            if length > 0:
                fit = (0, length - time)
                ids, mask = (nn.functional.pad(each[chosen], fit) for each in (batch.response_ids, batch.mask))
                later = next_position[own] + torch.arange(length, device=rows.device)
                read = partial(
                    self.hidden_states,
                    ids=ids,
                    mask=None if prompts.even else torch.cat([prompts.mask[own], mask], 1),
                    positions=like_positions(later, positions),
                )
                states.append(by_itself(read, cache, own) if apart else read(cache=answer_cache(cache, own)))
            padded = nn.functional.pad(torch.cat(states, 1), (0, 0, 0, time - 1 - length))
            pieces.append(padded[: len(group)])
            order += group
        back = moved(torch.tensor(order).argsort(), self.device)
        return torch.cat(pieces).index_select(0, back)

    def _input_length(self, longest: int) -> int:
        """Tokens of the longest answer that go through the decoder: the last predicts nothing that is scored."""
        length = max(longest - 1, int(self.in_step))  # in step nobody can sit a pass out
        # By itself a token goes through kernels of linear attention that have no backward pass.
        return 2 if length == 1 and torch.is_grad_enabled() and self._attention.linear else length

    def read_prompts(self, prompts: PromptBatch) -> tuple[Tensor, Any, Tensor, Tensor]:
        """One pass of the prompts: hidden states, the cache that it filled, and `positions`."""
        features = self.encode_images(prompts)
        positions, next_position = self.positions(prompts)
        cache = prompt_cache(self.model.config.get_text_config())
        hidden = self.hidden_states(
            ids=prompts.ids,
            mask=None if prompts.even else prompts.mask,
            positions=positions,
            token_types=prompts.token_types,
            visual=visual_tokens.select_rows(features, prompts, range(len(prompts.ids))),
            cache=cache,
        )
        return hidden, cache, positions, next_position

    def encode_images(self, prompts: PromptBatch) -> Any | None:
        """The vision tower's output for all images of the batch, or None without images."""
        with self.autocast(), torch.set_grad_enabled(torch.is_grad_enabled() and vision_trains(self.model)):
            return visual_tokens.encode(self.model, prompts.host.vision, self.device, self.feature_cache)

    def positions(self, prompts: PromptBatch) -> tuple[Int[Tensor, "*axes prompts length"], Int[Tensor, "prompts 1"]]:
        """Rotary positions of the prompt tokens, and the position of the first response token.

        Families with multimodal rotary positions have three axes (time, height, width), the others none.
        """
        host = prompts.host
        positions = (host.mask.long().cumsum(-1) - 1).clamp(min=0)
        following = positions[:, -1:] + 1
        if hasattr(self.model.base_model, "get_rope_index"):
            positions = positions.expand(3, -1, -1)
            if "image_grid_thw" in host.vision:
                positions, delta = self.model.base_model.get_rope_index(
                    input_ids=host.ids,
                    mm_token_type_ids=host.token_types,
                    image_grid_thw=host.vision["image_grid_thw"],
                    attention_mask=host.mask.long(),
                )
                following = following + delta.reshape(-1, 1)
        return moved(positions, self.device), moved(following, self.device)

    def hidden_states(
        self,
        *,
        ids: Int[Tensor, "batch length"],
        mask: Bool[Tensor, "batch total"] | None,
        positions: Int[Tensor, "*axes batch length"],
        token_types: Int[Tensor, "batch length"] | None = None,
        visual: visual_tokens.Visual | None = None,
        cache: Any | None = None,
    ) -> Float[Tensor, "batch length hidden"]:
        """Last hidden states; `cache` is read and extended in place, `mask` covers what it holds; None is all true."""
        typed = {"token_type_ids": token_types} if token_types is not None and self._attention.typed else {}
        with self.autocast():
            output = visual_tokens.decoder_of(self.model, visual)(
                inputs_embeds=visual_tokens.embed(self.model, ids, visual),
                attention_mask=self._attention_mask(mask, ids.shape[1], cache, typed=bool(typed)),
                position_ids=positions,
                past_key_values=cache,
                use_cache=cache is not None,
                **typed,
            )
        return output.last_hidden_state

    def _attention_mask(self, mask: Tensor | None, length: int, cache: Any | None, *, typed: bool) -> Any:
        implementation = self.model.config.get_text_config()._attn_implementation
        if typed or implementation != "sdpa" or not self._attention.known:
            return None if mask is None else mask.long()
        total = length + (0 if cache is None else cache.get_seq_length())
        return self._attention.mask(mask, length=length, total=total, dtype=self.precision, device=self.device)

    def next_logits(self, hidden: Float[Tensor, "batch hidden"]) -> Float[Tensor, "batch vocab"]:
        """Logits of the token after each of these last hidden states."""
        with self.autocast():
            return self.model.get_output_embeddings()(hidden)

    @torch.no_grad()
    def head_gap(self, prompt: Prompt) -> float:
        """The largest difference, in logits, between the head's projection and what the model itself says of a prompt.

        A model that caps or scales its logits behind the head would be scored wrongly by `forward`. Images are left
        out: `prompt` should have none.
        """
        ids = prompt.ids[None].to(self.device)
        with self.autocast():
            theirs = self.model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        batch = collate_prompts([prompt], pad_id=0).to(self.device)
        positions, _ = self.positions(batch)
        hidden = self.hidden_states(ids=batch.ids, mask=batch.mask, positions=positions, token_types=batch.token_types)
        with self.autocast():
            return float((self.model.get_output_embeddings()(hidden) - theirs).abs().max())


def like_positions(
    text: Int[Tensor, "batch length"], positions: Int[Tensor, "*axes other_batch other_length"]
) -> Int[Tensor, "*axes batch length"]:
    """Positions of text, with as many axes as `positions` has: text advances alike on each."""
    return text.expand(*positions.shape[:-2], -1, -1)
