"""Boards over many benchmarks: formulas, shared ranks, missing results, protocols, imports and exports."""

import itertools
import json
import math
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from firsthand.boards.aggregates import (
    above_chance,
    borda_ranks,
    column_win_rates,
    mean_over_groups,
    mean_win_rates,
    pooled_mean,
    pooled_standard_error,
)
from firsthand.boards.board_export import board_csv, board_html, board_markdown, part_text, score_text
from firsthand.boards.board_results import BoardResult, ColumnKey, ItemScores, ResultSet
from firsthand.boards.board_spec import BenchmarkEntry, BoardSpec, board_names, load_board
from firsthand.boards.climb import climb_svg, climbs
from firsthand.boards.make_board import MadeBoard, make_board
from firsthand.boards.read_results import read_results
from firsthand.boards.result_file import read_result_file, write_result_file
from firsthand.commands.board_of_results import follow
from firsthand.errors import ConfigError, DataError
from firsthand.runs import store
from firsthand.stats.joint_ranks import MANY, rank_ranges, told_apart
from firsthand.trace import Score, Trace
from thorough import repetitions

NAN = math.nan


def items(benchmark: str, shares: dict[str, float], n: int = 400, seed: int = 0, protocol: str = "p") -> ItemScores:
    """Right and wrong answers that follow one difficulty for each item, so that models are alike item by item."""
    difficulty = np.random.default_rng(seed).random(n)
    scores = np.array([difficulty < share for share in shares.values()], np.float32)
    return ItemScores(ColumnKey(benchmark, protocol, "acc"), tuple(shares), tuple(map(str, range(n))), scores)


def stated(model: str, benchmark: str, value: float, **more: object) -> BoardResult:
    return BoardResult(model, benchmark, value, source="table.csv", **more)  # type: ignore[arg-type]


# -- formulas --


def test_a_tie_is_half_a_win_and_a_missing_score_is_no_win():
    table = np.array([[0.5, 0.9], [0.5, NAN], [0.1, 0.2]])
    assert column_win_rates(table)[:, 0].tolist() == [0.75, 0.75, 0.0]
    assert column_win_rates(table)[0, 1] == 1.0 and math.isnan(column_win_rates(table)[1, 1])
    assert mean_win_rates(table).tolist() == [0.875, 0.75, 0.0]


def test_a_column_where_less_is_better_is_turned_round():
    assert column_win_rates(np.array([[0.1], [0.2]]), [True])[:, 0].tolist() == [1.0, 0.0]


def test_a_column_of_one_model_has_no_win_rate():
    assert np.isnan(mean_win_rates(np.array([[0.4], [NAN]]))).all()


def test_means_over_types_weigh_types_equally():
    over, each = mean_over_groups(np.array([[1.0, 1.0, 0.0]]), ["sts", "sts", "retrieval"])
    assert over.tolist() == [0.5] and each.tolist() == [[1.0, 0.0]]


def test_scores_at_and_below_chance_are_zero():
    assert above_chance(0.25, 0.25) == 0 == above_chance(0.1, 0.25)
    assert above_chance(1.0, 0.25) == 1 and above_chance(0.625, 0.25) == pytest.approx(0.5)


# -- ranks --


def test_models_on_the_same_items_are_told_apart_where_independent_ones_are_not():
    shared = items("b", {"a": 0.60, "b": 0.56})
    board = make_board(ResultSet.of([], [shared]), BoardSpec())
    assert [(line.rank_low, line.rank_high) for line in board.sections[0].lines] == [(1, 1), (2, 2)]
    apart = ResultSet.of([stated("a", "b", 0.60, n=400), stated("b", "b", 0.56, n=400)])
    assert [(x.rank_low, x.rank_high) for x in make_board(apart, BoardSpec()).sections[0].lines] == [(1, 2), (1, 2)]


def test_a_number_without_an_error_is_told_apart_from_none():
    board = make_board(ResultSet.of([stated("a", "b", 0.9), stated("c", "b", 0.1, n=1000)]), BoardSpec())
    first, last = board.sections[0].lines
    assert (first.rank_low, first.rank_high, last.rank_low) == (1, 2, 1) and math.isnan(first.low)


def test_perfect_scores_keep_an_error():
    board = make_board(ResultSet.of([], [items("b", {"a": 1.0, "b": 1.0}, n=10)]), BoardSpec())
    line = board.sections[0].lines[0]
    assert line.low < 1 and (line.rank_low, line.rank_high) == (1, 2)


