"""A golden run: tiny seeded models, a few steps on the CPU; its numbers are committed and compared.

It depends on no shipped weights. After a change that is meant to change the numbers, write them anew and look at the
difference before committing it:

    OMP_NUM_THREADS=1 python tests/test_golden.py
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import pytest

GOLDEN = Path(__file__).parent / "golden"
OBJECTIVES = {
    "reopold": ("--objective.switch-step", "2", "--objective.mixture", "0.2"),  # steps of both phases
    "reverse_kl": (),
}
SHOWN = ("loss", "optim/grad_norm", "reward/mean", "reward/p10", "student/entropy", "mask/kept", "rollout/length")
# The same machine repeats every digit; other CPUs sum in another order. The first steps of Adam enlarge that a little.
RELATIVE, ABSOLUTE = 1e-4, 1e-5


def golden_run(objective: str, root: Path) -> list[dict[str, float]]:
    """Four steps of four prompts with four answers, float32, one thread."""
    from cli_help import read_lines, small_pair, small_rows

    from reopold_vl.train import main

    flags = ["--data.path", str(small_rows(root)), "--data.validation-rows", "0", "--data.test-rows", "0"]
    flags += ["--steps", "4", "--prompts-per-step", "4", "--rollout.n", "4", "--rollout.max-new-tokens", "12"]
    flags += ["--optim.lr", "0.0002", "--optim.updates-per-batch", "2", "--seed", "0", "--threads", "1"]
    flags += ["--optim.schedule", "constant_with_warmup"]
    flags += ["--objective", objective, *OBJECTIVES[objective], "--output-dir", str(root), "--name", "golden"]
    assert main([*small_pair(root), *flags]) == 0
    return [{name: record[name] for name in SHOWN} for record in read_lines(root / "golden" / "metrics.jsonl")[1:]]


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_golden_run(objective: str, tmp_path: Path) -> None:
    expected = json.loads((GOLDEN / f"{objective}.json").read_text())
    found = golden_run(objective, tmp_path)
    assert len(found) == len(expected) == 4
    for step, (now, then) in enumerate(zip(found, expected, strict=True), start=1):
        assert now == pytest.approx(then, rel=RELATIVE, abs=ABSOLUTE), f"step {step}"


def test_golden_runs_tell_objectives_apart() -> None:
    """Both start from the same answers, so the first rewards agree and the losses do not."""
    first = [json.loads((GOLDEN / f"{objective}.json").read_text())[0] for objective in OBJECTIVES]
    assert first[0]["reward/mean"] == first[1]["reward/mean"] and first[0]["loss"] != first[1]["loss"]


def regenerate() -> None:
    sys.path.insert(0, str(GOLDEN.parents[1]))
    GOLDEN.mkdir(exist_ok=True)
    for objective in OBJECTIVES:
        with tempfile.TemporaryDirectory() as root:
            numbers = golden_run(objective, Path(root))
        (GOLDEN / f"{objective}.json").write_text(json.dumps(numbers, indent=1) + "\n")
        print(f"wrote {GOLDEN / objective}.json")


if __name__ == "__main__":
    regenerate()
