"""Tables of scores and of grades, the file of results and the definition at their edges, each with its refusals."""

from __future__ import annotations

import io
import json
import math
import sqlite3
import zipfile
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from firsthand.benchmarks.sources.tables import TableRow
from firsthand.boards.board_results import BoardResult, ColumnKey, ItemScores, ResultSet, check_result
from firsthand.boards.board_spec import BenchmarkEntry, BoardSpec, _beside
from firsthand.boards.read_results import _of_path, read_results
from firsthand.boards.result_file import read_result_file, write_result_file
from firsthand.boards.result_formats import inspect_logs
from firsthand.boards.result_formats.inspect_logs import MAX_MEMBER_BYTES, read_archive
from firsthand.boards.result_formats.rubric_grades import disputed_answers, graded_answers
from firsthand.boards.result_formats.score_tables import item_rows, long_rows, open_llm_rows, wide_rows
from firsthand.boards.result_tally import ResultTally
from firsthand.errors import ConfigError, DataError, StoreError
from firsthand.stats.rater_agreement import krippendorff_alpha
from firsthand.system import zip_members


def refusal(found: Any) -> str:
    """The sentence with which a reader refuses."""
    with pytest.raises((DataError, ConfigError, StoreError)) as told:
        list(found() if callable(found) else found)
    return str(told.value)


def rows(*given: dict[str, Any]) -> list[TableRow]:
    return [TableRow(each, f"t.csv, line {number}") for number, each in enumerate(given, 2)]


def test_tables_of_scores_at_their_edges() -> None:
    long = rows({"model": "m", "benchmark": "b", "value": 0.25, "n": "", "lower_is_better": "1"},
                {"model": "m", "benchmark": "b", "value": 0.25, "n": 3.0, "lower_is_better": "no"})  # fmt: skip
    assert [(each.n, each.lower_is_better, each.error) for each in long_rows(long, Path("t.csv"))] == [
        (0, True, None), (3, False, None),
    ]  # fmt: skip
    for n in (-1, 2.5):
        given = rows({"model": "m", "benchmark": "b", "score": 1, "n": n})
        assert (
            refusal(long_rows(given, Path("t")))
            == f"t.csv, line 2: n is {n:g}: give the number of items, or leave it empty"
        )
    [items] = item_rows(
        rows({"item": 1, "m": -1, "Type": "x", "n": ""}, {"item": 2, "m": 2, "Type": "y", "n": 0}), Path("a.b.csv")
    )
    assert (items.key, items.models, items.tasks, items.clusters) == (
        ColumnKey("a", "", ""),
        ("m", "n"),
        ("1", "2"),
        (),
    )
    assert np.array_equal(items.scores, [[0, 2], [np.nan, 0]], equal_nan=True)
    assert refusal(item_rows(rows({"item": "q", "m": -2}), Path("t.csv"))) == (
        "t.csv has the score -2: item scores are 0 or more, or -1 for no answer"
    )
    assert refusal(
        item_rows(rows({"item": "p", "m": 1}, {"item": "q", "m": 1}, {"item": "q", "m": 0}), Path("t.csv"))
    ) == ("t.csv has the item 'q' more than once: give each item one row")
    assert refusal(item_rows(rows({"item": "q", "URL": 1}), Path("t.csv"))) == (
        "t.csv has no column of a model: it has item, URL"
    )
    [wide] = wide_rows(rows({"name": None, "x": 0, "when": "2026-01-02", "model_name": 5}), Path("t.csv"), [])
    assert wide == BoardResult("5", "x", 0.0, when="2026-01-02T00:00:00+00:00", source="t.csv, line 2")
    llm = {"model": "m", "IFEval": 100, "BBH": "", "MATH Lvl 5": "", "GPQA": "", "MUSR": "", "MMLU-PRO": ""}
    assert [each.value for each in open_llm_rows(rows(llm), Path("t"))] == [1.0]
    assert refusal(open_llm_rows(rows({**llm, "IFEval": -0.5}), Path("t"))) == (
        "t.csv, line 2: IFEval is -0.5: the board's rows hold percents from 0 to 100"
    )


