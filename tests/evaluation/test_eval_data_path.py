"""`--data-path`: one path for one benchmark, NAME=PATH for several."""

from __future__ import annotations

import pytest

from eval.config import EvalError, parse


def test_one_benchmark_takes_a_plain_path_or_its_name() -> None:
    assert parse(["--bench", "mathvista", "--data-path", "a/b=c"]).data_path_of("mathvista") == "a/b=c"
    assert parse(["--bench", "mathvista", "--data-path", "mathvista=d"]).data_path_of("mathvista") == "d"
    assert parse(["--bench", "mathvista"]).data_path_of("mathvista") is None


def test_several_benchmarks_take_a_path_each() -> None:
    config = parse(["--bench", "mathvista,wemath,ai2d", "--data-path", "mathvista=x,wemath=y=z"])
    assert [config.data_path_of(name) for name in config.benches] == ["x", "y=z", None]


@pytest.mark.parametrize("path", ["x", "mathvista=", "mathvist=x", "mathvista=x,y"])
def test_what_names_no_benchmark_of_the_run_is_refused(path: str) -> None:
    with pytest.raises(EvalError, match=r"data_path is .*NAME=PATH"):
        parse(["--bench", "mathvista,wemath", "--data-path", path])
