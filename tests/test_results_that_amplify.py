"""Small files of results that would become gigabytes of texts, or tables and loops of the square of their size."""

import csv
import inspect
import json
from pathlib import Path

import numpy as np
import pytest

from firsthand.boards import board_results, item_scores, result_formats, result_tally
from firsthand.boards import read_results as read_results_module
from firsthand.boards.board_results import BoardResult, ColumnKey, ItemScores, ResultSet, merged_items
from firsthand.boards.read_results import read_results
from firsthand.boards.result_file import write_result_file
from firsthand.boards.result_formats.code_reports import swe_results
from firsthand.boards.result_tally import MAX_NAME, ResultTally
from firsthand.errors import ConfigError, DataError
from firsthand.stats.rater_agreement import krippendorff_alpha

LONG = "x" * 15_000
FIGURES = 40
REPEATING = {
    "lm.json": {
        "results": {"t": {f"m{i},none": 0.5 for i in range(FIGURES)}},
        "versions": {"t": LONG},
        "model_name": "m",
    },
    "eee.json": {
        "schema_version": "0.2",
        "model_info": {"id": "m"},
        "source_data": [LONG, "z"],
        "evaluation_results": [
            {"evaluation_name": f"e{i}", "score_details": {"score": 0.5}} for i in range(FIGURES)
        ],
    },
    "bigcode.json": {
        "config": {"model": "m", "temperature": LONG},
        "t": {"pass@1": 0.5} | {f"m{i}": 0.5 for i in range(FIGURES)},
    },
    "inspect.json": {
        "status": "success",
        "eval": {"task": "t", "model": "m"},
        "results": {"scores": [{"name": LONG, "metrics": {f"m{i}": {"value": 0.5} for i in range(FIGURES)}}]},
    },
    "helm.json": {
        "header": [{"value": "Model"}, {"value": f"{LONG} - EM", "lower_is_better": False}],
        "rows": [[{"value": f"m{i}"}, {"value": 0.5}] for i in range(FIGURES)],
    },
}  # fmt: skip
"""A long text of each format that stands in the file once, and in each of its results."""


def read(path: Path) -> ResultSet:
    return read_results([path], path.parent)


def written(path: Path, body: object) -> Path:
    path.write_text(json.dumps(body))
    return path