def test_two_columns_that_agree_do_not_settle_a_rank():
    results = [stated(m, b, v, n=50) for b in ("x", "y") for m, v in (("a", 0.9), ("b", 0.5))]
    lines = make_board(ResultSet.of(results), BoardSpec(rule="win-rate")).sections[0].lines
    assert [line.score for line in lines] == [1.0, 0.0] and {line.rank_low for line in lines} == {1}
    assert all(0 <= line.low <= line.high <= 1 for line in lines)
    six = [stated(m, f"b{i}", v, n=50) for i in range(8) for m, v in (("a", 0.9), ("b", 0.5))]
    lines = make_board(ResultSet.of(six), BoardSpec(rule="win-rate")).sections[0].lines
    assert [line.rank_high for line in lines] == [1, 2]


def test_joint_ranks_cover_the_truth():
    truth, missed = np.array([0.0, 0.0, 0.0, 1.0]), 0
    draw = np.random.default_rng(7)
    for _ in range(100):
        told = told_apart(truth + draw.normal(0, 0.3, 4), np.eye(4) * 0.09)
        missed += bool(told[:3].any() and (told[:3, :3].any() or told[:3, 3].any()))
    assert missed <= 12  # 5 expected; more than 12 has a probability of 0.2%


def test_one_model_under_two_names_leaves_the_other_ranks_alone():
    rows = np.random.default_rng(3).normal(0, 1, (5, 40))
    rows[4] = rows[3]  # MTEB's own results hold such pairs
    values, covariance = np.array([9.0, 6.0, 3.0, 0.0, 0.0]), np.cov(rows) / 40
    assert [(each.low, each.high) for each in rank_ranges(values, covariance)] == [
        (1, 1),
        (2, 2),
        (3, 3),
        (4, 5),
        (4, 5),
    ]


def test_thousands_of_models_are_ranked():
    values = np.linspace(0, 1, 3_000)
    ranges = rank_ranges(values, np.full(3_000, 0.001))
    assert ranges[-1].low == 1 and 1 < ranges[-1].high < 60 and ranges[0].high == 3_000
    assert len(values) > MANY


@pytest.mark.slow
def test_thousands_of_models_are_a_board():
    count = repetitions(10_000, 3_000)
    values = np.random.default_rng(1).uniform(0, 1, count)
    results = [stated(f"m{i}", "b", float(value), n=100) for i, value in enumerate(values)]
    (section,) = make_board(ResultSet.of(results), BoardSpec()).sections
    assert len(section.lines) == count and section.lines[0].score == max(values)
    assert section.lines[0].rank_low == 1 < section.lines[0].rank_high < 0.4 * count


# -- the composite --

CATEGORIES = BoardSpec(
    name="own",
    rule="weighted",
    benchmarks={
        "code": BenchmarkEntry("coding"),
        "maths": BenchmarkEntry("reasoning", weight=3),
        "quiz": BenchmarkEntry("reasoning", chance=0.25),
        "extra": BenchmarkEntry("coding", display_only=True),
    },
    categories={"coding": 3, "reasoning": 1},
)


def test_categories_weigh_as_stated_and_chance_becomes_zero():
    results = [
        *(stated("a", name, value, n=100) for name, value in (("code", 0.8), ("maths", 0.4), ("quiz", 0.25))),
        stated("a", "extra", 0.01, n=100),
    ]
    line = make_board(ResultSet.of(results), CATEGORIES).sections[0].lines[0]
    assert line.score == pytest.approx(0.75 * 0.8 + 0.25 * (0.75 * 0.4 + 0.25 * 0.0))
    assert line.parts["reasoning"] == pytest.approx(0.3) and "extra" in line.cells


def test_a_missing_result_is_named_and_gives_no_rank():
    results = [stated(m, b, 0.5, n=9) for m in "ab" for b in ("code", "maths", "quiz") if (m, b) != ("b", "maths")]
    section = make_board(ResultSet.of(results), CATEGORIES).sections[0]
    assert [line.model for line in section.lines] == ["a"]
    assert [(each.model, each.missing) for each in section.unranked] == [("b", ("maths",))]


def test_only_common_benchmarks_count_if_the_definition_says_so():
    results = [stated("a", "x", 0.1), stated("a", "y", 0.9), stated("b", "y", 0.8)]
    spec = BoardSpec(rule="weighted", missing="common", reported="together")
    assert [line.score for line in make_board(ResultSet.of(results), spec).sections[0].lines] == [0.9, 0.8]


