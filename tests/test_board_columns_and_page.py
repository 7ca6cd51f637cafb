"""The columns that a board chooses from results, their names, and the words of the page that shows a board."""

from __future__ import annotations

import html
import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from firsthand.boards.board_columns import _label, _mixture, board_columns
from firsthand.boards.board_export import _origins, board_html, write_board
from firsthand.boards.board_results import BoardResult, ColumnKey, ResultSet
from firsthand.boards.board_spec import BenchmarkEntry, BoardSpec
from firsthand.boards.make_board import BoardLine, BoardSection, MadeBoard, UnrankedModel, make_board
from firsthand.errors import ConfigError

NAN = math.nan


def stated(model: str, benchmark: str, value: float, error: float | None = None, **more: Any) -> BoardResult:
    return BoardResult(model, benchmark, value, error=error, **more)


def test_columns_are_chosen_by_protocol_and_metric_and_put_on_one_scale() -> None:
    results = ResultSet(
        (
            stated("a", "quiz", 80.0, 2.0, protocol="5-shot", metric="acc"),
            stated("b", "quiz", 60.0, protocol="5-shot", metric="acc"),
            stated("a", "quiz", 0.5, protocol="0-shot", metric="acc"),
            stated("a", "quiz", 0.25, protocol="0-shot", metric="f1"),
            stated("a", "maths", 9.0), stated("a", "z1", 1.0), stated("a", "z2", 1.0), stated("a", "z3", 1.0),
            stated("a", "z4", 1.0), stated("a", "z5", 1.0), stated("a", "y", 1.0),
        )
    )  # fmt: skip
    spec = BoardSpec("own", benchmarks={"quiz/acc": BenchmarkEntry(protocol="0*"), "quiz": BenchmarkEntry(metric="f1"),
                                        "maths": BenchmarkEntry(scale=10)})  # fmt: skip
    columns, said = board_columns(results, spec, protocols={"quiz": "5-*"}, metrics={})
    assert [(each.name, tuple(each.key), each.factor) for each in columns] == [
        ("quiz", ("quiz", "5-shot", "acc"), 0.01), ("maths", ("maths", "", ""), 0.1),
    ]  # fmt: skip
    assert [(each.value, each.error) for each in columns[0].cells.values()] == [(0.8, 0.02), (0.6, None)]
    assert said == ["6 benchmarks of the results are not of this board: y, z1, z2, z3, z4 ...."]
    named, _ = board_columns(results, spec, protocols={}, metrics={})
    assert [each.name for each in named] == ["quiz [acc; 0-shot]", "quiz [f1; 0-shot]", "maths"]
    few = ResultSet(results.results[4:5] + results.results[5:10])
    assert board_columns(few, spec, protocols={}, metrics={})[1] == [
        "5 benchmarks of the results are not of this board: z1, z2, z3, z4, z5."
    ]
    for protocols, metrics, told in (
        ({"no": "x"}, {}, "no result is of the benchmark 'no': name one that the results hold"),
        ({}, {"maths": "x", "no": "y"}, "no result is of the benchmark 'no': name one that the results hold"),
        ({"quiz": "9"}, {"maths": "x"},
         "no result counts on the board own: the results are of maths, quiz, y, z1, z2, z3, z4, z5"),
    ):  # fmt: skip
        with pytest.raises(ConfigError) as refused:
            board_columns(results, spec, protocols=protocols, metrics=metrics)
        assert str(refused.value) == told
    for remarks, why in ((("a.", "b."), "a. b."), ((), "each cell is empty.")):
        with pytest.raises(ConfigError) as refused:
            board_columns(ResultSet(remarks=remarks), spec, protocols={}, metrics={})
        assert str(refused.value) == f"the results hold no score that can be used: {why}"


def test_a_board_takes_the_protocol_and_the_metric_that_are_asked_for() -> None:
    given = [
        stated("a", "quiz", value, protocol=protocol, metric=metric)
        for value, protocol, metric in ((0.125, "0-shot", "acc"), (0.25, "5-shot", "acc"), (0.5, "0-shot", "f1"),
        (0.75, "5-shot", "f1"))
    ]  # fmt: skip
    results = ResultSet(tuple(given))
    for protocol, metric, value in (
        ("0*", "acc", 0.125),
        ("5-shot", "a*", 0.25),
        ("0-shot", "f1", 0.5),
        ("5*", "f*", 0.75),
    ):
        board = make_board(results, BoardSpec(rule="weighted"), protocols={"quiz": protocol}, metrics={"quiz": metric})
        assert [line.score for section in board.sections for line in section.lines] == [value]
    with pytest.raises(
        ConfigError, match=r"^quiz has results under 2 protocols, '0-shot', '5-shot', which are not mixed"
    ):
        make_board(results, BoardSpec(rule="weighted"), metrics={"quiz": "acc"})
    with pytest.raises(ConfigError, match=r"^quiz has results under 2 metrics, 'acc', 'f1', which are not mixed"):
        make_board(results, BoardSpec(rule="weighted"), protocols={"quiz": "5*"})
    assert [section.title for section in make_board(results, BoardSpec()).sections] == [
        "quiz [acc; 0-shot]", "quiz [acc; 5-shot]", "quiz [f1; 0-shot]", "quiz [f1; 5-shot]",
    ]  # fmt: skip


