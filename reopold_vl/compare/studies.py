"""The studies by name: what `python -m reopold_vl.compare --preset NAME` runs on the embedded pair and its variants.

The protocol of all of them (docs/results.md): the student's skill is there and its habit is wrong, 7,680 rollouts or
half of them, the paper's lambda, beta and T_switch for REOPOLD, and for each objective the learning rate that `tuning`
found on the validation split. The test split is read when a run has ended, and nothing is chosen by it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from reopold_vl.compare.study import VARIANT, Arm, Study
from reopold_vl.config import StudentConfig, TeacherConfig
from reopold_vl.presets import EMBEDDED

SHIPPED = replace(
    EMBEDDED,
    data=replace(EMBEDDED.data, validation_rows=440),
    # Early points lie close together: that is where the curves part.
    eval_steps=(2, 4, 6, 9, 12, 16, 20, 26, 32, 40, 50),
    save_every=0,
    keep=1,
)
# The shipped student brings its skill out within a few steps whatever it is told; this one has almost lost it.
BASE = replace(SHIPPED, student=StudentConfig(f"{VARIANT}student-hasty"))

PAPER = {"mixture": 0.3, "entropy_share": 0.2, "switch_step": 20}  # of 60 steps, as in the paper's visual setting
RATES = (2.5e-4, 5e-4, 1e-3, 2e-3)
TUNED = {"sft": 1e-3, "grpo": 5e-4, "reverse_kl": 1e-3, "gkd": 5e-4, "reopold": 1e-3}  # by `tuning`


def _arm(name: str, objective: str, settings: Mapping[str, Any] | None = None, **changes: Any) -> Arm:
    """An arm at its objective's learning rate; the variations of policy gradients take reverse_kl's."""
    optim = {"lr": TUNED.get(objective, TUNED["reverse_kl"])} | changes.pop("optim", {})
    return Arm(name, objective, settings or {}, {"optim": optim, **changes})


def _reopold(name: str, changes: Mapping[str, Any] | None = None, **settings: Any) -> Arm:
    return _arm(name, "reopold", {**PAPER, **settings}, **(changes or {}))


# At half of the budget, T_switch is a third of it again.
_short = partial(_reopold, switch_step=10)
_floor = partial(_reopold, entropy_share=1.0, switch_step=0)  # no mask in any phase

BASELINES = (_arm("sft", "sft"), _arm("grpo", "grpo"), _arm("reverse_kl", "reverse_kl"), _arm("gkd", "gkd"))

# Where the curves are not what a study is about.
FEW = replace(BASE.data, validation_rows=220)

TUNING = Study(
    name="tuning",
    title="Learning rates, on the validation split alone",
    base=replace(BASE, data=replace(FEW, test_rows=11), eval_steps=(20, 40)),
    arms=tuple(
        Arm(f"{objective} {rate:g}", objective, PAPER if objective == "reopold" else {}, {"optim": {"lr": rate}})
        for objective in TUNED
        for rate in RATES
    ),
    seeds=1,
    first_seed=100,
)

HEADLINE = Study(
    name="headline",
    title="Baselines and REOPOLD: a student of almost lost skill",
    base=BASE,
    arms=(*BASELINES, _reopold("reopold")),
    seeds=8,
    reference="grpo",
    # Beside the usual three, some that grpo reaches: with 7,680 rollouts it does not come near the teacher here.
    thresholds=(0.6, 0.7, 0.9, 0.95, 0.99),
)

LATENT = replace(
    HEADLINE,
    name="latent",
    title="Baselines and REOPOLD: the shipped pair, whose student's skill is latent",
    base=SHIPPED,
    seeds=4,
    thresholds=Study.thresholds,
)

SHORT = replace(BASE, steps=30, eval_steps=(4, 9, 16), data=FEW)  # half of the budget: 3,840 rollouts

ABLATION = Study(
    name="ablation",
    title="REOPOLD's parts and settings, one at a time",
    base=SHORT,
    arms=(
        _short("both phases"),
        # A mixture this small has a floor of about -691 nats: no token meets it.
        _floor("floor only"),
        _short("exploration only", switch_step=None),
        _short("entropy mask only", mixture=1e-300, switch_step=0),
        _arm("neither", "reverse_kl"),
        *(_short(f"lambda {value}", mixture=value) for value in (0.05, 0.1, 0.5)),
        *(_short(f"beta {value}", entropy_share=value) for value in (0.1, 0.5, 1.0)),
        *(_short(f"switch at {value}", switch_step=value) for value in (0, 20)),
        *(_short(f"n {n}", {"rollout": {"n": n}, "prompts_per_step": 128 // n}) for n in (2, 8)),
        *(_short(f"updates {count}", {"optim": {"updates_per_batch": count}}) for count in (2, 4)),
    ),
    seeds=4,
)

VARIATIONS = ("discounted", "iw_opd", "exopd", "vopd", "tip", "verifier_mix", "verifier_gate")
DIVERGENCES = ("eopd", "tropd", "aopd", "topk_reverse_kl")
RIVALS = Study(
    name="rivals",
    title="All objectives at their published settings",
    base=SHORT,
    arms=(
        *BASELINES,
        _short("reopold"),
        *(_arm(name, name) for name in (*VARIATIONS, *DIVERGENCES, "va_opd", "vgs")),
        _arm("tropd, prefixes", "tropd", {"prefix_steps": SHORT.steps}),
    ),
    seeds=4,
    reference="grpo",
)


def _mismatch(
    name: str, title: str, teacher: str, arms: tuple[Arm, ...], max_new_tokens: int = BASE.rollout.max_new_tokens
) -> Study:
    rollout = replace(BASE.rollout, max_new_tokens=max_new_tokens)
    return Study(
        name=f"mismatch-{name}",
        title=title,
        base=replace(BASE, teacher=TeacherConfig(teacher), rollout=rollout, eval_steps=(6, 16, 32), data=FEW),
        arms=arms,
        seeds=8,
        reference="reverse_kl",
    )


# The control of both is `headline`: the same student and the shipped teacher.
PLAIN_AND_RELAXED = (_arm("reverse_kl", "reverse_kl"), _reopold("reopold"))
STYLE = _mismatch(
    "style", "A teacher that reasons in other words", f"{VARIANT}teacher-wordy", PLAIN_AND_RELAXED, max_new_tokens=80
)
ERROR = _mismatch(
    "error",
    "A teacher that is wrong in one type of question",
    f"{VARIANT}teacher-mistaken",
    (*PLAIN_AND_RELAXED, _arm("gkd", "gkd")),
)

# Added when `mismatch-style` had run, to tell its style from its teacher.
CONTROL = replace(
    STYLE,
    name="mismatch-control",
    title="The wordy teacher, and one that was trained as long in its own words",
    arms=tuple(
        _arm(f"{objective}, {role}", objective, settings, teacher={"path": f"{VARIANT}teacher-{role}"})
        for role in ("wordy", "own-words")
        for objective, settings in (("sft", {}), ("reverse_kl", {}), ("gkd", {}), ("reopold", PAPER))
    ),
    seeds=4,
    reference=None,
)

# Designed when `mismatch-control` had shown that a student cannot take over a style that it has never written.
TWO_STYLES = Study(
    name="mismatch-two-styles",
    title="A student that writes the teacher's style beside its own",
    base=replace(
        STYLE.base, student=StudentConfig(f"{VARIANT}student-two-styles"), steps=30, eval_steps=SHORT.eval_steps
    ),
    arms=(
        *BASELINES,
        _floor("floor only"),
        _short("reopold"),
    ),
    seeds=8,
    reference="grpo",
)

# Where steps are large, stale or noisy: there a floor under R and fewer tokens should matter most.
STEEP = {"lr": 4e-3}
UNBOUNDED = {"max_grad_norm": 1e9}
REGIMES: Mapping[str, Mapping[str, Any]] = {
    "one update, rate 1e-3": {},
    "rate 2e-3": {"optim": {"lr": 2e-3}},
    "rate 4e-3": {"optim": STEEP},
    "rate 4e-3, unclipped": {"optim": {**STEEP, **UNBOUNDED}},
    "4 updates": {"optim": {"updates_per_batch": 4}},
    "4 updates, rate 4e-3": {"optim": {**STEEP, "updates_per_batch": 4}},
    "8 questions a step": {"prompts_per_step": 8, "steps": 120, "eval_steps": [16, 36, 64]},
}


def _plain_and_floored(name: str, changes: Mapping[str, Any]) -> tuple[Arm, Arm]:
    return _arm(f"reverse_kl, {name}", "reverse_kl", **changes), _floor(f"floor only, {name}", changes)


REGIME = Study(
    name="regimes-steps",
    title="Where the floor and the masks should matter: large, stale and noisy steps",
    base=SHORT,
    arms=tuple(
        arm
        for name, changes in REGIMES.items()
        for arm in (
            *_plain_and_floored(name, changes),
            _short(f"reopold, {name}", changes, switch_step=10 * changes.get("steps", SHORT.steps) // SHORT.steps),
        )
    ),
    seeds=4,
)

# Designed when `regimes-steps` had shown the floor ahead in a cell of seven: seeds 4 to 7 and the lower rate are new.
UNCLIPPED = replace(
    REGIME,
    name="regimes-unclipped",
    title="The floor where gradients are not clipped",
    arms=tuple(
        arm
        for rate in (1e-3, 4e-3)
        for arm in _plain_and_floored(f"rate {rate:g}", {"optim": {"lr": rate, **UNBOUNDED}})
    ),
    seeds=8,
)

QUICK = Study(
    name="quick",
    title="A look in two minutes: fewer steps, few problems, two seeds",
    base=replace(
        SHIPPED,
        steps=10,
        eval_steps=(2, 5),
        data=replace(SHIPPED.data, validation_rows=220, test_rows=440),
        prompts_per_step=16,
    ),
    arms=(_arm("reverse_kl", "reverse_kl"), _reopold("reopold", switch_step=3)),
    seeds=2,
    thresholds=(0.6, 0.7),
)

EVERY = (QUICK, TUNING, HEADLINE, LATENT, ABLATION, RIVALS, STYLE, ERROR, CONTROL, TWO_STYLES, REGIME, UNCLIPPED)
STUDIES = {study.name: study for study in EVERY}
GROUPS = {
    "mismatch": (STYLE.name, ERROR.name, CONTROL.name, TWO_STYLES.name),
    "regimes": (REGIME.name, UNCLIPPED.name),
}