def grade(item: str, model: str, grader: str, value: Any, role: str = "", **more: Any) -> dict[str, Any]:
    return {"item": item, "model": model, "grader": grader, "grade": value, "role": role, **more}


def test_grades_of_several_answers_of_a_model_to_an_item_are_averaged() -> None:
    given = rows(
        grade("q2", "c1", "ann", 0.25), grade("q2", "c1", "bob", 0.5), grade("q2", "c2", "ann", 1),
        grade("q2", "c2", "bob", 1),
        grade("q1", "c3", "ann", 0), grade("q1", "c3", "bob", 0.75), grade("q1", "c3", "eve", 0.5, "adjudicator"),
        grade("q1", "c3", "zoe", 1.0, "adjudicator"), grade("q1", "c3", "ann", 0.25, "adjudicator"),
        grade("q1", "c4", "eve", 0.125, "adjudicator"), grade("q3", "c5", "ann", 1), grade("q3", "c6", "bob", 1),
        grade("q4", "c7", "ann", 0.5), grade("q4", "c7", "bob", 0.7501), grade("q5", "c8", "ann", 0),
        grade("q5", "c8", "bob", 1),
        grade("q6", "c9", "ann", None), grade("q6", "c9", "bob", "  "),
    )  # fmt: skip
    codes = {"c1": "m", "c2": "m", "c3": "n", "c4": "m", "c5": "m", "c7": "n", "c8": "n"}
    about = BoardResult("", "bench", 0.0, when="w", source="s", run="r")
    found = graded_answers(given, Path("dir/sheets"), codes, about)
    assert found.items.key == ColumnKey("bench", "rubric, two blind graders, tolerance 0.25, adjudication", "grade")
    assert (found.items.models, found.items.tasks, found.items.abouts) == (("m", "n"), ("q2", "q1"), (about, about))
    # q2: .375 and 1 of m; q1: n by three adjudicators, m by one
    expected = [[(0.375 + 1) / 2, 0.125], [np.nan, 1.75 / 3]]
    np.testing.assert_allclose(found.items.scores, np.array(expected, np.float32), rtol=1e-6)
    alpha = krippendorff_alpha([[0.25, 0.5], [1, 1], [0, 0.75], [0.5, 0.7501], [0, 1]], level="interval")
    assert (found.alphas[""], found.answers, found.adjudicated, found.open, found.single) == (
        pytest.approx(alpha),
        8,
        2,
        2,
        2,
    )
    assert found.remarks == (
        f"sheets: 8 answers, Krippendorff's alpha {alpha:.2f}, 2 adjudicated.",
        "sheets: 2 answers with disagreeing grades and no adjudicator left out.",
        "sheets: 2 answers with one grade left out.", "sheets: 2 grades still to be given.",
    )  # fmt: skip
    assert disputed_answers(given) == {("q4", "c7"), ("q5", "c8")}
    scaled = graded_answers(
        rows(grade("q", "m", "ann", 3, max=4), grade("q", "m", "bob", 0.5, max=None)), Path("g.csv")
    )
    assert scaled.items.scores.tolist() == [[0.625]], "each on its own scale"
    same = graded_answers(rows(grade("q", "m", "ann", 1), grade("q", "m", "bob", 1)), Path("g.csv"))
    assert same.remarks == (
        "g.csv: 1 answer, Krippendorff's alpha not defined where all grades are equal, 0 adjudicated.",
    )
    assert same.items.abouts == (BoardResult("", "g", 0.0, source="g.csv"),) and math.isnan(same.alphas[""])


def by_criteria(item: str, grader: str, role: str = "", **grades: Any) -> list[dict[str, Any]]:
    return [grade(item, "m", grader, value, role, criterion=name) for name, value in grades.items()]


