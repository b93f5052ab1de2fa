"""The question types about handwritten numbers: sums, ranges, comparing with a limit, reading and adding numbers."""

from __future__ import annotations

from random import Random

from reopold_vl.zoo.questions import CELLS, ITEMS, Question, by_rows, cell_marks, line_of
from reopold_vl.zoo.render import SIDE, Grid


def _digits(rng: Random, length: int = CELLS) -> list[str]:
    return [str(rng.randrange(10)) for _ in range(length)]


def _number(seen: Grid, row: int) -> str:
    """The digits of a row from left to right, read as one number; shapes and empty cells are skipped."""
    return "".join(word for word in line_of(seen, "row", row) if word.isdigit())


def _sum_or_range(rng: Random) -> tuple[Grid, str, int]:
    """A grid with digits along one row or column and anything elsewhere, and the name of that line."""
    axis, number = rng.choice(["row", "column"]), rng.randint(1, 3)
    grid = [word if rng.random() < 0.75 else rng.choice(ITEMS) for word in _digits(rng)]
    for step, digit in enumerate(_digits(rng, SIDE)):
        grid[(number - 1) * SIDE + step if axis == "row" else step * SIDE + number - 1] = digit
    return tuple(grid), axis, number


def total(rng: Random) -> Question:
    """The sum of the three digits of a row or column."""
    grid, axis, number = _sum_or_range(rng)

    def solve(seen: Grid) -> str:
        a, b, c = (int(word) for word in line_of(seen, axis, number))
        return f"{a}+{b}+{c}={a + b}+{c}={a + b + c}. Answer: {a + b + c}"

    return Question(grid, f"What is the sum of {axis} {number}?", solve)


def spread(rng: Random) -> Question:
    """The largest less the smallest of the three digits of a row or column."""
    grid, axis, number = _sum_or_range(rng)

    def solve(seen: Grid) -> str:
        values = [int(word) for word in line_of(seen, axis, number)]
        high, low = max(values), min(values)
        return f"{','.join(map(str, values))}: {high}-{low}={high - low}. Answer: {high - low}"

    return Question(grid, f"What is the range of {axis} {number}?", solve)


def larger(rng: Random) -> Question:
    """How many of nine digits are larger than a limit."""
    limit = rng.randint(2, 7)

    def solve(seen: Grid) -> str:
        marks = cell_marks(seen, lambda word: int(word) > limit)
        return f"{by_rows(seen)}: {marks}={marks.count('1')}. Answer: {marks.count('1')}"

    return Question(tuple(_digits(rng)), f"How many digits are larger than {limit}?", solve)


def _number_row(rng: Random, length: int) -> list[str]:
    """Three cells that hold a number of `length` digits without a leading zero, and empty cells or shapes."""
    row = [str(rng.randint(1, 9)), *_digits(rng, length - 1)]
    while len(row) < SIDE:
        row.insert(rng.choice([0, len(row)]), "empty" if rng.random() < 0.5 else rng.choice(ITEMS))
    return row


def largest(rng: Random) -> Question:
    """The largest of three numbers of up to three digits, one per row."""
    lengths = [rng.randint(1, 3)] * 3 if rng.random() < 0.5 else [rng.randint(1, 3) for _ in range(3)]

    def solve(seen: Grid) -> str:
        numbers = [_number(seen, row) for row in (1, 2, 3)]
        return f"{', '.join(numbers)}. Answer: {max(numbers, key=int)}"

    grid = [word for length in lengths for word in _number_row(rng, length)]
    return Question(tuple(grid), "What is the largest number in a row?", solve)


def plus(rng: Random) -> Question:
    """The sum of two handwritten numbers of two digits, added in columns from the right."""
    first, second = rng.sample([1, 2, 3], 2)

    def solve(seen: Grid) -> str:
        a, b = _number(seen, first), _number(seen, second)
        ones = int(a[1]) + int(b[1])
        tens = int(a[0]) + int(b[0]) + ones // 10
        return f"{a}+{b}: {a[1]}+{b[1]}={ones}, {a[0]}+{b[0]}+{ones // 10}={tens}. Answer: {int(a) + int(b)}"

    grid = [word for _ in range(SIDE) for word in _number_row(rng, 2)]
    return Question(tuple(grid), f"What is row {first} plus row {second}?", solve)
