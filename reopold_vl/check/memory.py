"""How much memory a run takes, by formula from numbers alone: nothing is loaded and nothing is measured here.

The peak of a training step on one device is

    weights + optimizer + EMA + teacher + max(rollout, scoring, gradient pass, update)

Weights, gradients, moments and copies are counted exactly from the numbers of parameters. What the passes hold follows
from what autograd keeps of a pre-norm decoder layer with grouped-query attention and a gated MLP. Per token and layer:

    both norms     2 h bytes each of: 12 in fp32 (input, normed, scaled), 8 in bf16 (an fp32 copy among them),
                   10 under autocast
    attention      q, k, v (k and v repeated to q's width) and output: 4 q elements
    gated MLP      gate, its activation, up, and their product: 4 i elements

(h hidden size, q query width, i intermediate size; the vision tower's blocks likewise, a patch a token.) A prompt is
read once for its answers, each of which then holds 2 q elements for every token that it sees. With gradient
checkpointing a layer keeps its input alone, and one layer at a time is whole. The cache holds 2 k elements a token and
layer, k the key width; a tile of the head three fp32 copies of its logits, four without gradient. Against measured
peaks each phase is right within a factor of 1.5 (`tests/test_memory_estimate.py`), where attention makes no
[length, length] matrix.
"""

from __future__ import annotations

from reopold_vl.check.plan import FP32, Estimate, ModelSize, Plan
from reopold_vl.collate import saves_a_pass
from reopold_vl.logprobs import TILE_ELEMENTS, TILE_ROWS

LOGIT_BYTES, LOGIT_BYTES_SCORED = 12, 16  # of one logit while a tile is worked on, with gradient and without
PATCH_BYTES = 4 * 3 * 2 * 14 * 14  # the pixels of one patch, in fp32, as Qwen's processors give them
DRAW_BYTES = 32  # of one logit while a token is drawn: four fp32 copies, and two in fp64


def estimate(plan: Plan) -> Estimate:
    """The memory of a training run's steps on one device, in bytes."""
    student, parts, here = plan.student, plan.shards, 0 if plan.offloaded else 1
    held = {
        "student weights": here * (student.parameters * plan.weight_bytes + plan.adapters * FP32) // parts,
        "optimizer": here * 2 * _state_bytes(plan) * plan.trainable // parts,
        "fp32 master weights": here * FP32 * plan.trainable // parts if plan.master else 0,
        "EMA": here * FP32 * plan.trainable // parts if plan.ema else 0,
        "teacher weights": plan.teacher.parameters * plan.teacher_bytes // plan.teacher_shards if plan.teacher else 0,
        "cached image features": plan.cached_features,
        "rollout engine": (plan.engine_bytes or 0) if plan.engine_stays else 0,
    }
    gradients = here * (FP32 if plan.adapters else plan.weight_bytes) * plan.trainable // parts
    gradients *= 2 if plan.copied else 1
    casts = _cast_bytes(student, plan.weight_bytes, plan.compute_bytes) if parts == 1 else 0
    phases = {
        "rollout": rollout_bytes(plan) + casts + (student.parameters * plan.compute_bytes if parts > 1 else 0),
        "teacher scoring": scoring_bytes(plan),
        "gradients": gradients,
        "gradient pass": gradients + gradient_pass_bytes(plan) + casts + _gathered(plan),
        # The update takes a root of each second moment and, with master weights, the gradients in fp32.
        "update": gradients + here * (2 if plan.master else 1) * _state_bytes(plan) * plan.trainable // parts,
    }
    return Estimate({name: size for name, size in held.items() if size}, phases)


def _state_bytes(plan: Plan) -> int:
    """Bytes of one moment: those of what the optimizer moves."""
    return FP32 if plan.master or plan.adapters else plan.weight_bytes