def test_graders_who_contradict_each_other_on_a_criterion_disagree() -> None:
    given = [
        *by_criteria("q1", "ann", correct=1, clear=0), *by_criteria("q1", "ben", correct=0, clear=1),
        *by_criteria("q2", "ann", correct=1, clear=1), *by_criteria("q2", "ben", correct=1, clear=0.75),
        *by_criteria("q3", "ann", correct=1, clear=""), *by_criteria("q3", "ben", correct=1, clear=""),
        *by_criteria("q4", "ann", correct=0, clear=1), *by_criteria("q4", "ben", correct=0, clear=""),
        *by_criteria("q5", "ann", correct=1, clear=1), *by_criteria("q5", "ben", correct="", clear=""),
    ]  # fmt: skip
    found = graded_answers(rows(*given), Path("g.csv"))
    assert (found.items.tasks, found.items.scores.tolist()) == (("q2",), [[0.9375]])
    assert (found.answers, found.open, found.single, found.unfinished) == (5, 1, 1, 2)
    correct = krippendorff_alpha([[1, 0], [1, 1], [1, 1], [0, 0]], level="interval")
    clear = krippendorff_alpha([[0, 1], [1, 0.75]], level="interval")
    assert found.alphas == {"correct": pytest.approx(correct), "clear": pytest.approx(clear)}
    assert found.remarks == (
        f"g.csv: 5 answers, Krippendorff's alpha correct {correct:.2f}, clear {clear:.2f}, 0 adjudicated.",
        "g.csv: 1 answer with disagreeing grades and no adjudicator left out.",
        "g.csv: 1 answer with one grade left out.",
        "g.csv: 2 answers without two grades on each criterion left out.", "g.csv: 5 grades still to be given.",
    )  # fmt: skip
    assert disputed_answers(rows(*given)) == {("q1", "m")}


def test_an_adjudicator_settles_each_criterion_that_graders_disagree_on() -> None:
    given = [*by_criteria("q", "ann", correct=1, clear=0.5), *by_criteria("q", "ben", correct=0, clear=1),
             *by_criteria("p", "ann", correct=1, clear=1), *by_criteria("p", "ben", correct=1, clear=1)]  # fmt: skip
    half = rows(*given, *by_criteria("q", "dee", "adjudicator", correct=1, clear=""))
    found = graded_answers(half, Path("g.csv"))
    assert (found.items.tasks, found.open, found.adjudicated) == (("p",), 1, 0) and disputed_answers(half) == {
        ("q", "m")
    }
    both = graded_answers(rows(*given, *by_criteria("q", "dee", "adjudicator", correct=1, clear=0.25)), Path("g.csv"))
    assert (both.items.tasks, both.items.scores.tolist(), both.adjudicated) == (("q", "p"), [[0.625, 1.0]], 1)
    agreed = [*by_criteria("q", "ann", correct=1, clear=0.5), *by_criteria("q", "ben", correct=0, clear=0.75)]
    one = graded_answers(rows(*agreed, *by_criteria("q", "dee", "adjudicator", correct=0, clear="")), Path("g.csv"))
    assert (one.items.scores.tolist(), one.adjudicated) == ([[0.3125]], 1), "the graders agree on the other criterion"


