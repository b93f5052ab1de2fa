"""Mixtures: shares that hold at every prefix, the same order every time, one-line errors of a wrong recipe.yaml."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_recipes.mixture import mix, open_mixture
from data_recipes.stream import Stream, open_stream
from data_recipes.types import RecipeError


def questions(stream: Stream, skip: int = 0) -> list[str]:
    return [stream.recipe.read(row).question for _, row in stream.rows_from(skip)]


def ids(stream: Stream, skip: int = 0) -> list[str]:
    return [stream.recipe.read(row).id for _, row in stream.rows_from(skip)]


def write_lines(file: Path, count: int) -> None:
    rows = ({"question": f"q{n}", "answer": str(n), "image": f"{n}.png"} for n in range(count))
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def recipe_yaml(folder: Path, text: str) -> Path:
    (folder / "recipe.yaml").write_text(text)
    return folder / "recipe.yaml"


def test_a_mixture_keeps_its_shares_and_its_order(tmp_path: Path) -> None:
    for name, count in (("a", 300), ("b", 300)):
        write_lines(tmp_path / f"{name}.jsonl", count)
    path = recipe_yaml(
        tmp_path,
        "- {recipe: local, data_path: a.jsonl, weight: 3}\n"
        "- {recipe: local, data_path: b.jsonl}\n- {recipe: embedded, split: test, limit: 50, weight: 0.5}\n",
    )
    stream = open_mixture(path, seed=1)
    found = ids(stream)
    assert len(found) == stream.total == len(set(found)) and [n for n, _ in stream.rows] == list(range(len(found)))
    parts = [id.split("/")[0] for id in found]
    for end in (90, 180, len(parts)):
        shares = [parts[:end].count(name) for name in ("local-1", "local-2", "embedded")]
        assert shares == pytest.approx([end * 3 / 4.5, end / 4.5, end * 0.5 / 4.5], abs=1.5)
    assert parts.count("local-1") == 300 and stream.notes[0] == "local-1: 300 of its 300 rows"
    assert ids(open_mixture(path, seed=1), 123) == found[123:]
    assert ids(open_mixture(path, seed=2)) != found
    assert len(list(open_mixture(path, limit=7).rows)) == 7
    assert "local-1: yours to state" in stream.recipe.licence


def test_all_exhausted_uses_every_row(tmp_path: Path) -> None:
    for name, count in (("a", 5), ("b", 40)):
        write_lines(tmp_path / f"{name}.jsonl", count)
    text = "stop: all_exhausted\nparts:\n- {recipe: local, data_path: a.jsonl}\n- {recipe: local, data_path: b.jsonl}\n"
    stream = open_mixture(recipe_yaml(tmp_path, text))
    assert stream.total == 45 == len(questions(stream)) and questions(stream, 20) == questions(stream)[20:]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- {recipe: local, wieght: 2}", "unknown field 'wieght'; .* did you mean weight"),
        ("- {recipe: embeded}", "part 1 .*did you mean embedded"),
        ("- {weight: 2}", "part 1: recipe is None: allowed is a name"),
        ("- {recipe: embedded, weight: 0}", "weight is 0: allowed is a number above 0"),
        ("- {recipe: embedded, weight: .inf}", "weight is inf"),
        ("- {recipe: embedded, limit: 1.5}", "limit is 1.5: allowed is a whole number"),
        ("- {recipe: embedded, split: val}", "part 1 .*split is 'val': embedded has train"),
        ("stop: never\nparts: [{recipe: embedded}]", "stop is 'never': allowed are first_exhausted"),
        ("{}", "a mixture is a list of parts"),
        ("- [", "unreadable"),
        ("!!python/object/apply:os.system [ls]", "unreadable"),
    ],
)
def test_a_wrong_mixture_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        open_mixture(recipe_yaml(tmp_path, text))
    assert "\n" not in str(caught.value)


@given(
    st.lists(st.tuples(st.integers(1, 20), st.floats(0.1, 9)), min_size=1, max_size=4),
    st.integers(0, 30),
    st.booleans(),
    st.sampled_from(["first_exhausted", "all_exhausted"]),
)
def test_a_resumed_mixture_goes_on_exactly(parts: list[tuple[int, float]], skip: int, known: bool, stop: str) -> None:
    streams = [open_stream("embedded", limit=count, seed=place) for place, (count, _) in enumerate(parts)]
    if not known:
        streams = [replace(stream, total=None) for stream in streams]
    mixed = mix(streams, [weight for _, weight in parts], stop=stop, seed=3, name="test")
    whole = [(number, row["seed"], row["index"]) for number, row in mixed.rows]
    assert [(number, row["seed"], row["index"]) for number, row in mixed.rows_from(skip)] == whole[skip:]
    assert mixed.total == (len(whole) if known else None)
    assert stop == "first_exhausted" or len(whole) == sum(count for count, _ in parts)