def test_verified_and_reported_models_have_tables_of_their_own():
    mixed = ResultSet.of([stated("c", "b", 0.99, protocol="p", metric="acc", n=9)], [items("b", {"a": 0.6, "b": 0.4})])
    sections = make_board(mixed, BoardSpec(rule="weighted")).sections
    assert [[line.model for line in each.lines] for each in sections] == [["a", "b"], ["c"]]
    assert sections[0].title.startswith("verified") and sections[1].title.startswith("reported")


def test_a_model_with_nothing_but_a_stated_number_for_display_is_not_verified():
    spec = BoardSpec(rule="weighted", benchmarks={"x": BenchmarkEntry(), "shown": BenchmarkEntry(display_only=True)})
    shown = [stated("b", "shown", 0.5), stated("a", "shown", 0.4)]
    board = make_board(ResultSet.of(shown, [items("x", {"a": 0.7})]), spec)
    assert [[line.model for line in each.lines] for each in board.sections] == [["a"], []]
    assert [each.model for each in board.sections[1].unranked] == ["b"]


def test_two_protocols_are_never_mixed_in_one_column():
    results = ResultSet.of([stated("a", "b", 0.5, protocol="5-shot"), stated("b", "b", 0.6, protocol="0-shot")])
    with pytest.raises(ConfigError, match=r"2 protocols, '5-shot', '0-shot'.*--protocol b="):
        make_board(results, BoardSpec(rule="weighted"))
    titles = [section.title for section in make_board(results, BoardSpec()).sections]
    assert titles == ["b [5-shot]", "b [0-shot]"]
    one = make_board(results, BoardSpec(rule="weighted"), protocols={"b": "5*"}).sections
    assert [line.model for line in one[0].lines] == ["a"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((0.62, 71.0), "mixes percents and fractions"),
        ((0.5, 1200.0), "give its scale"),
    ],
)
def test_mixed_scales_are_refused(values: tuple[float, float], message: str):
    results = ResultSet.of([stated(m, "b", v) for m, v in zip("ab", values, strict=True)])
    with pytest.raises(DataError, match=message):
        make_board(results, BoardSpec(rule="weighted"))


def test_percents_become_fractions():
    results = ResultSet.of([stated("a", "b", 62.0, error=2.0), stated("b", "b", 41.0)])
    line = make_board(results, BoardSpec()).sections[0].lines[0]
    assert line.score == pytest.approx(0.62) and line.cells["b"].error == pytest.approx(0.02)


def test_different_numbers_for_one_cell_are_told_and_not_used():
    results = ResultSet.of([stated("a", "b", 0.5), stated("a", "b", 0.6), stated("b", "b", 0.4), stated("b", "b", 0.4)])
    assert [each.model for each in results.results] == ["b"] and results.duplicates == 1
    assert "a has 2 different numbers on b" in results.remarks[0]
    many = ResultSet.of([stated(f"m{i}", "b", v) for i in range(9) for v in (0.1, 0.2)])
    assert len(many.remarks) == 6 and many.remarks[-1].startswith("And 4 more cells") and not many.results


def test_stale_undated_and_future_results_are_told():
    results = ResultSet.of(
        [stated("a", "b", 0.5, when="2024-01-01T00:00:00+00:00"), stated("c", "b", 0.5), stated("d", "b", 0.4)]
    )
    spec = BoardSpec(fresh_days=365)
    said = make_board(results, spec, now=datetime(2026, 1, 1, tzinfo=UTC)).remarks
    assert said == (
        "1 of 3 results are older than 365 days, the oldest a on b of 2024-01-01.",
        "2 of 3 results have no date.",
    )
    ahead = ResultSet.of([stated("a", "b", 0.5, when="2999-01-01T00:00:00+00:00")])
    assert "dated after now" in ahead.remarks[0]


def test_negative_scores_are_told():
    said = make_board(ResultSet.of([stated("a", "b", -0.2), stated("c", "b", 0.1)]), BoardSpec()).remarks
    assert said == ("1 result on b lie below 0 and are kept.",)


def test_a_category_without_results_is_told():
    said = make_board(ResultSet.of([stated("a", "code", 0.5)]), CATEGORIES).remarks
    assert "No model has a result in reasoning: 25% of the weight is left out for all." in said


