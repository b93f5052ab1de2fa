"""Statistics against references that are not ours: scipy, brute force over all subsets, and worked examples."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from eval.sampling import by_problem, clustered, maj_at_k, mean_pass_at_k, pass_at_k, smallest_k_reaching, vote_key
from eval.stats import compare, mcnemar_exact, retention
from eval.types import Graded, Problem, Response, Status, Verdict

PAIRS = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60)


def graded(
    name: str,
    correct: bool | None,
    *,
    sample: int = 0,
    extraction: str | None = "1",
    status: Status = "answered",
    choices: tuple[str, ...] = (),
) -> Graded:
    problem = Problem(name, "How many?", "1", "number", choices=choices)
    response = Response("toy", "model", problem, sample, "key", "How many?", "text", "stop")
    verdict = None if correct is None else Verdict(extraction, "rule", correct, status)
    return Graded(response, verdict)


def votes(answers: list[str | None], gold: str, name: str = "p") -> list[Graded]:
    return [
        graded(name, answer == gold, sample=i, extraction=answer, status="answered" if answer else "unparsed")
        for i, answer in enumerate(answers)
    ]


@given(PAIRS)
def test_mcnemar_is_the_exact_binomial_test_on_discordant_pairs(pairs: list[tuple[bool, bool]]) -> None:
    a, b = [x for x, _ in pairs], [y for _, y in pairs]
    only_a, discordant = sum(x > y for x, y in pairs), sum(x != y for x, y in pairs)
    expected = binomtest(only_a, discordant, 0.5).pvalue if discordant else 1.0
    assert mcnemar_exact(a, b) == pytest.approx(expected, rel=1e-9)
    assert mcnemar_exact(b, a) == mcnemar_exact(a, b)


def test_mcnemar_of_thousands_of_pairs_neither_overflows_nor_underflows() -> None:
    a = [True] * 1600 + [False] * 1400
    assert mcnemar_exact(a, [not x for x in a]) == pytest.approx(binomtest(1400, 3000, 0.5).pvalue, rel=1e-9)


@pytest.mark.parametrize(("a", "b"), [([], []), ([True], [True, False])])
def test_pairs_that_are_none_are_refused(a: list[bool], b: list[bool]) -> None:
    for function in (mcnemar_exact, retention):
        with pytest.raises(ValueError, match=f"not {len(a)} and {len(b)}"):
            function(a, b)


def test_retention_is_the_ratio_with_an_interval_that_holds_it() -> None:
    teacher = [True] * 160 + [False] * 40
    student = [True] * 120 + [False] * 40 + [True] * 8 + [False] * 32
    found = retention(student, teacher, seed=3)
    assert found.value == pytest.approx(128 / 160)
    assert found.interval is not None
    low, high = found.interval
    # The delta method on log(ratio), with its variance for paired counts, is the reference.
    both, s, t = 120, 128, 160
    spread = math.sqrt((s + t - 2 * both) / (s * t))
    assert low == pytest.approx(0.8 * math.exp(-1.96 * spread), abs=0.02)
    assert high == pytest.approx(0.8 * math.exp(1.96 * spread), abs=0.02)
    assert retention(student, teacher, seed=3) == found


def test_retention_needs_a_teacher_that_is_sometimes_right() -> None:
    with pytest.raises(ValueError, match="none of 3"):
        retention([True, False, True], [False] * 3)
    rare = retention([True] * 10, [True] + [False] * 9)
    assert rare.value == 10 and rare.interval is None  # a third of the resamples have no right answer of the teacher


@given(st.integers(1, 9), st.data())
def test_pass_at_k_is_the_share_of_subsets_with_a_right_answer(n: int, data: st.DataObject) -> None:
    c, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    subsets = list(itertools.combinations([True] * c + [False] * (n - c), k))
    assert pass_at_k(n, c, k) == pytest.approx(sum(map(any, subsets)) / len(subsets))


def test_pass_at_k_for_many_samples_and_its_bounds() -> None:
    assert pass_at_k(1000, 1, 100) == pytest.approx(0.1)
    for n, c, k in ((4, 5, 1), (4, -1, 1), (4, 2, 0), (4, 2, 5)):
        with pytest.raises(ValueError, match="allowed are"):
            pass_at_k(n, c, k)
    groups = [votes(["1", "2", "2"], "1", "p"), votes(["2", "2", "2"], "1", "q"), [graded("r", None)]]
    found = mean_pass_at_k(groups, 2)
    assert found.value == pytest.approx((2 / 3 + 0) / 2) and found.problems == 2  # the failed input is left out


def brute_force(answers: list[str | None], gold: str, k: int) -> tuple[float, float, float]:
    """(accuracy, ties, silent) by listing all subsets."""
    results = []
    for subset in itertools.combinations(answers, k):
        counts = Counter(answer for answer in subset if answer is not None)
        winners = [answer for answer, count in counts.items() if count == max(counts.values())]
        results.append(((gold in winners) / len(winners) if winners else 0.0, len(winners) > 1, not winners))
    accuracy, ties, silent = (sum(column) / len(results) for column in zip(*results, strict=True))
    return accuracy, ties, silent


@settings(deadline=None)
@given(st.lists(st.sampled_from(["1", "2", "3", "4", None]), min_size=1, max_size=8), st.data())
def test_maj_at_k_equals_enumeration(answers: list[str | None], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(answers)))
    found = maj_at_k([votes(answers, "1")], k)
    assert (found.value, found.ties, found.no_votes) == pytest.approx(brute_force(answers, "1", k))


def test_maj_at_k_is_quick_where_subsets_are_beyond_counting() -> None:
    answers: list[str | None] = [str(i % 7 + 1) for i in range(60)]
    found = maj_at_k([votes(answers, "1")], 31)  # 1e17 subsets
    assert 0 < found.value < 1 and 0 < found.ties < 1


def test_maj_at_one_is_plain_accuracy_and_k_is_checked() -> None:
    groups = [votes(["1", "2", "1"], "1", "p"), votes(["2", None, "1"], "1", "q")]
    assert maj_at_k(groups, 1).value == pytest.approx((2 / 3 + 1 / 3) / 2)
    with pytest.raises(ValueError, match="maj@4 from 3 answers"):
        maj_at_k(groups, 4)
    with pytest.raises(ValueError, match="no problems"):
        maj_at_k([], 1)


def test_votes_are_the_same_when_the_answers_mean_the_same() -> None:
    problem = Problem("p", "?", "7", "choice", choices=("7", "9", "eleven"))
    assert vote_key(problem, "A") == vote_key(problem, "(A)") == vote_key(problem, "7")
    free = Problem("p", "?", "7", "number")
    assert vote_key(free, "1,200") == vote_key(free, "1200.0") == vote_key(free, "2400/2")
    assert vote_key(free, "1/0") != vote_key(free, "0")
    assert vote_key(free, "8 years") == vote_key(free, "$8.00") == vote_key(free, "8") != vote_key(free, "80")
    rounded = Problem("p", "How long?", "1.45", "float", precision=2)
    assert vote_key(rounded, "1.4535") == vote_key(rounded, "1.45") != vote_key(rounded, "1.46")
    assert vote_key(free, "x+1") != vote_key(free, "x-1")


@given(st.text(max_size=80))
def test_any_text_can_be_a_vote(text: str) -> None:
    assert isinstance(vote_key(Problem("p", "?", "7", "number"), text), str)


def test_smallest_k() -> None:
    assert smallest_k_reaching(0.5, {1: 0.4, 5: 0.6, 3: 0.5}) == 3
    assert smallest_k_reaching(0.7, {1: 0.4, 3: 0.5}) is None


def test_clustered_error_grows_when_answers_to_a_problem_agree() -> None:
    agree = clustered([[True] * 4, [False] * 4] * 10)
    apart = clustered([[True, False] * 2] * 20)
    assert agree.value == apart.value == 0.5
    # Fully dependent answers are worth one each: the error of 20 answers, not of 80.
    assert agree.standard_error == pytest.approx(math.sqrt(0.25 / 20)) and apart.standard_error == 0
    assert clustered([[True], [False]] * 10).standard_error == pytest.approx(math.sqrt(0.25 / 20))


@settings(max_examples=30, deadline=None)
@given(PAIRS)
def test_comparison_adds_up(pairs: list[tuple[bool, bool]]) -> None:
    a = [graded(str(i), x) for i, (x, _) in enumerate(pairs)]
    b = [graded(str(i), y) for i, (_, y) in reversed(list(enumerate(pairs)))]
    found = compare(a, b, resamples=200)
    assert found.both_right + found.only_a + found.only_b + found.neither == found.total == len(pairs)
    assert found.difference == pytest.approx(found.accuracy_a - found.accuracy_b)
    assert found.interval[0] <= found.interval[1] and found.test == "exact McNemar"
    swapped = compare(b, a, resamples=200)
    assert (swapped.only_a, swapped.only_b, swapped.p_value) == (found.only_b, found.only_a, found.p_value)
    assume(found.accuracy_b > 0)
    assert found.retention is not None
    assert found.retention.value == pytest.approx(found.accuracy_a / found.accuracy_b)


def test_comparison_of_several_answers_takes_problems_as_units() -> None:
    a = [graded(str(i), i < 12, sample=s) for i in range(20) for s in range(4)]
    b = [graded(str(i), i < 8, sample=s) for i in range(20) for s in range(4)]
    many, one = compare(a, b), compare(a[::4], b[::4])
    assert (many.problems, many.total, many.test) == (20, 80, "permutation by problem")
    # Four copies of each answer tell no more than one does.
    assert many.p_value == pytest.approx(one.p_value, abs=0.03)
    assert many.interval == pytest.approx(one.interval, abs=0.06)
    assert many.retention and one.retention and many.retention.value == one.retention.value == 1.5


def test_comparison_names_what_does_not_match_and_counts_what_is_left_out() -> None:
    a = [graded("p", True), graded("q", True), graded("r", None)]
    with pytest.raises(ValueError, match=r"2 answers have no counterpart: the first is id 'q'.*second model"):
        compare(a, a[:1])
    with pytest.raises(ValueError, match="twice"):
        compare([*a, a[0]], a)
    found = compare(a, a)
    assert (found.total, found.left_out, found.p_value) == (2, 1, 1.0)
    with pytest.raises(ValueError, match="nothing to compare"):
        compare(a[2:], a[2:])


def test_answers_are_grouped_by_problem_in_the_order_of_samples() -> None:
    items = [graded("q", True, sample=1), graded("p", True), graded("q", False, sample=0)]
    assert {name: [item.response.sample for item in group] for name, group in by_problem(items).items()} == {
        "q": [0, 1],
        "p": [0],
    }