def test_grades_that_cannot_be_counted_are_refused_by_line() -> None:
    def told(*given: dict[str, Any]) -> str:
        return refusal(lambda: graded_answers(rows(*given), Path("g.csv")).items.models)

    good = grade("q", "m", "ann", 1)
    assert (
        told(good, grade("q", " ", "bob", 1))
        == "t.csv, line 3: model is empty: each grade names its item, model and grader"
    )
    assert told(grade("", "", "", 1)) == "t.csv, line 2: item is empty: each grade names its item, model and grader"
    assert told(grade("q", "m", "a", 1, "judge")) == "t.csv, line 2: the role is 'judge': give grader or adjudicator"
    assert told(grade("q", "m", "a", -0.25)) == "t.csv, line 2: the grade is -0.25: give a number from 0 to 1"
    assert told(grade("q", "m", "a", 4.5, max=4)) == "t.csv, line 2: the grade is 4.5: give a number from 0 to 4"
    assert told(grade("q", "m", "a", "n/a")) == "t.csv, line 2: the grade is 'n/a': give a number from 0 to 1"
    assert told(good, good) == "t.csv, line 3: ann graded 'q' of m twice: keep one grade"
    assert told(good, grade("r", "m", "ann", 0), grade("s", "m", "a", 0), grade("s", "m", "b", 1)) == (
        "g.csv has no answer with two grades that agree, nor an adjudicator's (2 answers with one grade, 1 "
        "disputed): grade "
        "each answer twice"
    )
    assert told(good, grade("q", "m", "bob", ""), grade("q", "m", "eve", "")) == (
        "g.csv has no answer with two grades that agree, nor an adjudicator's (2 grades still to be given; 1 "
        "answer with "
        "one grade, 0 disputed): grade each answer twice"
    )


def test_a_result_is_checked_for_its_names_its_number_and_its_error() -> None:
    base = BoardResult("m", "b", 0.5, source="s")
    check_result(base), check_result(BoardResult("m", "b", -1.0, error=0.0))
    for more, told in (
        ({"model": " "}, "s: a result names no model or no benchmark: give both"),
        ({"benchmark": "\t"}, "s: a result names no model or no benchmark: give both"),
        ({"value": math.inf}, "s: m on b is inf: give a number, or leave it out"),
        ({"error": -0.5}, "s: the standard error of m on b is -0.5: give a number of 0 or more"),
    ):
        assert refusal(lambda more=more: check_result(BoardResult(**vars(base) | more))) == told


def test_a_column_falls_under_its_own_name_before_one_with_a_star() -> None:
    entries = {name: BenchmarkEntry(name) for name in ("mm*", "quiz/f1", "quiz", "*/acc", "mmlu")}
    spec = BoardSpec(benchmarks=entries)
    for asked, name in (
        (("quiz",), "quiz"), (("quiz", "f1"), "quiz/f1"), (("quiz", "acc"), "quiz"), (("mmlu", "acc"), "mmlu"),
        (("mmlu_law", "acc"), "mm*"), (("other", "acc"), "*/acc"),
    ):  # fmt: skip
        assert spec.entry(*asked) == (name, entries[name]), asked
    assert spec.entry("other", "f1") is None and spec.entry("QUIZ") is None
    assert BoardSpec().entry("any", "acc") == ("any", BenchmarkEntry())


def test_a_file_beside_the_definition_is_meant_where_there_is_one(tmp_path: Path) -> None:
    (tmp_path / "r.csv").touch()
    path = tmp_path / "b.toml"
    assert [_beside(path, each) for each in ("r.csv", "s.csv", "x" * 5000)] == [
        str(tmp_path / "r.csv"), "s.csv", "x" * 5000,
    ]  # fmt: skip


