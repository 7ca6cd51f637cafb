"""Items that one model has no score on and another has: nobody wins a rank by leaving them out."""

from dataclasses import replace

import numpy as np
import pytest

from firsthand.boards.board_columns import BoardColumn
from firsthand.boards.board_results import BoardResult, ColumnKey, ItemScores, ResultSet
from firsthand.boards.board_spec import BenchmarkEntry, BoardSpec
from firsthand.boards.make_board import MadeBoard, make_board
from firsthand.boards.missing_items import slack_of_scores
from firsthand.stats.joint_ranks import MANY, rank_ranges, told_apart

NAN = float("nan")


def items(benchmark: str = "b", **scores: list[float]) -> ItemScores:
    size = len(next(iter(scores.values())))
    table = np.array(list(scores.values()), np.float32)
    return ItemScores(ColumnKey(benchmark, "", ""), tuple(scores), tuple(map(str, range(size))), table)


def board(*tables: ItemScores, rule: str = "each", stated: tuple[BoardResult, ...] = (), **entry: object) -> MadeBoard:
    entries = {table.key.benchmark: BenchmarkEntry(**entry) for table in tables}  # type: ignore[arg-type]
    spec = BoardSpec(rule=rule, benchmarks=entries)  # type: ignore[arg-type]
    return make_board(ResultSet.of(stated, tables), spec)


def ranks(made: MadeBoard) -> dict[str, tuple[int, int]]:
    return {line.model: (line.rank_low, line.rank_high) for section in made.sections for line in section.lines}


BOB = [1.0] * 80 + [0.0] * 120
LEFT_OUT = [1.0] * 80 + [NAN] * 100 + [0.0] * 20
WORSE = [0.0] * 180 + [1.0] * 20


def test_a_model_that_leaves_out_what_it_got_wrong_is_told_apart_from_no_equal_one() -> None:
    made = board(items(ada=LEFT_OUT, bob=BOB))
    assert [line.score for line in made.sections[0].lines] == pytest.approx([0.8, 0.4])
    assert ranks(made) == {"ada": (1, 2), "bob": (1, 2)}
    assert made.remarks == (
        "ada has no score on 100 of the 200 items of b that were scored: its score is that of the others, and its ranks "
        "hold whatever these are.",
    )


def test_a_weighted_board_does_not_rank_by_items_left_out() -> None:
    other = items("c", ada=[1.0, 0.0] * 50, bob=[1.0, 0.0] * 49 + [0.0, 1.0])
    for chance in (0.0, 0.25):
        made = board(items(ada=LEFT_OUT, bob=BOB), other, rule="weighted", chance=chance)
        assert ranks(made) == {"ada": (1, 2), "bob": (1, 2)}
        whole = board(items(ada=[1.0] * 160 + [0.0] * 40, bob=BOB), other, rule="weighted", chance=chance)
        assert ranks(whole) == {"ada": (1, 1), "bob": (2, 2)} and not whole.remarks


def test_few_missing_items_leave_a_clear_lead() -> None:
    made = board(items(ada=[1.0] * 180 + [0.0] * 15 + [NAN] * 5, bob=BOB, cat=WORSE))
    assert ranks(made) == {"ada": (1, 1), "bob": (2, 2), "cat": (3, 3)}


def test_items_that_neither_of_two_models_has_do_not_count_between_them() -> None:
    few = [NAN] * 400
    made = board(items(ada=[1.0] * 160 + [0.0] * 40 + few, bob=BOB + few, full=[1.0, 0.0] * 300))
    assert ranks(made)["ada"] == (1, 2) and ranks(made)["bob"] == (2, 3), "ada is above bob on the 200 items of both"
    assert len(made.remarks) == 2 and "no score on 400 of the 600 items" in made.remarks[0]


def test_one_item_more_in_one_file_leaves_the_ranks_of_the_others() -> None:
    made = board(items(ada=[1.0] * 180 + [0.0] * 20 + [NAN], bob=[*BOB, NAN], own=[*WORSE, 1.0]))
    assert ranks(made) == {"ada": (1, 1), "bob": (2, 2), "own": (3, 3)}


def test_where_lower_is_better_missing_items_may_be_the_high_ones() -> None:
    errors = items(ada=[0.0] * 80 + [NAN] * 100 + [1.0] * 20, bob=[0.0] * 80 + [1.0] * 120)
    assert ranks(board(errors, lower_is_better=True)) == {"ada": (1, 2), "bob": (1, 2)}
    better = items(ada=[0.0] * 190 + [NAN] * 10, bob=[0.0] * 80 + [1.0] * 120)
    assert ranks(board(better, lower_is_better=True)) == {"ada": (1, 1), "bob": (2, 2)}
    bad = items(ada=[1.0] * 190 + [NAN] * 10, bob=[0.0] * 80 + [1.0] * 120)
    assert ranks(board(bad, lower_is_better=True)) == {"ada": (2, 2), "bob": (1, 1)}