def test_the_interval_of_a_share_ends_at_0_and_1():
    results = [BoardResult("ada", "maths", 0.98, n=5), BoardResult("bob", "maths", 0.01, n=20)]
    for rule in ("each", "weighted"):
        board = make_board(ResultSet.of(results), BoardSpec(rule=rule, reported="together"))
        ada, bob = board.sections[0].lines
        assert (ada.high, bob.low) == (1.0, 0.0) and 0 < ada.low < ada.score and bob.score < bob.high < 1
    gains = ResultSet.of([BoardResult("ada", "gain", 0.1, error=0.2), BoardResult("bob", "gain", 0.3, error=0.2)])
    assert make_board(gains, BoardSpec(rule="each")).sections[0].lines[1].low < 0  # not known to be a share


def test_clusters_of_items_widen_the_error():
    scores = np.repeat(np.random.default_rng(1).integers(0, 2, (1, 50)), 4, axis=1).astype(np.float32)
    tasks = tuple(map(str, range(200)))
    alone = ItemScores(ColumnKey("b", "", ""), ("a",), tasks, scores)
    grouped = ItemScores(ColumnKey("b", "", ""), ("a",), tasks, scores, tuple(str(i // 4) for i in range(200)))
    assert grouped.covariance()[0, 0] == pytest.approx(4 * alone.covariance()[0, 0], rel=0.05)


def test_the_covariance_is_that_of_paired_means():
    both = items("b", {"a": 0.7, "c": 0.5}, n=300)
    covariance = both.covariance()
    difference = both.scores[0] - both.scores[1]
    expected = difference.var(ddof=1) / 300
    assert covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1] == pytest.approx(expected, rel=1e-5)


# -- definitions --


def test_every_board_of_the_package_loads():
    assert set(board_names()) == {"bigcode", "composite", "helm", "mteb", "mteb_eng", "open_llm", "seal", "swe_bench"}
    for name in board_names():
        assert load_board(name).title


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rule = 'mean'", "rule is 'mean'"),
        ("rules = 'each'", "did you mean 'rule'"),
        ("[benchmarks]\nx = 3", "benchmark 'x' is 3: write a table"),
        ("[benchmarks]\nx = { wieght = 1 }", "did you mean 'weight'"),
        ("[benchmarks]\nx = { chance = 1.0 }", "chance is 1.0"),
        ("[categories]\na = -1", "weight of category 'a'"),
        ("[categories]\na = 1\n[benchmarks]\nx = { category = 'b' }", "category 'b' has no weight"),
        ("rule = ", "cannot be read as TOML"),
        ("fresh_days = 'x'", "does not define a board"),
    ],
)
def test_a_wrong_definition_says_what_is_wrong(tmp_path: Path, text: str, message: str):
    path = tmp_path / "own.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_board(str(path))


# -- files --


def test_a_file_of_results_gives_the_same_board(tmp_path: Path):
    results = ResultSet.of(
        [stated("r", "stated", 0.5, n=10)], [items("b", {"a": 0.6, "b": 0.4}), items("c", {"a": 0.3, "b": 0.7})]
    )
    write_result_file(tmp_path / "all.results", results)
    again = read_results([tmp_path / "all.results"], tmp_path)
    assert again.duplicates == 0
    assert make_board(again, BoardSpec()).to_json() == make_board(results, BoardSpec()).to_json()


def test_a_damaged_file_of_results_is_refused(tmp_path: Path):
    path = tmp_path / "all.results"
    write_result_file(path, ResultSet.of([], [items("b", {"a": 0.6})]))
    path.write_bytes(path.read_bytes()[:4096])
    with pytest.raises(DataError, match=r"damaged|no file of results"):
        list(read_result_file(path))


@pytest.mark.parametrize(
    "change",
    [
        "CREATE VIEW endless AS SELECT 1",
        "ALTER TABLE item_scores ADD COLUMN large TEXT GENERATED ALWAYS AS (hex(zeroblob(1000000000))) VIRTUAL",
        "DROP TABLE results; CREATE VIEW results AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i FROM n)"
        """ SELECT '{"model": "m", "benchmark": "b", "score": 0.5}' AS body FROM n""",
    ],
)
def test_a_file_of_results_with_tables_or_views_that_are_not_ours_is_refused(tmp_path: Path, change: str):
    path = tmp_path / "all.results"
    write_result_file(path, ResultSet.of([], [items("b", {"a": 0.6})]))
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(change)
    with pytest.raises(DataError, match="tables or views"):
        next(read_result_file(path))