def _cast_bytes(model: ModelSize, weight_bytes: int, compute_bytes: int) -> int:
    """Autocast's copies of the matrices, which the backward pass keeps."""
    return (model.parameters - model.embedding_parameters) * compute_bytes if compute_bytes < weight_bytes else 0


def _gathered(plan: Plan) -> int:
    """Under FSDP: the root's embeddings and two layers at a time, gathered, and the gradients of one."""
    model = plan.student
    embeddings = model.vocabulary * model.hidden
    layer = (model.parameters - model.vision_parameters - embeddings) // max(model.layers, 1)
    return (embeddings + 3 * layer) * plan.compute_bytes if plan.shards > 1 else 0


def norm_bytes(weight_bytes: int, compute_bytes: int) -> int:
    """What a norm holds of one element."""
    return 8 if weight_bytes == 2 else 10 if compute_bytes == 2 else 12


def layer_bytes(
    hidden: int, query: int, intermediate: int, *, weight_bytes: int, compute_bytes: int, adapted: bool = False
) -> int:
    """What autograd keeps of one layer for one token; fp32 adapters on half-precision weights keep fp32 inputs."""
    norm = norm_bytes(weight_bytes, compute_bytes)
    inputs = FP32 * (5 * hidden + query + intermediate) if adapted and weight_bytes == 2 else 0
    return 2 * norm * hidden + compute_bytes * (4 * query + 4 * intermediate) + inputs


def kv_cache_bytes(model: ModelSize, *, rows: int, tokens: int, element_bytes: int) -> int:
    """Keys and values of `rows` sequences of `tokens`; one layer's are twice there while it grows by a token."""
    return 2 * model.key_width * rows * tokens * element_bytes * (model.layers + 1)