def test_a_file_of_results_keeps_stated_numbers_apart_from_computed_ones(tmp_path: Path) -> None:
    key, other = ColumnKey("b", "p", "acc"), ColumnKey("b", "q", "acc")
    items = [
        ItemScores(key, ("a",), ("1", "2"), np.array([[1, 0]], np.float32)),
        ItemScores(other, ("c", "a"), ("2", "é", "3"), np.array([[0.5, 1, 0], [0, 0, 1]], np.float32)),
    ]
    stated = [BoardResult("a", "b", 0.3, "x", "acc"), BoardResult("d", "b", 0.4, "p", "acc")]
    path = tmp_path / "a.results"
    made = ResultSet.of(stated, items)
    write_result_file(path, made)
    one, two, first, second = read_result_file(path)
    assert [one, two] == stated and isinstance(first, ItemScores) and isinstance(second, ItemScores)
    assert (first.key, first.models, first.tasks, first.clusters, first.abouts) == (key, ("a",), ("1", "2"), (), ())
    assert (second.key, second.models, second.tasks) == (other, ("c", "a"), ("2", "é", "3"))
    assert first.scores.tolist() == [[1, 0]] and second.scores.tolist() == [[0.5, 1, 0], [0, 0, 1]]
    assert read_results([path], tmp_path).results == made.results
    for change in ("CAST(scores || scores AS BLOB)", "substr(scores, 1, 8)"):
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute(f"UPDATE item_scores SET scores = {change} WHERE model = 'c'")
        assert refusal(read_result_file(path)) == (
            f"{path} is damaged: a model has another number of scores than there are items"
        )
    for version in (0, 3):
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute(f"PRAGMA user_version = {version}")
        said = f"{path} has version {version} of the file of results, and 2 is read: import again"
        assert refusal(read_result_file(path)) == said
    path.write_text("no database, and long enough to be one" * 9)
    assert refusal(read_result_file(path)) == (
        f"{path} is no file of results, or is damaged: file is not a database: import the results again"
    )
    assert refusal(lambda: write_result_file(tmp_path / "x.result", made)) == (
        f"{tmp_path}/x.result: a file of results ends in .results: choose such a name"
    )
    (tmp_path / "d.results" / "in").mkdir(parents=True)
    assert refusal(lambda: write_result_file(tmp_path / "d.results", made)) == (
        f"{tmp_path}/d.results cannot be written: Is a directory"
    )
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a.results", "d.results"], "no draft is left"


