"""Credit and vision check: numbers against direct computation, masks by hand, no model call when recolouring."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from demo.compare import Columns, Sampling, race
from demo.contenders import Arena
from demo.credit import IMPOSSIBLE, Credit, as_json, credit_of, finite, from_json, recolour
from demo.errors import DemoError
from demo.examples import held_out
from demo.service import Answered, Service
from demo.views.credit import counts_of, credit_view, piece_of
from demo.views.sight import sight_view
from demo.vision import answer_tokens, sight_of

BY_HAND = Credit(
    tokens=("a", "b", "c", "d"),
    student_logprobs=(-0.1, -0.2, -3.0, -1.0),
    teacher_logprobs=(-0.1, -4.2, -1.0, -2.5),
    entropy=(0.1, 0.4, 0.3, 0.2),
)


@pytest.fixture(scope="module")
def columns(arena: Arena) -> Columns:
    *_, columns = race(arena, arena.contenders, held_out(21), Sampling())
    return columns


def test_rewards_are_the_two_models_own_log_probs(arena: Arena, columns: Columns) -> None:
    rollout = columns[1].rollout
    assert rollout is not None
    credit = credit_of(arena, "student", rollout)
    for role, given_values in (("student", credit.student_logprobs), ("teacher", credit.teacher_logprobs)):
        prompt = rollout.prompt
        ids = torch.cat([prompt.ids, rollout.response_ids])[None]
        types = torch.cat([prompt.token_types, torch.zeros_like(rollout.response_ids)])[None]
        with torch.no_grad():
            logits = arena[role].model.policy.model(input_ids=ids, mm_token_type_ids=types, **prompt.vision).logits
        plain = logits[0, len(prompt.ids) - 1 : -1].log_softmax(-1)
        expected = plain.gather(-1, rollout.response_ids[:, None])[:, 0]
        assert torch.tensor(given_values) == pytest.approx(expected, abs=2e-4)
    assert "".join(credit.tokens) == columns[1].text


def test_the_student_as_its_own_teacher_gets_nothing(arena: Arena, columns: Columns) -> None:
    twin = replace(arena, contenders=(arena["student"], replace(arena["before"], role="teacher")))
    rollout = columns[1].rollout
    assert rollout is not None
    assert credit_of(twin, "student", rollout).rewards == pytest.approx([0.0] * len(rollout.response_ids), abs=1e-4)


def test_floor_clipping_and_masks_by_hand() -> None:
    signal = recolour(BY_HAND, 0.3, 0.5)
    assert signal.floor == pytest.approx(math.log(0.3) / 0.7)  # -1.72
    assert BY_HAND.rewards == pytest.approx((0.0, -4.0, 2.0, -1.5))
    assert signal.clipped == (False, True, False, False) and signal.explored == (True, False, True, True)
    assert signal.refined == (False, True, True, False)  # the two of the highest entropy
    assert signal.advantages == pytest.approx((0.0, signal.floor, 2.0, -1.5))
    assert recolour(BY_HAND, 0.9, 0.01).clipped == (False, True, False, True)  # a floor of -1.05
    assert sum(recolour(BY_HAND, 0.9, 0.01).refined) == 1


def test_recolouring_calls_no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    from reopold_vl.policy import Policy

    monkeypatch.setattr(Policy, "hidden_states", lambda *args, **named: pytest.fail("a model was called"))
    recolour(BY_HAND, 0.5, 0.5)


@pytest.mark.parametrize(("mixture", "share"), [(0, 0.2), (1, 0.2), (0.3, 0), (0.3, 1.01), ("0.3", 0.2), (True, 0.2)])
def test_lambda_and_beta_have_bounds(mixture: float, share: float) -> None:
    with pytest.raises(ValueError, match=r"lambda|beta"):
        recolour(BY_HAND, mixture, share)


def test_json_there_and_back() -> None:
    stored = json.loads(json.dumps(as_json(BY_HAND, recolour(BY_HAND, 0.3, 0.5)), allow_nan=False))
    assert from_json(stored) == BY_HAND
    for broken in (None, {}, {"tokens": []}, {"tokens": [{"token": "a"}]}, {"tokens": 3}):
        with pytest.raises(DemoError):
            from_json(broken)
    stored["tokens"][0]["entropy"] = float("inf")
    with pytest.raises(DemoError, match="entropy: allowed are finite numbers"):
        from_json(stored)


def test_impossible_tokens_have_a_number_and_nan_is_refused() -> None:
    assert finite([-math.inf, -1.0]) == (IMPOSSIBLE, -1.0)
    with pytest.raises(DemoError, match="NaN"):
        finite([math.nan])


def test_no_credit_without_a_common_vocabulary(arena: Arena, columns: Columns) -> None:
    other = replace(arena, mismatch="tokenizers differ: id 5")
    rollout = columns[1].rollout
    assert rollout is not None
    with pytest.raises(DemoError, match="no credit view for this pair: tokenizers differ: id 5"):
        credit_of(other, "student", rollout)


@given(st.lists(st.floats(-20, 20, allow_nan=False), max_size=50))
def test_every_reward_is_in_the_histogram(rewards: list[float]) -> None:
    assert sum(counts_of(rewards)) == len(rewards)


def test_the_bin_of_agreement_has_zero_in_its_middle() -> None:
    counts = counts_of([0.0, 0.12, -0.12])
    assert max(counts) == 3


def test_the_view_shows_every_token_and_escapes_it() -> None:
    credit = replace(BY_HAND, tokens=("<b>", "${x}", '"', "{{y}}"))
    html = credit_view(credit, recolour(credit, 0.3, 0.5))
    assert html.count('class="rv-t ') >= 4 and html.count('tabindex="0"') == 4
    assert "<b>" not in html and "${" not in html and "{{" not in html
    assert "&lt;b&gt;" in html and "floor -1.72" in html and "1 of 4" in html


def test_the_view_says_what_the_teacher_objects_to() -> None:
    html = credit_view(BY_HAND, recolour(BY_HAND, 0.3, 0.5))
    assert "<strong>b</strong> (token 2)" in html and "81.9 %" in html and "1.5 %" in html
    agreed = replace(BY_HAND, teacher_logprobs=BY_HAND.student_logprobs)
    assert "about as readily" in credit_view(agreed, recolour(agreed, 0.3, 0.5))


def test_a_part_of_a_character_is_not_the_end_of_the_answer() -> None:
    assert [piece_of(("", "é", ""), index) for index in range(3)] == ["⋯", "é", "∎"]


def test_a_token_that_the_teacher_rules_out_is_not_averaged_away() -> None:
    impossible = replace(BY_HAND, teacher_logprobs=(-0.1, IMPOSSIBLE, -1.0, -2.5))
    assert "<dd>−∞</dd>" in credit_view(impossible, recolour(impossible, 0.3, 0.5))


def test_out_of_memory_while_scoring_is_one_line(
    service: Service, columns: Columns, monkeypatch: pytest.MonkeyPatch
) -> None:
    import demo.credit
    import demo.vision

    def full(*args: object, **named: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of\nmemory")

    monkeypatch.setattr(demo.credit, "credit_of", full)
    monkeypatch.setattr(demo.vision, "sight_of", full)
    answered = Answered(held_out(21), columns)
    for score in (service.credit, service.vision):
        with pytest.raises(DemoError, match=r"^CUDA out of memory$"):
            score(answered, "student")


def test_an_answer_is_scored_once(service: Service, columns: Columns, monkeypatch: pytest.MonkeyPatch) -> None:
    answered = Answered(held_out(21), columns)
    first = service.credit(answered, "student")
    monkeypatch.setattr("demo.credit.credit_of", lambda *args: pytest.fail("scored again"))
    assert service.credit(answered, "student") is first


def test_sight_is_the_difference_of_three_scorings(arena: Arena, columns: Columns) -> None:
    rollout = columns[2].rollout
    assert rollout is not None
    sight = sight_of(arena, "teacher", rollout)
    assert sight.seen == pytest.approx(rollout.logprobs.tolist(), abs=2e-4)
    assert sum(sight.drops("blurred")) > 5 and sum(sight.drops("removed")) > 5
    answer = "".join(sight.tokens[index] for index in sight.answer).strip()
    assert columns[2].text.endswith(f"Answer: {answer}")
    assert 0 <= (sight.answer_probability("removed") or 0) <= (sight.answer_probability("seen") or 0) <= 1
    assert "nats" in sight_view(sight)


def test_sight_needs_a_picture(arena: Arena) -> None:
    sample = replace(held_out(0), images=())
    *_, (column,) = race(arena, [arena["student"]], sample, Sampling(max_new_tokens=4))
    assert column.rollout is not None
    with pytest.raises(DemoError, match="no picture"):
        sight_of(arena, "student", column.rollout)


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        (("1", "+", "2", ".", " Answer", ":", " ", "1", "2", ""), (7, 8)),
        (("Answer", ": ", "row 2", ",", " column 1"), (2, 3, 4)),
        (("no", " idea"), ()),
        ((), ()),
    ],
)
def test_where_the_final_answer_stands(tokens: tuple[str, ...], expected: tuple[int, ...]) -> None:
    assert answer_tokens(tokens) == expected
