"""Where a rollout's CPU time goes, and how much of it is products of matrices: what no other code could leave out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.figures.result import Figure, cpu_seconds
from reopold_vl.policy import Policy
from reopold_vl.rollout import hf

PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "convolution", "_scaled_dot_product_flash_attention_for_cpu")
TOWER, PROMPTS, DRAWS, STEPS = "vision tower", "prompts", "draws, log-probs and entropies", "decoding steps"


def no_seconds() -> dict[str, float]:
    return dict.fromkeys((TOWER, PROMPTS, DRAWS, STEPS), 0.0)


class _Products(TorchDispatchMode):
    """Adds up the CPU time of matrix products where they happen, in `seconds` by the part of the rollout."""

    def __init__(self, clock: _Clock) -> None:
        super().__init__()
        self.clock, self.seconds = clock, no_seconds()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        start = time.thread_time()
        found = function(*args, **(kwargs or {}))
        if function.__name__.partition(".")[0] in PRODUCTS:
            self.seconds[self.clock.part] += time.thread_time() - start
        return found


class _Clock:
    """CPU time by the part that is running; what is in no named part is a decoding step."""

    def __init__(self) -> None:
        self.part, self.seconds = STEPS, no_seconds()
        self._since = time.thread_time()

    def turn(self, part: str) -> str:
        now = time.thread_time()
        self.seconds[self.part] += now - self._since
        before, self.part, self._since = self.part, part, now
        return before

    @contextmanager
    def around(self, place: Any, name: str, part: str) -> Iterator[None]:
        plain = getattr(place, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            before = self.turn(part)
            try:
                return plain(*args, **kwargs)
            finally:
                self.turn(before)

        setattr(place, name, timed)
        try:
            yield
        finally:
            setattr(place, name, plain)


@contextmanager
def _clocked() -> Iterator[_Clock]:
    clock = _Clock()
    with ExitStack() as stack:
        for place, name, part in (
            (Policy, "encode_images", TOWER),
            (Policy, "read_prompts", PROMPTS),
            (hf, "draw_tokens", DRAWS),
            (hf, "logit_stats", DRAWS),
        ):
            stack.enter_context(clock.around(place, name, part))
        yield clock
        clock.turn(STEPS)


def parts(rollout: Callable[[], Any]) -> dict[str, dict[str, float]]:
    """CPU seconds of each part of `rollout`, and of its matrix products, whose time is taken in a run of its own."""
    _, whole = cpu_seconds(rollout)
    with _clocked() as clock:
        rollout()
    with _clocked() as slower, _Products(slower) as products:
        rollout()
    found = {part: {"seconds": clock.seconds[part], "products": products.seconds[part]} for part in clock.seconds}
    return found | {"all": {"seconds": whole, "products": sum(products.seconds.values())}}


def profile_text(figure: Figure) -> str:
    """Markdown: the table of `parts`, and what follows from it for the highest ratio that there could be."""
    found: Mapping[str, Mapping[str, float]] = figure.details["parts"]
    lines = ["| part of a rollout | CPU s | of that matrix products |", "|---|---:|---:|"]
    lines += [f"| {part} | {cost['seconds']:.3f} | {cost['products']:.3f} |" for part, cost in found.items()]
    peer, whole = figure.details["seconds of the peer"], found["all"]
    return "\n".join(lines) + (
        f"\n\nThe peer needs {peer:.2f} CPU seconds for as many tokens. The products alone bound the ratio to "
        f"{peer / whole['products']:.1f}; {whole['products'] / whole['seconds']:.0%} of our time is spent in them.\n"
    )
