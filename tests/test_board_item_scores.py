"""Scores of items and clusters of items: means, errors and covariances, whatever the order of the items."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from firsthand.boards import item_scores
from firsthand.boards.board_results import ColumnKey, ItemScores, empty_scores
from firsthand.errors import DataError

NAN = math.nan
KEY = ColumnKey("b", "p", "acc")


def scored(*rows: list[float], clusters: str = "", names: str = "abcdef") -> ItemScores:
    tasks = tuple(str(at) for at in range(len(rows[0])))
    return ItemScores(KEY, tuple(names[: len(rows)]), tasks, np.array(rows, np.float32), tuple(clusters))


def by_hand(rows: list[list[float]], clusters: str) -> np.ndarray:
    """The sandwich, unit by unit."""
    units = sorted(set(clusters))
    table = np.zeros((len(rows), len(units)))
    counts = np.zeros(len(rows))
    for place, row in enumerate(rows):
        found = [each for each in row if not math.isnan(each)]
        counts[place] = len(found)
        for each, unit in zip(row, clusters, strict=True):
            table[place, units.index(unit)] += 0 if math.isnan(each) else each - sum(found) / len(found)
    return table @ table.T * len(units) / (len(units) - 1) / np.outer(counts, counts)


@pytest.mark.parametrize("clusters", ["xyxyx", "yxxzy", "xxyyy", "zyxyz", "abcde", "edcba", "yyyyx"])
def test_clusters_are_summed_wherever_their_items_stand(clusters: str) -> None:
    rows = [[1.0, 0.0, 0.5, 0.25, 1.0], [0.0, 1.0, NAN, 0.75, 0.0], [0.5, NAN, NAN, 1.0, 0.25]]
    made, expected = scored(*rows, clusters=clusters), by_hand(rows, clusters)
    assert made.covariance() == pytest.approx(expected)
    errors: list[Any] = [each.error for each in made.results()]
    assert errors == pytest.approx([math.sqrt(expected[at, at]) for at in range(3)])
    assert [(each.value, each.n) for each in made.results()] == [(0.55, 5), (0.4375, 4), (pytest.approx(1.75 / 3), 3)]
    order = [3, 0, 4, 2, 1]
    moved = scored(*([row[at] for at in order] for row in rows), clusters="".join(clusters[at] for at in order))
    assert moved.covariance() == pytest.approx(expected)


def test_items_without_clusters_stand_alone() -> None:
    rows = [[1.0, 0.0, 0.5, 0.25], [0.0, 1.0, NAN, 0.75]]
    assert scored(*rows).covariance() == pytest.approx(by_hand(rows, "abcd"))
    assert scored(*rows).means().tolist() == [0.4375, pytest.approx(1.75 / 3)]


def test_one_item_or_one_cluster_has_no_error() -> None:
    for made in (
        scored([2.0]), scored([-1.0]), scored([0.5]), scored([2.0, 3.0], clusters="xx"), scored([1.0, 0.0], clusters="xx"),
    ):  # fmt: skip
        (result,) = made.results()
        assert result.error is None and result.value == made.means()[0] and result.n == len(made.tasks)
        assert np.isnan(made.covariance()).all() and made.covariance().shape == (1, 1)
    two = scored([2.0], [3.0])
    assert [each.error for each in two.results()] == [None, None] and np.isnan(two.covariance()).all()
    assert scored([2.0, 2.0]).results()[0].error == 0.0, "two units that agree"
    assert scored([1.0, 1.0]).results()[0].error is None and scored([0.0, 0.0]).results()[0].error is None
    assert scored([2.0, 3.0]).results()[0].error == pytest.approx(0.5)
    assert scored([2.0, 3.0], clusters="xy").results()[0].error == pytest.approx(0.5)


def test_a_model_without_items_has_no_result() -> None:
    made = scored([NAN, NAN], [1.0, 0.0], names="zy")
    (result,) = made.results()
    assert (result.model, result.benchmark, result.protocol, result.metric) == ("y", "b", "p", "acc")
    assert (result.value, result.n, result.verified, result.error) == (0.5, 2, True, 0.5)
    assert np.isnan(made.means()).tolist() == [True, False]
    assert made.covariance()[1, 1] == pytest.approx(0.25)
    assert scored([NAN]).results() == []


def test_a_table_of_scores_is_as_large_as_its_models_times_its_items(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(item_scores, "MAX_CELLS", 6)
    for models, tasks in ((3, 2), (2, 3), (6, 1), (1, 6)):
        made = empty_scores(models, tasks, "b")
        assert (made.shape, made.dtype) == ((models, tasks), np.float32) and np.isnan(made).all()
    for models, tasks in ((1, 7), (7, 1), (2, 4)):
        with pytest.raises(DataError) as told:
            empty_scores(models, tasks, "b" * 201)
        assert str(told.value) == (
            f"{'b' * 200} has {models} models and {tasks} items in all its files, {models * tasks} cells, "
            "and 6 are compared: give files with the same items, or fewer of them"
        )
    by_model = {name: {str(at): at / 2 for at in range(3)} for name in "ab"}
    assert ItemScores.of(KEY, by_model).scores.tolist() == [[0.0, 0.5, 1.0]] * 2
    with pytest.raises(DataError, match="b has 1 models and 7 items"):
        ItemScores.of(KEY, {"a": {str(at): 1.0 for at in range(7)}})
