"""The studies by name: what `python -m reopold_vl.compare --preset NAME` runs on the embedded pair."""

from __future__ import annotations

from dataclasses import replace

from reopold_vl.compare.study import Arm, Study
from reopold_vl.presets import EMBEDDED

# Curves need more held-out problems than a progress line does: 1,100 have a standard error of about 1 point at 90 %.
BASE = replace(EMBEDDED, data=replace(EMBEDDED.data, validation_rows=1100), eval_every=3, save_every=0, keep=1)

REOPOLD = {"mixture": 0.2, "entropy_share": 0.2, "switch_step": 18}  # as the embedded preset has them


def _reopold(name: str, **settings: object) -> Arm:
    return Arm(name, "reopold", {**REOPOLD, **settings})


HEADLINE = Study(
    name="headline",
    title="Baselines and REOPOLD on the embedded pair",
    base=BASE,
    arms=(
        Arm("sft", "sft"),
        Arm("grpo", "grpo"),
        Arm("reverse_kl", "reverse_kl"),
        Arm("gkd", "gkd"),
        _reopold("reopold"),
    ),
    seeds=8,
    reference="grpo",
)

ABLATION = Study(
    name="ablation",
    title="REOPOLD's parts and settings, one at a time",
    base=BASE,
    arms=(
        _reopold("both phases"),
        # A mixture this small has a floor of about -691 nats: no token meets it.
        _reopold("floor only", entropy_share=1.0, switch_step=0),
        _reopold("exploration only", switch_step=None),
        _reopold("entropy mask only", mixture=1e-300, switch_step=0),
        Arm("neither", "reverse_kl"),
        *(_reopold(f"lambda {value}", mixture=value) for value in (0.05, 0.1, 0.3, 0.5)),
        *(_reopold(f"beta {value}", entropy_share=value) for value in (0.1, 0.5, 1.0)),
        *(_reopold(f"switch at {value}", switch_step=value) for value in (0, 20, 40, None)),
        *(Arm(f"n {n}", "reopold", REOPOLD, {"rollout": {"n": n}, "prompts_per_step": 128 // n}) for n in (2, 8)),
        *(Arm(f"updates {count}", "reopold", REOPOLD, {"optim": {"updates_per_batch": count}}) for count in (2, 4)),
    ),
    seeds=4,
)

RIVALS = Study(
    name="rivals",
    title="All objectives at their published settings",
    base=BASE,
    arms=(
        _reopold("reopold"),
        Arm("reopold, paper", "reopold", {"mixture": 0.3, "entropy_share": 0.2, "switch_step": 20}),
        *(Arm(name, name) for name in ("reverse_kl", "grpo", "discounted", "iw_opd", "exopd", "vopd", "tip")),
        *(Arm(name, name) for name in ("verifier_mix", "verifier_gate")),
        *(Arm(name, name) for name in ("gkd", "eopd", "tropd", "aopd", "topk_reverse_kl", "va_opd", "vgs", "sft")),
    ),
    seeds=4,
)

QUICK = Study(
    name="quick",
    title="A look in two minutes: fewer steps, few problems, two seeds",
    base=replace(
        BASE, steps=10, eval_every=5, data=replace(BASE.data, validation_rows=220, test_rows=440), prompts_per_step=16
    ),
    arms=(Arm("reverse_kl", "reverse_kl"), _reopold("reopold", switch_step=5)),
    seeds=2,
    thresholds=(0.6, 0.7),
)

STUDIES = {study.name: study for study in (QUICK, HEADLINE, ABLATION, RIVALS)}
