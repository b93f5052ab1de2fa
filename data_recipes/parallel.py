"""Blocks of rows through worker processes, in order, with a bounded number of them on their way."""

from __future__ import annotations

import itertools
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence

from data_recipes.check import Unreadable, check_block
from data_recipes.types import Checked, RecipeError, Row
from reopold_vl.types import VisualSample

BLOCK_ROWS = 32
"""Rows that are checked and judged together; blocks begin at multiples of it, wherever a resumed build goes on."""

Read = Callable[[Row], VisualSample]


def blocks(rows: Iterable[tuple[int, Row]]) -> Iterator[list[tuple[int, Row]]]:
    """Cut numbered rows (ascending) into blocks by number."""
    for _, block in itertools.groupby(rows, key=lambda row: row[0] // BLOCK_ROWS):
        yield list(block)


def checked_blocks(
    read: Read, lots: Iterable[Sequence[tuple[int, Row]]], num_proc: int
) -> Iterator[list[Checked | Unreadable]]:
    """Every block checked, in order; with `num_proc` > 1 by that many processes. What comes out is the same."""
    if num_proc == 1:
        for rows in lots:
            yield check_block(read, rows)
        return
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool

    pool = ProcessPoolExecutor(num_proc, multiprocessing.get_context("spawn"), _leave_interrupts_to_the_main_process)
    try:
        lots, waiting = iter(lots), deque()
        for rows in itertools.chain(lots, itertools.repeat(None)):
            if rows is not None:
                waiting.append(pool.submit(check_block, read, rows))
            if rows is None and not waiting:
                break
            if rows is None or len(waiting) > 2 * num_proc:
                yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise RecipeError(
            "a worker process died (out of memory?): run the same command again to go on, with a smaller --num-proc"
        ) from error
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _leave_interrupts_to_the_main_process() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