@pytest.mark.parametrize("name", REPEATING)
def test_a_text_that_a_file_repeats_in_each_result_is_counted_in_each(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = written(tmp_path / name, REPEATING[name])
    assert len(read(path).results) in (FIGURES, FIGURES + 1), "fewer are read"
    monkeypatch.setattr(result_tally, "MAX_TEXT_BYTES", 10 << 20)
    assert len(read(path).results) >= FIGURES, "below the bound"
    monkeypatch.setattr(result_tally, "MAX_TEXT_BYTES", 10 * len(LONG))
    with pytest.raises(ConfigError, match=rf"{name}: the texts of its results, with those of the files before it"):
        read(path)


def test_reading_stops_at_the_result_that_is_too_much(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(result_tally, "MAX_TEXT_BYTES", 1000)
    made = []

    def results():
        for i in range(100):
            made.append(i)
            yield BoardResult("m", f"b{i}", 0.5, "é" * 200 + str(i), source="f")

    with pytest.raises(ConfigError, match="f: the texts"):
        list(ResultTally().counted(results()))
    assert len(made) == 5, "about 230 bytes each, and no sixth is made"


def test_a_text_that_results_share_is_counted_once(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(result_tally, "MAX_TEXT_BYTES", 2000)
    shared = BoardResult("m", "b", 0.5, "p" * 900, source="s" * 900)
    assert len(list(ResultTally().counted([shared] * 1000))) == 1000
    tasks = tuple(f"t{i}" for i in range(100))
    rows = [ItemScores(shared.key, (f"{i}",), tasks, np.zeros((1, 100), np.float32)) for i in range(50)]
    assert len(list(ResultTally().counted(rows))) == 50, "models of a run share the names of their tasks"
    copies = [ItemScores(shared.key, ("m",), tuple(list(tasks)), each.scores, (), (shared,)) for each in rows]
    with pytest.raises(ConfigError, match="the texts of its results"):
        list(ResultTally().counted(copies))


def test_texts_results_and_cells_are_counted_over_all_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    rows = [{"model": f"m{i}", "benchmark": "b", "score": 0.5} for i in range(6)]
    paths = [written(tmp_path / f"{i}.json", rows[3 * i : 3 * i + 3]) for i in range(2)]
    monkeypatch.setattr(result_tally, "MAX_RESULTS", 6)
    assert len(read_results(paths, tmp_path).results) == 6
    monkeypatch.setattr(result_tally, "MAX_RESULTS", 5)
    with pytest.raises(ConfigError, match=r"1\.json.*: more than 5 results with the files before it"):
        read_results(paths, tmp_path)
    items = [written(tmp_path / f"i{i}.json", [{"item": "1", "m": 1}, {"item": "2", "m": 0}]) for i in range(2)]
    monkeypatch.setattr(result_tally, "MAX_ALL_CELLS", 4)
    assert len(read_results(items, tmp_path).items) == 2
    monkeypatch.setattr(result_tally, "MAX_ALL_CELLS", 3)
    with pytest.raises(ConfigError, match=r"i1\.json: more than 3 scores of single items with the files before it"):
        read_results(items, tmp_path)


def test_files_of_results_and_item_scores_pass_the_same_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "r.results"
    scores = ItemScores.of(ColumnKey("b", "", ""), {"m": {"one": 1, "two": 0}, "n": {"one": 1}})
    write_result_file(path, ResultSet.of([BoardResult("m", "c", 0.5)], [scores]))
    assert len(read(path).results) == 3
    monkeypatch.setattr(result_tally, "MAX_RESULTS", 2)
    with pytest.raises(ConfigError, match="more than 2 results"):
        read(path)


@pytest.mark.parametrize("name", ["model", "benchmark", "protocol", "metric"])
def test_a_name_that_every_cell_repeats_is_bounded(name: str, tmp_path: Path):
    row = {"model": "m", "benchmark": "b", "score": 0.5, name: "n" * MAX_NAME}
    assert len(read(written(tmp_path / "t.json", [row])).results) == 1
    with pytest.raises(DataError, match=rf"a {name} of 20,001 characters \('nnn.*give at most 20,000"):
        read(written(tmp_path / "t.json", [row | {name: "n" * (MAX_NAME + 1)}]))


def test_of_a_folder_the_file_with_such_a_name_is_left_out_and_too_much_in_all_ends_the_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for i, name in enumerate(["m", "n" * 30_000, "o"]):
        written(tmp_path / f"{i}.json", [{"model": name, "benchmark": "b", "score": 0.5}])
    found = read(tmp_path)
    assert (found.models, len(found.remarks)) == (["m", "o"], 1)
    assert "1.json" in found.remarks[0] and "a model of 30,000 characters" in found.remarks[0]
    monkeypatch.setattr(result_tally, "MAX_RESULTS", 1)
    with pytest.raises(ConfigError, match="more than 1 results"):
        read(tmp_path)


def test_every_reader_of_a_path_is_counted():
    text = inspect.getsource(read_results_module._of_path)
    yields = [line.strip() for line in text.splitlines() if "yield" in line]
    assert yields and all(line.startswith("yield from tally.counted(") for line in yields)


def test_different_numbers_are_told_for_the_first_cells_alone():
    class Counted(str):
        told = 0

        def __format__(self, spec: str) -> str:
            Counted.told += 1
            return "m"

    model = Counted("m")
    found = ResultSet.of(
        [each for i in range(50) for each in (BoardResult(model, f"b{i}", 0.1), BoardResult(model, f"b{i}", 0.9))]
    )
    assert (len(found.remarks), found.remarks[5]) == (6, "And 45 more cells have different numbers: none is used.")
    assert (Counted.told, found.results) == (5, ())


def test_the_ids_of_a_report_are_looked_up_in_one_set():
    class Id(str):
        hashed = 0

        def __hash__(self) -> int:
            Id.hashed += 1
            return str.__hash__(self)

    ids = [Id(f"a{i}") for i in range(300)]  # a set for each of 60,000 instances did not end in 90 s
    body = {"resolved_ids": ids[:100], "submitted_ids": ids, "total_instances": 300}
    [found] = swe_results(body, Path("m.run.json"))
    assert isinstance(found, ItemScores)
    assert (found.scores.sum(), found.scores.shape) == (100, (1, 300))
    assert Id.hashed < 5 * len(ids)


def test_models_with_items_of_their_own_are_refused_before_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(item_scores, "MAX_CELLS", 99)
    verdicts = {f"m{i}": {f"i{i}": {"resolved": True, "cost": 1}} for i in range(10)}
    with pytest.raises(DataError, match="10 models and 10 items in all its files, 100 cells, and 99 are compared"):
        read(written(tmp_path / "info_for_leaderboard.json", verdicts))
    monkeypatch.setattr(item_scores, "MAX_CELLS", 100)
    found = read(written(tmp_path / "info_for_leaderboard.json", verdicts))
    assert found.items[0].scores.shape == (10, 10) and found.models == [f"m{i}" for i in range(10)]


@pytest.mark.parametrize("models, items", [(2, 50), (50, 2)])
def test_a_table_is_refused_for_its_cells_whether_it_is_long_or_wide(
    models: int, items: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    verdicts = {f"m{i}": {f"i{j}": {"resolved": True, "cost": 1} for j in range(items)} for i in range(models)}
    path = written(tmp_path / "info_for_leaderboard.json", verdicts)
    monkeypatch.setattr(item_scores, "MAX_CELLS", 100)
    assert read(path).items[0].scores.shape == (models, items)
    monkeypatch.setattr(item_scores, "MAX_CELLS", 99)
    with pytest.raises(DataError, match=f"{models} models and {items} items in all its files, 100 cells, and 99 are"):
        read(path)


def test_grades_of_models_with_items_of_their_own_are_refused_before_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "grades.csv"
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["item", "model", "grader", "criterion", "grade"])
        table.writerows([f"i{i}", f"m{i}", grader, "c", i / 1000] for i in range(1000) for grader in "ab")
    items = read(path).items[0]
    assert items.scores.shape == (1000, 1000) and np.isfinite(items.scores).sum() == 1000
    assert items.scores.diagonal()[500] == 0.5
    monkeypatch.setattr(item_scores, "MAX_CELLS", 999_999)
    with pytest.raises(DataError, match="1,000 models and 1,000 items"):
        read(path)


def test_rows_shorter_than_the_first_count_as_wide_as_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(item_scores, "MAX_CELLS", 59)
    for first, further in (({"item": "0"}, "item"), ({"model": "0"}, "model")):
        rows = [first | {f"c{i}": 0.5 for i in range(5)}, *({further: str(i)} for i in range(1, 10))]
        with pytest.raises(DataError, match=r"t\.json has 10 rows and 6 columns, 60 cells"):
            read(written(tmp_path / "t.json", rows))
        assert read(written(tmp_path / "t.json", rows[:9])).results


def test_columns_joined_are_bounded_in_all(monkeypatch: pytest.MonkeyPatch):
    parts = [
        ItemScores.of(ColumnKey(name, "", ""), {model: {model: 1.0}}) for name in "bc" for model in ("x", "y", "z")
    ]
    monkeypatch.setattr(board_results, "MAX_ALL_CELLS", 18)
    assert [each.scores.shape for each in merged_items(parts)] == [(3, 3)] * 2
    monkeypatch.setattr(board_results, "MAX_ALL_CELLS", 17)
    with pytest.raises(DataError, match="all columns, joined, have more than 17 cells"):
        merged_items(parts)


def test_item_scores_are_made_of_each_models_own_items():
    found = ItemScores.of(ColumnKey("b", "", ""), {"m": {"one": 1, "two": 0.5}, "n": {}, "o": {"three": 0, "one": 1}})
    assert (found.models, found.tasks) == (("m", "n", "o"), ("one", "two", "three"))
    np.testing.assert_array_equal(found.scores, [[1, 0.5, np.nan], [np.nan] * 3, [1, np.nan, 0]])


def test_readers_of_other_tools_files_make_no_array_of_their_own():
    for path in Path(result_formats.__file__).parent.glob("*.py"):
        assert "numpy" not in path.read_text(), (
            f"{path.name}: ItemScores.of and empty_scores bound the cells of a table"
        )


def test_alpha_of_grades_compares_no_pairs_of_them():
    class Grade(float):
        compared = 0

        def __sub__(self, other: float) -> float:
            Grade.compared += 1
            return float(self) - other

    units = [[Grade(i / 300), Grade(i / 300 + 0.1)] for i in range(300)]  # 30,000 grades have 450 million pairs
    labels = np.array([[float(each) for each in unit] for unit in units])
    expected = 1 - (labels.size - 1) * 300 * 0.01 / (labels.size * np.square(labels - labels.mean()).sum())
    assert krippendorff_alpha(units, level="interval") == pytest.approx(expected)
    assert Grade.compared <= 2 * labels.size
    assert krippendorff_alpha([[0.1, 0.1, 0.1], [0.7, 0.7]], level="interval") == 1
