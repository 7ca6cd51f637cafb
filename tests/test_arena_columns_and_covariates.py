"""Columns of battles coded in any order, styles of answers that one side lacks, and directions that votes leave open."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from itertools import permutations
from typing import Any

import numpy as np
import pytest

from firsthand.arena.battle_table import B_WINS, TIE, BattleTable, _recoded
from firsthand.arena.ratings import _inverse
from firsthand.arena.run_votes import votes_of_runs
from firsthand.arena.vote_files import scaled_differences
from firsthand.errors import ConfigError
from firsthand.preference import Preference
from firsthand.trace import Failure
from hub_site import refused
from test_arena_votes import Votes, trace


def test_texts_in_any_order_keep_the_codes_that_they_have() -> None:
    places = np.array([2, 0, 1, 1, 3], np.int64)
    for order in permutations(["x", "y", "z", "new"]):  # some have one or two texts in their own places
        codes: defaultdict[str, int] = defaultdict(int, {"x": 0, "y": 1, "z": 2, "new": 3})
        made = _recoded(places, list(order), codes)
        assert made.tolist() == [["x", "y", "z", "new"].index(order[place]) for place in places]
        assert made.dtype == np.int32
    known: defaultdict[str, int] = defaultdict(lambda: len(known), {"x": 0, "y": 1})
    assert _recoded(np.array([0, 1, 2]), ["x", "n", "m"], known).tolist() == [0, 2, 3]
    assert dict(known) == {"x": 0, "y": 1, "n": 2, "m": 3}
    assert _recoded(np.array([0, 0]), ["y"], known).tolist() == [1, 1]
    assert _recoded(np.array([], np.int64), ["y", "x"], known).tolist() == []
    assert len(known) == 4


def test_second_models_in_another_order_than_the_first_are_the_same_models() -> None:
    pyarrow, pandas = pytest.importorskip("pyarrow"), pytest.importorskip("pandas")
    first, second = ["x", "y", "z", "x"], ["z", "x", "y", "w"]
    for shared in (["x", "z", "y", "z"], ["z", "y", "x", "y"], ["y", "x", "w", "z"]):
        a, b = [*first, *first], [*second, *shared]
        winner = ["tie (bothbad)", "model_b", "b", "bothbad", "both_bad", "tie", "model_b", "tie"]
        keep = [at for at in range(8) if a[at] != b[at]]
        a, b, winner = ([column[at] for at in keep] for column in (a, b, winner))
        listed = BattleTable.from_columns(a, b, winner)
        assert [listed.models[at] for at in listed.a] == a and [listed.models[at] for at in listed.b] == b
        assert listed.outcome.tolist() == [B_WINS if each.endswith("_b") or each == "b" else TIE for each in winner]
        kinds: tuple[Callable[[list[str]], Any], ...] = (pyarrow.array, pandas.Series, np.array)
        for kind in kinds:
            made = BattleTable.from_columns(kind(a), kind(b), kind(winner))
            assert made.models == listed.models
            assert (made.a.tolist(), made.b.tolist(), made.outcome.tolist()) == (
                listed.a.tolist(), listed.b.tolist(), listed.outcome.tolist(),
            )  # fmt: skip


def test_of_columns_that_are_wrong_the_first_wrong_battle_is_told() -> None:
    columns: dict[str, Any] = {"model_a": ["x", "y", "x"], "model_b": ["y", "x", "y"], "winner": ["a", "b", "tie"]}
    covariates = {"length": [1.0, 2.0, 3.0], "bold": [0.0, math.inf, -math.inf]}
    equal = "battles and model_a has 3: give equal lengths"
    verdicts = ", ".join(map(repr, ("a", "model_a", "b", "model_b", "tie", "both_bad", "tie (bothbad)", "bothbad")))
    for change, told in (
        ({"model_b": []}, f"the column model_b has 0 {equal}"),
        ({"winner": ["a"] * 4}, f"the column winner has 4 {equal}"),
        ({"questions": ["q", "r"]}, f"the column questions has 2 {equal}"),
        ({"voters": ["v"] * 4}, f"the column voters has 4 {equal}"),
        ({"covariates": {"length": [1.0]}}, f"the column length has 1 {equal}"),
        ({"model_b": ["y", 3, None]}, "battle 2 has the model 3: give the name of each model, as a text"),
        ({"model_a": ["x", "y", None]}, "battle 3 has the model None: give the name of each model, as a text"),
        ({"model_b": ["y", "y", "x"]}, "battle 2 is of 'y' against itself: a battle needs two models"),
        ({"winner": ["a", "A", "x"]}, f"the winner of battle 2 is 'A': give {verdicts}"),
        ({"covariates": covariates}, "the covariate 'bold' of battle 2 is inf: give a number"),
    ):
        assert refused(ConfigError, BattleTable.from_columns, **{**columns, **change}) == told
    made = BattleTable.from_columns(
        **columns, voters=["v", "u", "v"], questions=["q", "q", "r"], covariates={"n": [1, 2, 3], "m": [4, 5, 6]},
        models=["w", "y", "w"],
    )  # fmt: skip
    assert made.models == ("w", "y", "x") and len(made) == 3
    assert (made.a.tolist(), made.b.tolist(), made.outcome.tolist()) == ([2, 1, 2], [1, 2, 1], [0, 2, 1])
    assert made.voters is not None and made.questions is not None and made.covariates is not None
    assert (made.voters.tolist(), made.questions.tolist()) == ([0, 1, 0], [0, 0, 1])
    assert made.covariates.tolist() == [[1, 4], [2, 5], [3, 6]] and made.covariate_names == ("n", "m")
    bare = BattleTable.from_columns([], [], [])
    assert (bare.models, len(bare), bare.voters, bare.covariates, bare.covariate_names) == ((), 0, None, None, ())


def test_a_style_that_one_answer_lacks_is_all_the_other_s() -> None:
    pairs = np.array([[0, 5], [5, 0], [0, 0], [3, 1], [2, 2], [0, 1]], np.float64)
    share = np.array([-1, 1, 0, 0.5, 0, -1])
    assert scaled_differences(pairs, "they", "bold") == pytest.approx(share / share.std())
    assert scaled_differences(np.array([[0.0, 7], [7, 7]]), "they", "bold") == pytest.approx([-2, 0])
    for same in (np.zeros((0, 2)), np.zeros((3, 2)), np.array([[0.0, 4], [0, 1]]), np.array([[1.0, 3]])):
        alike = "differ by the same share each time" if same.any() else "never differ"
        told = refused(ConfigError, scaled_differences, same, "they", "bold")
        assert told == f"they {alike} in bold: leave it out of style"
    failed = trace("1", "x", None, error=Failure("NetError", "# it is gone\n# quite"))
    attempts = [failed, trace("2", "y", "# a\n# b"), trace("3", "x", "# c"), trace("4", "z", "no")]
    votes = [Preference("t", a, b, "a", "ann") for a, b in (("1", "2"), ("2", "1"), ("3", "2"), ("4", "1"))]
    run: Any = Votes("r", attempts, *votes)
    battles = votes_of_runs([run], ["headers", "length"]).battles
    raw = np.array([[-1, -1], [1, 1], [(1 - 2) / 3, (3 - 7) / 10], [0, 1]])
    assert battles.covariates == pytest.approx(raw / raw.std(0)) and battles.covariate_names == ("headers", "length")
    assert (battles.models, battles.a.tolist(), battles.b.tolist()) == (("x", "y", "z"), [0, 1, 0, 2], [1, 0, 1, 0])


def test_an_information_is_inverted_unless_one_direction_is_hardly_determined() -> None:
    none = np.zeros((3, 0))

    def inverse(*diagonal: float, size: int = 2, x: np.ndarray = none) -> list[float] | None:
        found = _inverse(np.diag(diagonal), size, x)
        return None if found is None else [float(each) for each in found.diagonal()]

    assert inverse(2.0, 4.0) == [0.5, 0.25]
    assert inverse(1.1e-11, 1.0) == pytest.approx([1e11 / 1.1, 1.0])
    for open_ in ((0.9e-11, 1.0), (1.0, 0.9e-11), (1.0, -0.9e-11), (1.0, 0.0), (0.0, 0.0)):
        assert inverse(*open_) is None, open_
    coupled = np.array([[2.0, 1.0], [1.0, 2.0]])
    assert _inverse(coupled, 2, none) == pytest.approx(np.array([[2, -1], [-1, 2]]) / 3)
    assert _inverse(coupled * 1e-12, 2, none) is None
    # a covariate's variance counts in its own unit: the root of the mean of its squares
    small, large = np.array([[3e-4], [4e-4], [0.0], [0.0]]), np.array([[30.0], [-40.0], [0.0], [0.0]])
    for x, limit in ((small, 1e11 / 6.25e-8), (large, 1e11 / 625)):
        assert inverse(1.0, 1.0, 1.1 / limit, x=x) == pytest.approx([1.0, 1.0, limit / 1.1])
        assert inverse(1.0, 1.0, 0.9 / limit, x=x) is None
        assert inverse(1.0, 1.0, 1.0, 0.9e-11, x=x) is None, "the parameter of ties has none"
        assert inverse(1.0, 1.0, 1.0, 1.1e-11, x=x) is not None
        assert inverse(1.0, 0.9e-11, 1.0, x=x) is None, "nor has a model"
    both = np.hstack([small, large])
    assert inverse(1.0, 1.0, 1e-14, 1.0, x=both) is not None and inverse(1.0, 1.0, 1.0, 1e-14, x=both) is None