def test_what_a_lead_could_lose_is_counted_by_hand() -> None:
    table = items(ada=[1, 1, 0, NAN, NAN], bob=[1, 0, NAN, 0, NAN], full=[0, 0, 0, 1, 1])
    # ada over bob on items 0 to 3: at least (2 + 0) / 4 - (1 + 1) / 4, of a lead of 2/3 - 1/3
    slack = table.slack([0, 1, 2], 0.0, 1.0)
    assert slack[0, 1] == pytest.approx(1 / 3 - 0) and slack[1, 0] == pytest.approx(-1 / 3 + 3 / 4 - 1 / 4)
    assert slack[0, 2] == pytest.approx(2 / 3 - 2 / 5 - (2 / 5 - 2 / 5)) and slack[2, 0] == pytest.approx(
        2 / 5 - 2 / 3 + 2 / 5
    )
    assert np.diag(slack).tolist() == [0, 0, 0]
    assert table.slack([1, 0], -1.0, 2.0)[0, 1] == pytest.approx(-1 / 3 - (1 - 1) / 4 + (2 + 2) / 4)
    assert table.lacking([0, 1, 2]) == [2, 2, 0] and table.lacking([0, 1]) == [1, 1] and table.lacking([0]) == [0]


def test_scores_beyond_1_may_be_as_low_and_high_as_any_that_were_seen() -> None:
    column = items(ada=[3.0, 5.0, NAN], bob=[2.0, 4.0, 4.0])
    results = {each.model: each for each in column.results()}
    made = BoardColumn("b", column.key, BenchmarkEntry(), results, column, 1.0)
    assert made.slack(["bob", "ada"]) == pytest.approx(np.array([[0, 10 / 3 - 4 - 10 / 3 + 13 / 3], [4 - 10 / 3, 0]]))
    percents = items(ada=[50.0, 100.0, NAN], bob=[60.0, 60.0, 60.0])
    hundredths = {each.model: each for each in percents.results()}
    scaled = BoardColumn("b", column.key, BenchmarkEntry(), hundredths, percents, 0.01)
    assert scaled.slack(["ada", "bob"]) == pytest.approx(np.array([[0, 0.75 - 0.5], [250 / 300 - 0.75, 0]]))
    assert scaled.slack(["ada"]) is None and scaled.slack(["elsewhere", "bob"]) is None
    assert scaled.lacking() == {"ada": 1}
    below = items(ada=[-1.0, 1.0, NAN], bob=[1.0, 1.0, 1.0])
    alone = BoardColumn("b", column.key, BenchmarkEntry(), {each.model: each for each in below.results()}, below, 1.0)
    assert alone.slack(["ada", "bob"]) == pytest.approx(np.array([[0, 1 / 3], [1 / 3, 0]]))
    shown = BoardColumn("b", column.key, BenchmarkEntry(), {"bob": results["bob"]}, column, 1.0)
    assert shown.slack(["ada", "bob"]) is None and shown.lacking() == {}, "only models of the board"
    stated = {name: replace(each, verified=name == "bob") for name, each in results.items()}
    assert BoardColumn("b", column.key, BenchmarkEntry(), stated, column, 1.0).slack(["ada", "bob"]) is None


def test_the_slack_of_a_weighted_score_is_the_sum_of_its_columns_by_weight() -> None:
    columns = []
    for table in (items(ada=[1.0, 0.0, NAN], bob=[1.0, 1.0, 1.0]), items(ada=[1.0, 1.0], bob=[1.0, 0.0])):
        results = {each.model: each for each in table.results()}
        columns.append(BoardColumn("b", table.key, BenchmarkEntry(), results, table, 1.0))
    first = columns[0].slack(["ada", "bob"])
    assert first is not None and columns[1].slack(["ada", "bob"]) is None
    made = slack_of_scores([columns[0], columns[1], columns[0]], [0.5, 2.0, 0.25], ["ada", "bob"])
    assert made == pytest.approx(0.75 * first) and first[0, 1] == pytest.approx(1 / 6)
    assert slack_of_scores(columns, [0.0, 1.0], ["ada", "bob"]) is None