def test_a_row_nested_without_end_is_damage(tmp_path: Path):
    path = tmp_path / "all.results"
    write_result_file(path, ResultSet.of([stated("r", "stated", 0.5, n=10)], []))
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE results SET body = ?", ("[" * 100_000,))
    with pytest.raises(DataError, match="damaged"):
        list(read_result_file(path))


HOSTILE = "=cmd|'x'!A1 <script>alert(1)</script> |\u202e"


def test_names_with_markup_are_text_in_every_export():
    board = make_board(ResultSet.of([stated(HOSTILE, "b", 0.5), stated("ok", "b", 0.4)]), BoardSpec())
    page, marked, table = board_html(board), board_markdown(board), board_csv(board)
    assert "<script" not in page and "&lt;script&gt;" in page and "\\u202e" in page
    assert "<script" not in marked and "\\|" in marked
    assert "\n=cmd" not in table and ",=cmd" not in table and "'=cmd" in table


def test_exports_carry_the_origin_of_each_number():
    made = BoardResult("a", "b", 0.5, "5-shot", source="f.json", run="r1", commit="abc", data_hash="d9")
    board = make_board(ResultSet.of([made]), BoardSpec())
    for word in ("5-shot", "f.json", "r1", "abc", "d9"):
        assert word in board_csv(board) and word in board_html(board) and word in json.dumps(board.to_json())


def test_a_climb_has_only_records():
    dates = ("2024-01-01", "2024-02-01", "2024-03-01")
    results = [
        stated(m, "b", v, when=f"{d}T00:00:00+00:00") for m, v, d in zip("abc", (0.4, 0.3, 0.6), dates, strict=True)
    ]
    (climb,) = climbs(make_board(ResultSet.of([*results, stated("u", "b", 0.9)]), BoardSpec()))
    assert [(step.model, round(step.gain, 6)) for step in climb.steps] == [("a", 0.4), ("c", 0.2)]
    assert climb.undated == 1 and climb_svg(climb).count("<circle") == 3
    with pytest.raises(ConfigError, match="no result of the board board has a date"):
        climbs(make_board(ResultSet.of([stated("a", "b", 0.5)]), BoardSpec()))


# -- the command --


def test_the_command_ranks_exports_and_saves(tmp_path: Path, cli: Callable[..., tuple[int, str, str]]):
    table = tmp_path / "scores.csv"
    table.write_text("model,date,maths,code\nada,2024-01-01,0.5,0.7\nbob,2024-06-01,0.6,\ncat,2025-01-01,0.7,0.8\n")
    spec = tmp_path / "ours.toml"
    spec.write_text('title = "Ours"\nrule = "weighted"\nresults = ["scores.csv"]\nreported = "together"\n')
    files = [str(tmp_path / f"board.{kind}") for kind in ("html", "md", "json", "csv")]
    saved = str(tmp_path / "all.results")
    words = [
        "board",
        str(spec),
        "--export",
        ",".join(files),
        "--save",
        saved,
        "--climb",
        str(tmp_path / "c.svg"),
        "--origins",
    ]
    code, out, err = cli(*words)
    assert code == 0, err
    assert "bob lacks code" in out and "Ours" in out and "+0.15" in out and "reported" in out
    assert all(Path(each).stat().st_size > 100 for each in [*files, saved, tmp_path / "c.svg"])
    code, out, _ = cli("board", "helm", saved, "--json")
    assert code == 0 and json.loads(out)["rule"] == "win-rate"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("board", "mteb"), "has no results to read"),
        (("board",), "required: SOURCES"),
        (("board", "none.toml"), "no file 'none.toml'"),
        (("board", "{table}", "--export", "x.pdf"), "a board is written as"),
        (("board", "{table}", "--protocol", "maths"), "write BENCHMARK=VALUE"),
        (("board", "{table}", "--protocol", "chess=x"), "no result is of the benchmark 'chess'"),
        (("board", "{table}", "--models", "zoe*"), "no model is named zoe"),
        (("board", "{table}", "--method", "davidson"), "--method is for votes"),
        (("board", "arena", "{table}"), "holds no votes"),
        (("board", "{table}", "--save", "x.db"), "ends in .results"),
        (("board", "swe_bench", "{table}"), "no result counts on the board swe_bench"),
    ],
)
def test_wrong_words_get_a_sentence(
    words: tuple[str, ...], message: str, tmp_path: Path, cli: Callable[..., tuple[int, str, str]]
):
    table = tmp_path / "scores.csv"
    table.write_text("model,maths\nada,0.5\n")
    code, _, err = cli(*(word.format(table=table) for word in words))
    assert code != 0 and message in err and "Traceback" not in err