def test_a_folder_holds_at_most_so_many_files(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for name in ("a.csv", "deep/b.csv", "deep/stats.json"):
        (tmp_path / name).write_text(f"model,benchmark,score\n{name[0]},b,1\n")
    assert [each.model for each in _of_path(tmp_path, [], ResultTally(), 2)] == ["a", "d"], (
        "files beside results do not count"
    )  # type: ignore[union-attr]
    assert (
        refusal(_of_path(tmp_path, [], ResultTally(), 1))
        == f"{tmp_path} holds 2 files: give a folder of results, with at most 1"
    )


def test_an_archive_that_is_damaged_or_locked_or_packed_in_another_way_is_refused_in_one_sentence() -> None:
    def archive(
        *, header: str = '{"eval": {}}', packed: int = zipfile.ZIP_STORED, flags: int = 0, name: str = "", size: int = 0
    ) -> bytes:
        """A log whose directory states these of the file `name`, however it is stored."""
        raw = io.BytesIO()
        with zipfile.ZipFile(raw, "w") as made:
            made.writestr("header.json", header)
            made.writestr("samples/1.json", "{}")
            for each in made.filelist:
                if each.filename == name:
                    each.compress_type, each.flag_bits = packed, flags
                    each.file_size = each.compress_size = size or each.file_size
        return raw.getvalue()

    assert read_archive(archive(), "f") == {"eval": {}, "samples": [{}]}
    told = "f is no readable Inspect log ({}): install firsthand[inspect], or convert it to JSON with `inspect log convert`"
    for name in ("header.json", "samples/1.json"):
        for number, way in ((1, "method 1"), (98, "PPMd")):
            assert refusal(lambda name=name, number=number: read_archive(archive(packed=number, name=name), "f")) == (
                told.format(
                    f"{name} is packed with {way}, and stored or deflated files are read: pack it again with `zip`"
                )
            )
        assert refusal(lambda name=name: read_archive(archive(flags=1, name=name), "f")) == told.format(
            "it is encrypted"
        )
        early = f"{name}: it ends too early"
        overlapped = f"Overlapped entries: {name!r} (possible zip bomb)"  # as newer versions of Python say
        assert refusal(lambda name=name: read_archive(archive(size=5000, name=name), "f")) in (
            told.format(early), told.format(overlapped),
        )  # fmt: skip
        for method in (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
            found = refusal(lambda name=name, method=method: read_archive(archive(packed=method, name=name), "f"))
            assert found.startswith("f is no readable Inspect log (") and "\n" not in found
    for header, why in (
        ("{", "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
        ("[" * 100_000, "it is nested too deep"),
        ("[]", "header.json holds no JSON object"),
        ('"x"', "header.json holds no JSON object"),
        ("null", "header.json holds no JSON object"),
    ):
        assert refusal(lambda header=header: read_archive(archive(header=header), "f")) == told.format(why)
    raw = archive()
    for cut in (raw[:-30], raw[:40], b""):
        assert refusal(lambda cut=cut: read_archive(cut, "f")) == told.format("File is not a zip file")
    assert refusal(lambda: read_archive(raw.replace(b"header.json", b"headed.json"), "f")) == told.format(
        "\"There is no item named 'header.json' in the archive\""
    )
    assert refusal(lambda: read_archive(raw.replace(b"{}}", b"{ }", 1), "f")) == told.format(
        "Bad CRC-32 for file 'header.json'"
    )


def test_an_archive_holds_at_most_so_many_members(monkeypatch: pytest.MonkeyPatch) -> None:
    def archive(count: int) -> bytes:
        raw = io.BytesIO()
        with zipfile.ZipFile(raw, "w") as made:
            made.writestr("header.json", "{}")
            for number in range(count - 1):
                made.writestr(f"samples/{number}.json", str(number))
        return raw.getvalue()

    monkeypatch.setattr(inspect_logs, "MAX_MEMBERS", 4)
    assert read_archive(archive(4), "f") == {"samples": [0, 1, 2]} and read_archive(archive(1), "f") == {"samples": []}
    told = "f: the archive unpacks to more than 2048 MB, or has more than 4 members: not read"
    assert refusal(lambda: read_archive(archive(5), "f")) == told


def test_zstandard_that_is_damaged_is_refused_in_one_sentence() -> None:
    pytest.importorskip("zstandard")
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w") as made:
        made.writestr("header.json", '{"eval": {}}')
        made.filelist[0].compress_type = 93
    assert refusal(lambda: read_archive(raw.getvalue(), "f")) == (
        "f is no readable Inspect log (header.json: zstd decompress error: Unknown frame descriptor): "
        "install firsthand[inspect], or convert it to JSON with `inspect log convert`"
    )


def test_an_archive_is_read_up_to_the_sizes_that_it_states(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zip_members, "FREE_BYTES", zip_members.MOST_BYTES)

    def archive(**sizes: int) -> bytes:
        raw = io.BytesIO()
        with zipfile.ZipFile(raw, "w") as made:
            made.writestr("header.json", '{"eval": {}}')
            for name in ("samples/1.json", "samples/2.json", "other/3.json"):
                made.writestr(name, json.dumps({"id": name}))
            for each in made.filelist:
                each.file_size = sizes.get(each.filename[-6:-5], each.file_size)
        return raw.getvalue()

    most = 8 * MAX_MEMBER_BYTES
    whole = {"eval": {}, "samples": [{"id": "samples/1.json"}, {"id": "samples/2.json"}]}
    assert read_archive(archive(), "f") == whole
    rest = len('{"eval": {}}') + 2 * len('{"id": "samples/1.json"}')
    assert read_archive(archive(**{"3": most - rest}), "f") == whole
    assert refusal(lambda: read_archive(archive(**{"3": most - rest + 1}), "f")) == (
        "f: the archive unpacks to more than 2048 MB, or has more than 200,000 members: not read"
    )
    assert read_archive(archive(**{"1": MAX_MEMBER_BYTES + 1}), "f") == {**whole, "samples": whole["samples"][1:]}
    assert refusal(lambda: read_archive(b"PK", "f")) == (
        "f is no readable Inspect log (File is not a zip file): install firsthand[inspect], or convert it to "
        "JSON with `inspect "
        "log convert`"
    )