def test_columns_are_named_by_what_tells_them_apart_and_mixtures_by_what_they_mix() -> None:
    def keys(*pairs: tuple[str, str]) -> list[ColumnKey]:
        return [ColumnKey("b", protocol, metric) for protocol, metric in pairs]

    def labels(*pairs: tuple[str, str]) -> list[str]:
        return [_label(each, keys(*pairs)) for each in keys(*pairs)]

    assert labels(("p", "acc"), ("q", "acc")) == ["b [p]", "b [q]"]
    assert labels(("p", "acc"), ("p", "f1")) == ["b [acc]", "b [f1]"]
    assert labels(("p", "acc"), ("", "f1")) == ["b [acc; p]", "b [f1; not stated]"]
    assert labels(("p", "acc")) == ["b [acc; p]"] and labels(("", "acc")) == ["b [acc]"]
    tail = "which are not mixed in one column: choose one with --{0} b=... (* stands for anything)"
    five = keys(("p", "x"), ("", "x"), ("q" * 99, "y"), ("p", "z"), ("r", "x"), ("s", "x"))
    assert _mixture("b", five) == (
        f"b has results under 5 protocols, 'p', one that is not stated, '{'q' * 79}, 'r', {tail.format('protocol')}"
    )
    assert (
        _mixture("b", keys(("p", "x"), ("p", "y")))
        == f"b has results under 2 metrics, 'x', 'y', {tail.format('metric')}"
    )


PAGE = MadeBoard(
    BoardSpec("own", "", "About <it>"),
    (
        BoardSection(
            "first", "points",
            (
                BoardLine("a", 1, 2, 12.5, 1.0, 20.0, {"n": 30.0}, {
                    "quiz": BoardResult("a", "quiz", 0.5, "p", "acc", 0.25, 30, when="w", source="s", run="r",
                    commit="c",
                                        data_hash="h"),
                    "maths": BoardResult("a", "maths", 0.75, verified=True),
                }),
                BoardLine("b", 2, 2, 0.5, NAN, NAN, {"USD each": 0.0}),
            ),
            (UnrankedModel("d", ("quiz", "maths"), {"other": BoardResult("d", "other", 3.0)}),),
        ),
        BoardSection("", "score", (BoardLine("e", 1, 1, 0.25, 0.125, 0.5),)),
    ),
    ("one remark", "é"),
    0.9,
)  # fmt: skip


def test_the_words_of_a_page_in_their_order(tmp_path: Path) -> None:
    page = board_html(PAGE)
    words = [html.unescape(each).strip() for each in re.split(r"<[^>]*>", page.split("</style>")[1])]
    assert [each for each in words if each] == [
        "own", "About <it>", "first",
        "rank", "model", "points", "90% CI", "n", "USD each", "origin",
        "1-2", "a", "12.5", "[1.000, 20.0]", "30", "–", "2 numbers",
        "quiz", ": 0.500", "protocol", "p", "metric", "acc", "n", "30", "error", "0.25", "when", "w", "verified",
        "False",
        "source", "s", "run", "r", "commit", "c", "data_hash", "h",
        "maths", ": 0.750", "verified", "True",
        "2", "b", "0.500", "unknown", "–", "0.0000", "0 numbers",
        "Not ranked, because results are missing (nothing is put in their place):",
        "d", "lacks quiz, maths", "1 numbers", "other", ": 3.000", "verified", "False",
        "rank", "model", "score", "90% CI", "origin", "1", "e", "0.250", "[0.125, 0.500]", "0 numbers",
        "Ranks hold together at 90% in each table: models that share a rank cannot be told apart.", "one remark", "é",
    ]  # fmt: skip
    assert _origins({"q": BoardResult("a", "b", 12.0, "p", "m", None, 3, verified=True)}) == [
        {
            "column": "q", "value": "12.0",
            "origin": {"protocol": "p", "metric": "m", "n": 3, "error": None, "when": "", "verified": True,
            "source": "",
                       "run": "", "commit": "", "data_hash": ""},
        }
    ]  # fmt: skip
    assert "<title>Named</title>" in board_html(replace(PAGE, spec=BoardSpec("own", "Named")))
    write_board(PAGE, tmp_path / "é.html")
    assert (tmp_path / "é.html").read_text(encoding="utf-8") == page
    write_board(PAGE, tmp_path / "b.json")
    body = json.dumps(PAGE.to_json(), indent=2, ensure_ascii=False)
    assert (tmp_path / "b.json").read_text(encoding="utf-8") == f"{body}\n" and "é" in body
    with pytest.raises(ConfigError) as told:
        write_board(PAGE, tmp_path / "no" / "b.md")
    assert str(told.value) == f"{tmp_path}/no/b.md cannot be written: No such file or directory"
    with pytest.raises(ConfigError) as told:
        write_board(PAGE, tmp_path / "b.HTML")
    assert str(told.value) == f"{tmp_path}/b.HTML ends in .HTML: a board is written as .html, .md, .json, .csv"
