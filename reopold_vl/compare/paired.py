"""What several seeds say together: differences between arms on the same seeds, and question types that got worse."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np

from reopold_vl.compare.curves import mean_interval
from reopold_vl.compare.study import Arm, Study
from reopold_vl.config_file import to_dict

# Objectives that never look at the teacher's log-probs of the sampled tokens (`rewards`): these are scored for the log
# alone, so their CPU time leaves the scoring out. GKD and its like ask the teacher again in the gradient pass, which
# stays in. A test holds this list to the objectives.
SCORED_FOR_THE_LOG = frozenset({"grpo", "sft", "gkd", "eopd", "topk_reverse_kl"})

Run = Mapping[str, Any]


def interval(values: Sequence[float]) -> dict[str, Any]:
    """Mean over seeds, its bootstrap interval and the values themselves."""
    mean, low, high = mean_interval(values)
    return {"mean": mean, "low": low, "high": high, "values": list(values)}


def paired(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, Any]:
    """ours - theirs, seed by seed: mean, bootstrap interval over seeds, how many seeds each side won, and `p` of
    `sign_flips`."""
    differences = [mine - other for mine, other in zip(ours, theirs, strict=True)]
    return {
        **interval(differences),
        "wins": sum(difference > 0 for difference in differences),
        "losses": sum(difference < 0 for difference in differences),
        "ties": sum(difference == 0 for difference in differences),
        "p": sign_flips(differences),
    }


def to_teacher(ours: Sequence[Sequence[bool]], teacher: Sequence[bool], *, resamples: int = 2_000) -> dict[str, Any]:
    """The students' accuracy minus the teacher's, [seeds, problems] and [problems]; its interval is over both.

    There is one teacher, so that the drawing of the problems moves the difference as much as the seeds do.
    """
    gaps = np.asarray(ours, dtype=float) - np.asarray(teacher, dtype=float)
    seeds, problems = gaps.shape
    generator = np.random.default_rng(0)
    counts = generator.multinomial(problems, np.full(problems, 1 / problems), size=resamples)
    of_seeds = counts @ gaps.T / problems  # [resamples, seeds]
    drawn = np.take_along_axis(of_seeds, generator.integers(seeds, size=(resamples, seeds)), axis=1).mean(1)
    low, high = np.percentile(drawn, (2.5, 97.5))
    return {"mean": float(gaps.mean()), "low": float(low), "high": float(high), "values": gaps.mean(1).tolist()}


def sign_flips(differences: Sequence[float]) -> float:
    """Two-sided permutation test of paired differences: the share of all 2^n signs with a sum at least as far from 0.

    Exact to 12 seeds, of 10,000 draws beyond. Its lowest value is 2 / 2^n: four seeds can at best give 0.125.
    """
    values = np.asarray(differences, dtype=float)
    if len(values) <= 12:
        signs = np.array(list(product((-1.0, 1.0), repeat=len(values))))
    else:
        signs = np.random.default_rng(0).choice((-1.0, 1.0), (10_000, len(values)))
    return float((np.abs(signs @ values) >= abs(values.sum()) - 1e-12).mean())


def pair_of(study: Study, arm: Arm) -> str:
    """Models and data of an arm's runs: what must agree for two arms to be compared."""
    values = to_dict(study.run(arm, 0))
    return json.dumps({name: values[name] for name in ("student", "teacher", "data", "images")}, default=str)


def pair_name(study: Study, arm: Arm) -> str:
    """An arm's pair, to be read."""
    config = study.run(arm, 0)
    return f"student {config.student.path}, teacher {config.teacher.path}"


def rivals_of(study: Study, arm: Arm, pairs: Mapping[str, str]) -> list[Arm]:
    """The arms of the same pair that `arm` is compared with: the study's reference, and reverse_kl.

    `pairs` has each arm's `pair_of`. Of several reverse_kl arms it is the one that was changed in the same way as
    `arm`, else the first.
    """
    peers = [other for other in study.arms if pairs[other.name] == pairs[arm.name]]
    plain = [other for other in peers if other.objective == "reverse_kl"]
    plain = [other for other in plain if dict(other.changes) == dict(arm.changes)] or plain
    chosen = [other for other in peers if other.name == study.reference] + plain[:1]
    names = list(dict.fromkeys(other.name for other in chosen if other.name != arm.name))
    return [other for name in names for other in peers if other.name == name]


def by_type(runs: Sequence[Run]) -> dict[str, dict[str, Any]]:
    """Test accuracy by question type: before, teacher, and after, as a mean over seeds with its interval.

    `falls` where the interval lies below the start, `lowest` the worst seed's, `num` the type's problems.
    """
    found = {}
    for name, before in runs[0]["types_before"].items():
        after = interval([run["types_after"][name] for run in runs])
        found[name] = {
            "before": before,
            "teacher": runs[0]["types_teacher"][name],
            "num": runs[0]["types_num"][name],
            "after": after["mean"],
            "low": after["low"],
            "high": after["high"],
            "lowest": min(after["values"]),
            "falls": after["high"] < before,
        }
    return found


def mean_lines(runs: Sequence[Run]) -> dict[str, dict[str, list[float]]]:
    """Of each watched metric, the steps at which it was logged and its mean over seeds there."""
    found: dict[str, dict[str, list[float]]] = {}
    for name in runs[0]["watched"]:
        values: dict[int, list[float]] = {}
        for run in runs:
            for step, value in run["watched"][name]:
                values.setdefault(step, []).append(value)
        steps = sorted(values)
        means = [float(f"{sum(values[step]) / len(values[step]):.6g}") for step in steps]
        found[name] = {"steps": [float(step) for step in steps], "mean": means}
    return found
