"""The eleven question types: each draws a grid and a question, and can tell the steps to the answer for any grid.

A type is one function `(rng) -> Question`. `Question.solve` is a function of what is *seen*: on the true grid it writes
the gold steps, on a misread grid the steps of somebody who looked too hastily (see `hasty.py`). Steps are short (at
most about 37 tokens), mark every cell that they use, and end in "Answer: ...".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from reopold_vl.zoo.render import COLOURS, SHAPES, SIDE, Grid

CELLS = SIDE * SIDE
ITEMS = tuple(f"{colour} {shape}" for colour in COLOURS for shape in SHAPES)


@dataclass(frozen=True)
class Question:
    """A grid of nine words, what is asked about it, and the step-by-step answer as a function of the grid seen."""

    grid: Grid
    text: str
    solve: Callable[[Grid], str]


def by_rows(parts: Sequence[str]) -> str:
    """Nine parts row by row: "123,456;789". Each row follows another mark, so the marks so far tell where one is.

    With one separator for all rows, a tiny model needs several times more samples until it keeps its place.
    """
    rows = ["".join(parts[i : i + SIDE]) for i in range(0, CELLS, SIDE)]
    return f"{rows[0]},{rows[1]};{rows[2]}"


def cell_marks(seen: Grid, wanted: Callable[[str], bool]) -> str:
    """One mark per cell: "010,000;100"."""
    return by_rows(["1" if wanted(word) else "0" for word in seen])


def line_of(seen: Grid, axis: str, number: int) -> Grid:
    """The three cells of row or column `number` (from 1)."""
    first = number - 1
    return seen[first * SIDE : (first + 1) * SIDE] if axis == "row" else seen[first::SIDE]


def _describes(word: str, quality: str) -> bool:
    return quality in word.split()


def _plural(quality: str) -> str:
    return f"{quality} shapes" if quality in COLOURS else f"{quality}s"


def _scatter(rng: Random, wanted: list[tuple[str, int]]) -> Grid:
    """A grid with exactly n cells of each wanted quality, else empty cells and shapes of other qualities."""
    cells: list[str] = []
    qualities = [quality for quality, _ in wanted]
    for quality, count in wanted:
        fitting = [i for i in ITEMS if _describes(i, quality) and sum(_describes(i, q) for q in qualities) == 1]
        cells += [rng.choice(fitting) for _ in range(count)]
    others = [item for item in ITEMS if not any(_describes(item, quality) for quality in qualities)]
    cells += ["empty" if rng.random() < 0.25 else rng.choice(others) for _ in range(CELLS - len(cells))]
    rng.shuffle(cells)
    return tuple(cells)


def _two_qualities(rng: Random) -> tuple[str, str]:
    first, second = rng.sample(list(COLOURS) if rng.random() < 0.5 else list(SHAPES), 2)
    return first, second


def _tally(seen: Grid, quality: str) -> tuple[str, int]:
    """The marks with their sum ("red 010,000;100=2.") and the sum."""
    count = sum(_describes(word, quality) for word in seen)
    return f"{quality} {cell_marks(seen, lambda word: _describes(word, quality))}={count}.", count


def count(rng: Random) -> Question:
    """How many cells have a quality; 0 to 5, equally often."""
    quality = rng.choice([*COLOURS, *SHAPES])

    def solve(seen: Grid) -> str:
        tally, number = _tally(seen, quality)
        return f"{tally} Answer: {number}"

    return Question(_scatter(rng, [(quality, rng.randint(0, 5))]), f"How many {_plural(quality)} are there?", solve)


def compare(rng: Random) -> Question:
    """Which of two qualities is more frequent; a tie in one of five."""
    first, second = _two_qualities(rng)
    low = rng.randint(0, 3)
    numbers = [low, low] if rng.random() < 0.2 else [low, rng.randint(low + 1, 5)]
    rng.shuffle(numbers)

    def solve(seen: Grid) -> str:
        (tally1, number1), (tally2, number2) = _tally(seen, first), _tally(seen, second)
        answer = first if number1 > number2 else second if number2 > number1 else "same"
        return f"{tally1} {tally2} Answer: {answer}"

    grid = _scatter(rng, [(first, numbers[0]), (second, numbers[1])])
    return Question(grid, f"Are there more {_plural(first)} or {_plural(second)}?", solve)


def difference(rng: Random) -> Question:
    """How many more of one quality than of another; 0 to 4, equally often."""
    first, second = _two_qualities(rng)
    gap = rng.randint(0, 4)
    low = rng.randint(0, (CELLS - gap) // 2 if gap > 2 else 3)

    def solve(seen: Grid) -> str:
        (tally1, number1), (tally2, number2) = _tally(seen, first), _tally(seen, second)
        return f"{tally1} {tally2} Answer: {abs(number1 - number2)}"

    grid = _scatter(rng, [(first, low + gap), (second, low)])
    return Question(grid, f"How many more {_plural(first)} than {_plural(second)}?", solve)


def which_row(rng: Random) -> Question:
    """Which row has most of a quality; never a tie."""
    quality = rng.choice([*COLOURS, *SHAPES])
    fitting = [item for item in ITEMS if _describes(item, quality)]
    others = [item for item in ITEMS if not _describes(item, quality)]
    most = rng.randint(1, 3)
    counts = [most, rng.randrange(most), rng.randrange(most)]
    rng.shuffle(counts)
    grid: list[str] = []
    for number in counts:
        filler = ["empty" if rng.random() < 0.25 else rng.choice(others) for _ in range(SIDE - number)]
        row = [rng.choice(fitting) for _ in range(number)] + filler
        rng.shuffle(row)
        grid += row

    def solve(seen: Grid) -> str:
        tallies = [sum(_describes(word, quality) for word in line_of(seen, "row", n)) for n in (1, 2, 3)]
        marks = cell_marks(seen, lambda word: _describes(word, quality))
        listed = ",".join(str(tally) for tally in tallies)
        return f"{quality} {marks}={listed}. Answer: {tallies.index(max(tallies)) + 1}"

    return Question(tuple(grid), f"Which row has the most {_plural(quality)}?", solve)


def _mixed_cell(rng: Random) -> str:
    draw = rng.random()
    return "empty" if draw < 0.12 else str(rng.randrange(10)) if draw < 0.6 else rng.choice(ITEMS)


def find(rng: Random) -> Question:
    """In which row and column the one cell with a given shape or digit is."""
    target = str(rng.randrange(10)) if rng.random() < 0.4 else rng.choice(ITEMS)
    grid = []
    while len(grid) < CELLS - 1:
        word = _mixed_cell(rng)
        if word != target:
            grid.append(word)
    grid.insert(rng.randrange(CELLS), target)

    def solve(seen: Grid) -> str:
        place = seen.index(target) if target in seen else 0
        marks = cell_marks(seen, lambda word: word == target)
        return f"{target} {marks}. Answer: row {place // SIDE + 1}, column {place % SIDE + 1}"

    return Question(tuple(grid), f"Where is the {target}?", solve)


def look_up(rng: Random) -> Question:
    """What is in a given cell."""
    row, column = rng.randint(1, 3), rng.randint(1, 3)

    def solve(seen: Grid) -> str:
        words = line_of(seen, "row", row)
        return f"row {row}: {', '.join(words)}. Answer: {words[column - 1]}"

    grid = tuple(_mixed_cell(rng) for _ in range(CELLS))
    return Question(grid, f"What is in row {row}, column {column}?", solve)
