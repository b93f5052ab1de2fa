"""The output of a vision tower that does not change, kept for the images that come again."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from xxhash import xxh3_128_digest

MB = 2**20
Key = tuple[object, ...]


class FeatureCache:
    """Features by the content of the image tensors, within `megabytes`; the image unused for longest goes first.

    The tensors are in CPU memory, and only those of images that are not here are handed on.

    Images are encoded one by one, so that what comes out for an image does not depend on what else is in the batch or
    in the cache: a run that was resumed, with an empty cache, goes on as the one that was not.
    """

    def __init__(self, megabytes: int) -> None:
        self.limit = megabytes * MB
        self.bytes = self.hits = self.misses = 0
        self._kept: OrderedDict[Key, Any] = OrderedDict()

    def __call__(self, encode: Callable[[Mapping[str, Tensor]], Any], inputs: Mapping[str, Tensor]) -> Any:
        """What `encode(inputs)` returns, the output of a tower: the visual tokens of all images, in order."""
        return _joined([self._one(encode, image) for image in images(inputs)])

    def __len__(self) -> int:
        return len(self._kept)

    def __deepcopy__(self, memo: dict[int, Any]) -> FeatureCache:
        """A copied model starts with nothing kept: its weights may go elsewhere."""
        return FeatureCache(self.limit // MB)

    def _one(self, encode: Callable[[Mapping[str, Tensor]], Any], image: Mapping[str, Tensor]) -> Any:
        key = content(image)
        if key in self._kept:
            self.hits += 1
            self._kept.move_to_end(key)
            return self._kept[key]
        self.misses += 1
        features = encode(image)
        size = _size(features)
        if size <= self.limit:
            while self.bytes + size > self.limit:
                self.bytes -= _size(self._kept.popitem(last=False)[1])
            self._kept[key] = features = _tokens_alone(features)
            self.bytes += size
        return features


def images(inputs: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """The tensors of each image (or tile, where a family's first dimension counts tiles).

    LLaVA-OneVision cuts a prompt's only image in another way than several: there a prompt's images stay together.
    """
    grid, together = inputs.get("image_grid_thw"), inputs.get("batch_num_images")
    sizes: dict[str, list[int]] = {} if grid is None else {"pixel_values": grid.prod(-1).tolist()}
    if together is not None:
        sizes = dict.fromkeys(("pixel_values", "image_sizes"), together.tolist())
    parts = {name: tensor.split(sizes.get(name, 1)) for name, tensor in inputs.items()}
    for values in zip(*parts.values(), strict=True):
        yield dict(zip(parts, values, strict=True))


def content(image: Mapping[str, Tensor]) -> Key:
    """Names, shapes, dtypes and a 128-bit hash of the bytes of each tensor, which is in CPU memory."""
    return tuple((name, tensor.shape, tensor.dtype, _hash(tensor)) for name, tensor in sorted(image.items()))


def _hash(tensor: Tensor) -> bytes:
    return xxh3_128_digest(tensor.contiguous().flatten().view(torch.uint8).numpy().data)


def _layers(features: Any) -> list[Any]:
    """All that a language model takes of a tower's output: the visual tokens and, in Qwen3-VL, deep-stack features."""
    return [features.pooler_output, *(getattr(features, "deepstack_features", None) or [])]


def _size(features: Any) -> int:
    return sum(part.nbytes for layer in _layers(features) for part in layer)


def _tokens_alone(features: Any) -> Any:
    """Without hidden states, which nobody asks for again."""
    kept = type(features)(pooler_output=features.pooler_output)
    if getattr(features, "deepstack_features", None) is not None:
        kept.deepstack_features = features.deepstack_features
    return kept


def _joined(each: list[Any]) -> Any:
    joined = copy.copy(each[0])
    joined.pooler_output = _concatenated([features.pooler_output for features in each])
    if getattr(joined, "deepstack_features", None) is not None:
        layers = zip(*(features.deepstack_features for features in each), strict=True)
        joined.deepstack_features = [_concatenated(list(parts)) for parts in layers]
    return joined


def _concatenated(parts: list[Any]) -> Any:
    """One tensor from tensors, one list from lists of tensors."""
    return torch.cat(parts) if torch.is_tensor(parts[0]) else [token for part in parts for token in part]


def cache_metrics(caches: Mapping[str, FeatureCache | None]) -> dict[str, float]:
    """What each cache has done so far: images found and images encoded since the start, and MB held."""
    return {
        f"features/{name}_{what}": number
        for name, cache in caches.items()
        if cache is not None
        for what, number in (("hits", cache.hits), ("misses", cache.misses), ("mb", cache.bytes / MB))
    }