def rollout_bytes(plan: Plan) -> int:
    """The prefill of the prompts, or the full cache and the logits of the last step, whichever is more."""
    if plan.engine_bytes is not None:
        return 0 if plan.engine_stays else plan.engine_bytes
    model, rows = plan.student, plan.rollout_rows
    prompts = max(1, rows // plan.n)
    element = plan.compute_bytes
    prefilled = kv_cache_bytes(model, rows=prompts, tokens=plan.prompt_tokens, element_bytes=element)
    if plan.n > 1:  # prompts stay one copy while their answers grow
        cache = prefilled + kv_cache_bytes(model, rows=rows, tokens=plan.response_tokens, element_bytes=element)
    else:
        length = plan.prompt_tokens + plan.response_tokens
        cache = kv_cache_bytes(model, rows=rows, tokens=length, element_bytes=element)
    read = prompts * plan.prompt_tokens
    prefill = prefilled + _forward_bytes(model, prompts, read, plan.prompt_tokens, plan, plan.weight_bytes, element)
    pixels = int(prompts * plan.image_tokens * model.patches_per_token * PATCH_BYTES)
    return pixels + max(prefill, cache + rows * model.vocabulary * DRAW_BYTES)


def scoring_bytes(plan: Plan) -> int:
    """A forward pass of the teacher, if it is on this device."""
    if plan.teacher is None:
        return 0
    model, element, rows = plan.teacher, plan.teacher_compute_bytes, plan.learn_rows
    length, (prompts, read, seen) = plan.prompt_tokens + plan.response_tokens, _tokens(plan, plan.teacher_shards)
    passing = _forward_bytes(model, prompts, read, length, plan, plan.teacher_bytes, element)
    if seen:
        cache = kv_cache_bytes(model, rows=prompts, tokens=plan.prompt_tokens, element_bytes=element)
        passing += cache + 2 * seen * (model.query_width + model.key_width) * element
    tile = _tile_rows(model, rows * plan.response_tokens) * _logits_row(model, LOGIT_BYTES_SCORED, element)
    casts = _cast_bytes(model, plan.teacher_bytes, element) // max(model.layers, 1)
    return max(passing, tile) + casts


def gradient_pass_bytes(plan: Plan) -> int:
    """What autograd keeps of one micro-batch, and the head's tile that is worked on at its end."""
    model, rows, element = plan.student, plan.learn_rows, plan.compute_bytes
    length, (prompts, read, seen) = plan.prompt_tokens + plan.response_tokens, _tokens(plan, plan.shards)
    kinds = {"weight_bytes": plan.weight_bytes, "compute_bytes": element, "adapted": plan.adapters > 0}
    attention = model.heads * length * (FP32 + 2 * element) if plan.whole_attention else 0
    layer = layer_bytes(model.hidden, model.query_width, model.intermediate, **kinds) + attention
    decoder = read * layer + 2 * seen * model.query_width * element
    patches = int(prompts * plan.image_tokens * model.patches_per_token)
    tower = patches * _vision_layer_bytes(model, plan.weight_bytes, element)
    tile = _tile_rows(model, rows * plan.response_tokens) * _logits_row(model, LOGIT_BYTES, element)
    mask = read * length * (1 + element) + patches * PATCH_BYTES
    final = 3 * read * model.hidden * FP32
    if plan.checkpointing:  # one layer is whole, long after the head is done
        kept = read * model.hidden * plan.weight_bytes * model.layers
        kept += prompts * plan.prompt_tokens * 2 * model.key_width * element * model.layers if seen else 0
        kept += 0 if plan.frozen_vision else patches * model.vision_hidden * plan.weight_bytes * model.vision_layers
        return kept + max(decoder, tower, tile) + mask + final
    before = tower if plan.frozen_vision else 0  # one block at a time, before the decoder begins
    kept = decoder * model.layers + (0 if plan.frozen_vision else tower * model.vision_layers)
    return max(before, kept + tile + mask + final)


def _tokens(plan: Plan, shards: int) -> tuple[int, int, int]:
    """Prompts of one pass, the tokens that go through the layers, and those that answers see behind shared prompts.

    `shards` are the model's.
    """
    rows, length = plan.learn_rows, plan.prompt_tokens + plan.response_tokens
    prompts = -(-rows // plan.n)
    cost = plan.fetch_tokens if shards > 1 else 0
    if not saves_a_pass(answers=rows, prompts=prompts, prompt_tokens=plan.prompt_tokens, pass_tokens=cost):
        return prompts, rows * length, 0
    return prompts, prompts * plan.prompt_tokens + rows * plan.response_tokens, rows * length


def _forward_bytes(
    model: ModelSize, prompts: int, tokens: int, length: int, plan: Plan, weight_bytes: int, compute_bytes: int
) -> int:
    """A forward pass without gradient over `tokens` in rows of `length`: half a layer at a time, and the images."""
    attention = model.heads * length * (FP32 + compute_bytes) if plan.whole_attention else 0
    layer = 4 * compute_bytes * max(model.query_width, model.intermediate) + attention
    layer += norm_bytes(weight_bytes, compute_bytes) * model.hidden
    patches = prompts * plan.image_tokens * model.patches_per_token
    tower = int(patches * _vision_layer_bytes(model, weight_bytes, compute_bytes))
    mask = tokens * length * (1 + compute_bytes)
    return max(tokens * layer, tower) + tokens * model.hidden * weight_bytes + mask


def _vision_layer_bytes(model: ModelSize, weight_bytes: int, compute_bytes: int) -> int:
    width, inner = model.vision_hidden, model.vision_intermediate
    return layer_bytes(width, width, inner, weight_bytes=weight_bytes, compute_bytes=compute_bytes)


def _tile_rows(model: ModelSize, tokens: int) -> int:
    """Rows of one tile of the head: see `logprobs.token_stats`."""
    return min(tokens, max(TILE_ROWS, TILE_ELEMENTS // model.vocabulary))


def _logits_row(model: ModelSize, logit_bytes: int, compute_bytes: int) -> int:
    """Bytes of one token's logits while they are worked on; half precision adds a copy."""
    return model.vocabulary * (logit_bytes + (compute_bytes if compute_bytes < FP32 else 0))
