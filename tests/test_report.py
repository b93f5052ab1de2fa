"""The reports: intervals against published values, the table, the pictures and the page."""

import io
import math
import re

import numpy as np
import pytest
from PIL import Image

from reopold_vl.report.page import PageRollout, write_page
from reopold_vl.report.plots import REWARD_EDGES, append_histogram, plot_run, read_histograms
from reopold_vl.report.stats import Accuracy, paired_difference, wilson_interval
from reopold_vl.report.table import Graded, gain_line, print_table, tabulate, to_markdown

# --- stats


@pytest.mark.parametrize(
    ("successes", "total", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_interval_matches_newcombe_1998_table_1_method_3(successes, total, low, high):
    assert wilson_interval(successes, total) == pytest.approx((low, high), abs=5e-5)


def test_wilson_interval_by_hand():
    # One success of one, z = 1: centre 1 + 1/2, reach sqrt(1/4), scale 2, so (1.5 -+ 0.5) / 2.
    one_sigma = math.erf(1 / math.sqrt(2))
    assert wilson_interval(1, 1, one_sigma) == pytest.approx((0.5, 1.0))
    # 5 of 10 lies symmetrically about a half: z = 1.959964, half-width z sqrt(1/40 + z^2/400) / (1 + z^2/10).
    assert wilson_interval(5, 10) == pytest.approx((0.236593, 0.763407), abs=1e-6)


@pytest.mark.parametrize("total", [1, 7, 2000])
def test_wilson_interval_mirrors_and_stays_inside(total):
    for successes in {0, total // 3, total}:
        low, high = wilson_interval(successes, total)
        mirrored = wilson_interval(total - successes, total)
        assert (low, high) == pytest.approx((1 - mirrored[1], 1 - mirrored[0]))
        assert 0 <= low <= successes / total <= high <= 1


@pytest.mark.parametrize("call", [(1, 0), (3, 2), (-1, 2), (1, 2, 1.0), (1, 2, 0.0)])
def test_wilson_interval_refuses_nonsense(call):
    with pytest.raises(ValueError, match=r"no interval|confidence"):
        wilson_interval(*call)


def test_paired_difference_agrees_with_drawing_items_and_with_theory():
    rng = np.random.default_rng(5)
    b = rng.random(400) < 0.4
    a = b ^ (rng.random(400) < 0.3)
    difference, low, high = paired_difference(a.tolist(), b.tolist(), seed=0)
    delta = a.astype(float) - b.astype(float)
    assert difference == pytest.approx(delta.mean())
    drawn = delta[rng.integers(0, 400, size=(4000, 400))].mean(axis=1)
    assert (low, high) == pytest.approx(np.percentile(drawn, [2.5, 97.5]), abs=0.006)
    standard_error = delta.std() / 20
    assert (low, high) == pytest.approx(
        (difference - 1.96 * standard_error, difference + 1.96 * standard_error), abs=0.006
    )


def test_paired_difference_is_seeded_signed_and_knows_its_limits():
    a, b = [True] * 6 + [False] * 4, [True] * 3 + [False] * 7
    assert paired_difference(a, b, seed=3) == paired_difference(a, b, seed=3)
    assert paired_difference(a, b, seed=3)[0] == pytest.approx(0.3)
    assert paired_difference(b, a, seed=3)[0] == pytest.approx(-0.3)
    assert paired_difference(a, a, seed=0) == (0.0, 0.0, 0.0)
    for left, right in ((a, b[:-1]), ([], [])):
        with pytest.raises(ValueError, match="same items"):
            paired_difference(left, right, seed=0)


# --- table


def _graded(marks, source=lambda i: "count" if i < 6 else "sum"):
    return [Graded(str(i), source(i), "Answer: 1", bool(mark), "stop") for i, mark in enumerate(marks)]


BEFORE = _graded([1, 0, 0, 0, 0, 0, 1, 1, 0, 0])
AFTER = _graded([1, 1, 1, 1, 1, 0, 1, 1, 1, 0])
TEACHER = _graded([1, 1, 1, 1, 1, 1, 1, 1, 1, 1])


def test_tabulate_counts_each_type_and_sums_up():
    rows = tabulate(BEFORE, AFTER, TEACHER)
    assert [row.name for row in rows] == ["count", "sum", "overall"]
    assert [(row.before.correct, row.after.correct, row.after.total) for row in rows] == [
        (1, 5, 6),
        (2, 3, 4),
        (3, 8, 10),
    ]
    assert rows[-1].teacher_share == pytest.approx(0.8)


def test_tabulate_without_teacher_with_a_teacher_that_knows_nothing_and_without_types():
    assert tabulate(BEFORE, AFTER)[-1].teacher is None
    assert "| **-** | **-** |" in to_markdown(tabulate(BEFORE, AFTER))
    assert tabulate(BEFORE, AFTER, _graded([0] * 10))[-1].teacher_share is None
    plain = [_graded([1, 0], lambda i: "") for _ in range(3)]
    assert [row.name for row in tabulate(*plain)] == ["overall"]


def test_tabulate_refuses_lists_about_different_problems():
    for lists in (([], [], []), (BEFORE, AFTER[:-1], TEACHER), (BEFORE, AFTER, TEACHER[1:]), (BEFORE, [], TEACHER)):
        with pytest.raises(ValueError, match=r"same problems|no graded answers"):
            tabulate(*lists)
    with pytest.raises(ValueError, match="twice"):
        tabulate(BEFORE + BEFORE[:1], AFTER, TEACHER)


def test_markdown_is_a_table_whatever_a_type_is_called():
    rows = tabulate(*(_graded([1, 0], lambda i: f"a|b{i}") for _ in range(3)))
    lines = to_markdown(rows).splitlines()
    assert lines[2].startswith("| a\\|b0 | 1 | 100.0 [20.7, 100.0] |")
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines[:5]} == {7}
    assert lines[4].startswith("| **overall** | **2** |")


@pytest.mark.parametrize("width", [None, 120, 80, 60, 30])
def test_printed_table_is_plain_and_whole_at_any_width(width):
    out = io.StringIO()
    rows = tabulate(*(_graded([1, 0, 1], lambda i: f"[red]type with a long name {i}") for _ in range(3)))
    print_table(rows, file=out, width=width)
    text = out.getvalue()
    assert "\x1b" not in text and "…" not in text
    assert "66.7" in text and "[20.8, 93.9]" in text and "100.0%" in text and "[red]" in text
    assert all(len(line) <= max(width or 160, 72) for line in text.splitlines())


def test_printed_table_survives_an_ascii_stream():
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding="ascii")
    print_table(tabulate(BEFORE, AFTER, TEACHER), file=out)
    out.flush()
    assert b"overall" in raw.getvalue()


def test_gain_line_pairs_by_id():
    line = gain_line(BEFORE, AFTER[::-1], seed=0)
    assert line.startswith("student after minus before: +50.0 points, 95% interval +")
    assert line.endswith("N = 10)")


# --- plots


def test_histogram_counts_every_number_once_in_fixed_bins(tmp_path):
    path = tmp_path / "reward_histogram.jsonl"
    append_histogram(path, 0, [-math.inf, -9999.0, -12.0, -0.1, 0.0, 0.1, 4.0, 50.0, math.nan])
    append_histogram(path, 1, np.array([], dtype=np.float32))
    first, second = read_histograms(path)
    assert first["edges"] == second["edges"] == list(REWARD_EDGES)
    assert (first["counts"][0], first["counts"][-1], sum(first["counts"])) == (3, 2, 8)
    zero = REWARD_EDGES.index(0.0)
    assert (first["counts"][zero - 1], first["counts"][zero]) == (1, 2)
    assert sum(second["counts"]) == 0
    assert read_histograms(tmp_path / "none.jsonl") == []


def _metrics(steps):
    for step in range(steps):
        record = {"step": step, "rollout/total": 8.0 * (step + 1), "reopold/floor": -2.0, "student/entropy": 0.3}
        record |= {"reopold/clipped": 0.1, "mask/kept": 0.9, "reopold/phase": float(step >= 2)}
        yield record | ({"validation/accuracy": 0.5, "validation/num": 10.0} if step % 2 else {})


@pytest.mark.parametrize("steps", [2, 12])
def test_plot_run_draws_three_pictures(tmp_path, steps):
    for step in range(steps):
        append_histogram(tmp_path / "h.jsonl", step, [-3.0, 0.0, 0.1])
    history = read_histograms(tmp_path / "h.jsonl")
    paths = plot_run(tmp_path, list(_metrics(steps)), history, before=Accuracy(3, 10), teacher=Accuracy(10, 10))
    assert [path.relative_to(tmp_path).as_posix() for path in paths] == [
        "plots/accuracy.png",
        "plots/reward.png",
        "plots/mask.png",
    ]
    for path in paths:
        with Image.open(path) as image:
            assert image.width > 900
            assert len(np.unique(np.asarray(image.convert("L")))) > 10


def test_plot_run_draws_only_what_there_is_data_for(tmp_path):
    assert plot_run(tmp_path, []) == []
    nothing = {"step": 0, "validation/accuracy": math.nan, "student/entropy": math.nan}
    assert plot_run(tmp_path, [nothing], [{"step": 0, "edges": [0, 1], "counts": [0]}]) == []
    names = [path.name for path in plot_run(tmp_path, [{"step": 0, "validation/accuracy": 0.5}])]
    assert names == ["accuracy.png"]
    assert [path.name for path in plot_run(tmp_path, [{"step": 0, "student/entropy": 0.5}])] == ["mask.png"]


# --- page


def _rollout(**changes):
    fields = {
        "images": (Image.new("RGB", (84, 84), "red"),),
        "question": "How many?",
        "gold": "3",
        "step": 7,
        "tokens": ("Answer", ": 3"),
        "rewards": (-2.31, 0.5),
        "student_logprobs": (math.log(0.5), math.log(0.25)),
        "teacher_logprobs": (math.log(0.05), math.log(0.4)),
        "kept": (False, True),
        "correct": True,
        "finish_reason": "stop",
    }
    return PageRollout(**{**fields, **changes})


def _page(tmp_path, *entries, **options):
    write_page(tmp_path / "page.html", entries, **{"title": "Samples", "settings": {"seed": 0}, **options})
    return (tmp_path / "page.html").read_text(encoding="utf-8")


def test_page_shows_a_rollout_with_every_number_on_its_tokens(tmp_path):
    html = _page(tmp_path, _rollout())
    assert 'title="R -2.31 · teacher 5% · student 50% · masked">Answer</span>' in html
    assert 'title="R +0.50 · teacher 40% · student 25% · kept">: 3</span>' in html
    assert re.search(r'class="t down masked" style="--a:0.69"\s', html)
    assert (
        ">right</span>" in html and "finish: stop" in html and "gold answer: 3" in html and "1 of 2 tokens kept" in html
    )


def test_page_is_one_file_without_script_or_request(tmp_path):
    html = _page(tmp_path, _rollout(images=(Image.new("P", (2000, 10)), Image.new("CMYK", (9, 9)))))
    assert html.count('src="data:image/png;base64,') == 2
    assert not re.search(r"<script|<link|@import|url\(|https?://", html)
    assert "default-src 'none'" in html and "prefers-color-scheme: dark" in html


def test_page_escapes_whatever_a_model_or_a_user_writes(tmp_path):
    evil = '<script>alert("x")</script>'
    entry = _rollout(question=evil, gold=evil, tokens=(evil, "\ud83d"), finish_reason=evil)
    html = _page(tmp_path, entry, title=evil, settings={evil: evil})
    assert "<script" not in html
    assert html.count("&lt;script&gt;alert(&#34;x&#34;)&lt;/script&gt;") == 8


def test_page_groups_the_rollouts_of_one_question(tmp_path):
    entries = [_rollout(), _rollout(correct=False, finish_reason="length"), _rollout(step=8, correct=None, gold=None)]
    html = _page(tmp_path, *entries)
    assert html.count("<article") == 2 and html.count('class="answer"') == 3
    assert ">wrong</span>" in html and "cut off at the length limit" in html
    assert ">not graded</span>" in html and "gold answer: not given" in html


def test_page_stands_numbers_that_are_not_numbers_and_empty_answers(tmp_path):
    strange = _rollout(rewards=(-math.inf, math.nan), teacher_logprobs=(-math.inf, 1e-6))
    none: dict = dict.fromkeys(("tokens", "rewards", "student_logprobs", "teacher_logprobs", "kept"), ())
    html = _page(tmp_path, strange, _rollout(images=(), **none))
    assert "R -inf · teacher 0% · student 50%" in html and "R +nan · teacher 100%" in html
    assert 'class="bare"' in html and "0 of 0 tokens kept" in html
    assert "<article" not in _page(tmp_path)


def test_page_rollout_refuses_numbers_that_do_not_match_the_tokens():
    with pytest.raises(ValueError, match="kept has 1 entries for 2 tokens"):
        _rollout(kept=(True,))