def test_the_models_that_lack_the_most_are_named_first() -> None:
    made = board(items(a=[1.0, 1, 1, NAN], b=[NAN, NAN, NAN, 1.0], c=[NAN, NAN, 1.0, 1.0], d=[1.0] * 4))
    assert [remark.partition(" of the ")[0] for remark in made.remarks] == [
        f"{each} has no score on {n}" for each, n in zip("bca", (3, 2, 1), strict=True)
    ]


@pytest.mark.parametrize("rule", ["win-rate", "borda"])
def test_wins_where_lower_is_better_and_a_model_is_not_ranked(rule: str) -> None:
    names = [f"b{i}" for i in range(12)]
    turned = [1 - each for each in LEFT_OUT]
    errors = [items(name, zoe=[1.0] * 200, ada=turned, bob=[1 - each for each in BOB]) for name in names[1:]]
    made = board(*errors, items("b0", ada=turned, bob=[1 - each for each in BOB]), rule=rule, lower_is_better=True)
    assert [each.model for each in made.sections[0].unranked] == ["zoe"]
    assert ranks(made) == {"ada": (1, 2), "bob": (1, 2)}
    holes = [items(name, ada=[0.0] * 40 + [NAN] * 160, bob=[0.0] * 180 + [1.0] * 20) for name in names]
    assert ranks(board(*holes, rule=rule, lower_is_better=True)) == {"ada": (1, 2), "bob": (1, 2)}
    clear = [items(name, ada=[0.0] * 190 + [NAN] * 10, bob=[1.0] * 200) for name in names]
    assert ranks(board(*clear, rule=rule, lower_is_better=True)) == {"ada": (1, 1), "bob": (2, 2)}


def test_reported_numbers_lack_no_items() -> None:
    stated = BoardResult("eve", "b", 0.9, n=200)
    made = board(items(ada=LEFT_OUT, bob=BOB), stated=(stated,))
    assert ranks(made)["eve"] == (1, 2) and len(made.remarks) == 1


@pytest.mark.parametrize("rule", ["win-rate", "borda"])
def test_wins_that_missing_items_could_turn_tell_no_models_apart(rule: str) -> None:
    names = [f"b{i}" for i in range(12)]
    mean = [1.0] * 100 + [0.0] * 100
    whole = [items(name, ada=[1.0] * 160 + [0.0] * 40, bob=BOB, cat=mean) for name in names]
    assert ranks(board(*whole, rule=rule)) == {"ada": (1, 1), "bob": (3, 3), "cat": (2, 2)}
    holes = [items(name, ada=LEFT_OUT, bob=BOB, cat=mean) for name in names]
    made = board(*holes, rule=rule)
    assert ranks(made) == {"ada": (1, 3), "bob": (2, 3), "cat": (1, 2)}, "cat has all items and is above bob"
    assert len(made.remarks) == 6 and made.remarks[-1] == "And 7 more results lack items that others have."
    few = [items(name, ada=[1.0] * 160 + [0.0] * 35 + [NAN] * 5, bob=BOB, cat=mean) for name in names]
    assert ranks(board(*few, rule=rule)) == ranks(board(*whole, rule=rule))
    one = [*whole[1:], holes[0]]
    assert ranks(board(*one, rule=rule)) == ranks(board(*whole, rule=rule)), "one column of twelve"


def test_a_lead_counts_less_its_slack_for_any_number_of_values() -> None:
    values = np.array([9.0, 3.0])
    small = np.diag([0.01, 0.01])
    slack = np.array([[0.0, 5.9], [0.0, 0.0]])
    assert told_apart(values, small)[0, 1] and not told_apart(values, small, slack=slack)[0, 1]
    assert told_apart(values, small, slack=slack.T)[0, 1], "only the row's own lead"
    for given in ({}, {"critical": 2.0}):
        assert rank_ranges(values, small, **given) == [(1, 1), (2, 2)]  # type: ignore[arg-type]
        assert rank_ranges(values, small, slack=slack, **given) == [(1, 2), (1, 2)]  # type: ignore[arg-type]
    unknown = np.diag([np.inf, 0.01, 0.01])
    wide = np.array([[0.0, 0, 0], [0, 0, 5.9], [0, 0, 0]])
    assert rank_ranges(np.array([0.0, 9, 3]), unknown, slack=wide) == [(1, 3)] * 3
    many = np.arange(MANY + 1.0) * 100
    lost = np.zeros((MANY + 1, MANY + 1))
    lost[MANY, MANY - 1] = 100
    assert rank_ranges(many, np.ones(MANY + 1), slack=lost)[MANY:] == [(1, 2)]