def test_lm_eval_groups_pool_as_lm_eval_does():
    api = pytest.importorskip("lm_eval.api.metrics")
    values, errors, sizes = [0.3, 0.81, 0.5], [0.02, 0.01, 0.05], [100, 1000, 57]
    assert pooled_mean(values, sizes) == api.aggregate_subtask_metrics(values, sizes)
    assert pooled_mean(values, sizes, by_size=False) == api.aggregate_subtask_metrics(values, sizes, False)
    assert pooled_standard_error(errors, sizes) == api.pooled_sample_stderr(errors, sizes)


PEER_TABLE = [
    [0.8, 0.3, 0.4, 0.3, 0.6, 0.5], [0.8, 0.3, 1.0, 0.9, 0.7, 0.7], [0.1, 0.6, 1.0, 0.9, 0.8, 0.0],
    [0.4, 0.7, NAN, 0.9, 0.3, 0.2], [0.2, 0.8, 0.1, 0.5, 0.1, 0.7], [0.8, 1.0, 0.6, 0.6, 0.6, 0.2],
    [0.6, 0.5, NAN, 0.9, 0.8, 0.9], [0.4, 0.3, 0.8, 0.6, 0.6, 0.7], [0.9, 0.1, 0.5, 0.8, 0.7, NAN],
]  # fmt: skip
"""Ties and missing scores; `python bench/rivals/board_formulas.py` gives the peers' figures for it."""


def test_mean_win_rates_are_those_of_helm():
    """HELM 0.5.16, compute_aggregate_row_win_rates; columns 2 and 5 are better when lower."""
    theirs = [0.45337301587301587, 0.7093253968253969, 0.3611111111111111, 0.4928571428571429, 0.3482142857142857,
              0.40029761904761907, 0.575, 0.5634920634920635, 0.6291666666666667]  # fmt: skip
    lower = [False, True, False, False, True, False]
    assert mean_win_rates(np.array(PEER_TABLE), lower).tolist() == pytest.approx(theirs, abs=1e-15)


def test_borda_ranks_are_those_of_mteb():
    """MTEB 2.26.24, _borda_rank_from_long: a model's missing task adds no points."""
    assert borda_ranks(np.array(PEER_TABLE)).tolist() == [8, 1, 3, 7, 9, 4, 2, 5, 6]


def test_equal_points_share_the_better_borda_rank():
    assert borda_ranks(np.array([[0.5, 0.5], [0.5, 0.5], [0.1, 0.2]])).tolist() == [1, 1, 3]


@pytest.mark.slow
def test_a_watched_board_is_printed_again_until_the_run_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path))
    numbers = itertools.count()
    with store.create(tmp_path, {}, "quiz") as run:

        def one_more() -> None:
            number = next(numbers)
            place = (
                f"a{number}",
                "quiz",
                str(number),
                {"name": "ada", "model": "ada"},
                0,
                0,
                "2026-11-28T00:00:00",
                0.1,
            )
            run.append(Trace(*place, answer="x", scores=(Score("exact", 1.0),)))

        def made() -> MadeBoard:
            board = make_board(read_results([run.id], tmp_path), BoardSpec(rule="each"))
            if run.info.num_traces == 2:
                run.finish("done")
            else:
                one_more()  # while the board is printed
            return board

        with run.claimed():
            run.finish("running")
            start = threading.Timer(0.2, one_more)  # the watch begins before the first attempt is finished
            start.start()
            follow((run.id,), made)
            start.join()
    out = capsys.readouterr().out
    assert out.startswith("No attempt is finished yet") and out.count("Ranks hold together") == 3


def test_figures_of_a_board_are_written_so():
    parts = {"n": "1,235", "Borda rank": "1,235", "USD each": "1234.5000", "Elo": "1,234.5"}
    assert {name: part_text(name, 1234.5 + (name in ("n", "Borda rank")) * 0.1) for name in parts} == parts
    assert part_text("USD each", 0.00126) == "0.0013" and part_text("acc", 0.00126) == "0.001"
    assert [score_text(value) for value in (9.9994, -9.9994, 10.0, NAN)] == ["9.999", "-9.999", "10.0", "-"]
