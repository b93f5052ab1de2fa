"""The next step's pictures, opened and processed in threads while this step runs."""

from __future__ import annotations

import copy
import queue
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from reopold_vl import distributed
from reopold_vl.prompts import PromptEncoder
from reopold_vl.types import Prompt, VisualSample

Encoded = tuple[list[Prompt], list[str]]


class EncodingAhead:
    """Gives what `encoder` gives, sooner: samples named to `begin` are encoded meanwhile by `workers` threads.

    Each thread has a processor of its own, because fast tokenizers cannot be used by two at a time.
    """

    def __init__(self, encoder: PromptEncoder, workers: int) -> None:
        self.encoder = encoder
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="encode")
        self._idle = queue.SimpleQueue[PromptEncoder]()
        for _ in range(workers):
            self._idle.put(copy.deepcopy(encoder))  # here and not in the threads, while nobody uses it
        self._begun: dict[int, tuple[VisualSample, Future[Encoded]]] = {}

    def begin(self, samples: Sequence[VisualSample]) -> None:
        """This process's share of the next step. What was begun before and never asked for is dropped."""
        for _, waiting in self._begun.values():
            waiting.cancel()
        share = [samples[place] for place in distributed.share_of(samples)]
        self._begun = {id(sample): (sample, self._pool.submit(self._encode, sample)) for sample in share}

    def encode_all(self, samples: Sequence[VisualSample]) -> Encoded:
        """See `PromptEncoder.encode_all`."""
        prompts: list[Prompt] = []
        reasons: list[str] = []
        for sample in samples:
            begun = self._begun.pop(id(sample), None)
            found, why_not = self.encoder.encode_all([sample]) if begun is None else begun[1].result()
            prompts += found
            reasons += why_not
        return prompts, reasons

    def _encode(self, sample: VisualSample) -> Encoded:
        encoder = self._idle.get()
        try:
            return encoder.encode_all([sample])
        finally:
            self._idle.put(encoder)
