"""A board written out: ranks, figures, Markdown, CSV, HTML and JSON, its climb, and the TOML that defines it."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

from firsthand.boards.board_export import (
    ORIGIN,
    board_csv,
    board_html,
    board_markdown,
    interval_text,
    part_text,
    rank_text,
    score_text,
    write_board,
)  # fmt: skip
from firsthand.boards.board_results import BoardResult
from firsthand.boards.board_spec import BenchmarkEntry, BoardSpec, board_from, is_board, load_board
from firsthand.boards.climb import Climb, ClimbStep, climb_svg, climbs
from firsthand.boards.make_board import BoardLine, BoardSection, MadeBoard, UnrankedModel
from firsthand.errors import ConfigError, UnknownName

NAN = math.nan
RESULT = BoardResult(
    "=a|b", "quiz", 0.12345, "p", "acc", 0.01, 30, when="2025-01-02T00:00:00+00:00", verified=True, source="s", run="r",
    commit="c", data_hash="h",
)  # fmt: skip
BOARD = MadeBoard(
    BoardSpec("own", "A *title*", "About <it>."),
    (
        BoardSection(
            "first", "score",
            (
                BoardLine("=a|b", 1, 2, 0.12345, 0.1, 12345.678, {"n": 1234.0, "x": 0.5}, {"quiz": RESULT}),
                BoardLine("c", 3, 3, -1.0, NAN, NAN, {"USD each": 0.00012}),
            ),
            (UnrankedModel("d", ("quiz", "maths"), {"other": BoardResult("d", "other", 3.0)}),),
        ),
        BoardSection("", "points", ()),
    ),
    ("a remark_",),
    0.9,
)  # fmt: skip


def test_ranks_scores_intervals_and_parts_in_words() -> None:
    first, last = BOARD.sections[0].lines
    assert (rank_text(first), rank_text(last)) == ("1-2", "3")
    assert (interval_text(first), interval_text(last)) == ("[0.100, 12,345.7]", "unknown")
    assert [score_text(each) for each in (NAN, 9.9994, -9.9, 10.0, -1234.56)] == [
        "-",
        "9.999",
        "-9.900",
        "10.0",
        "-1,234.6",
    ]
    assert [part_text(*each) for each in (("n", 1234.6), ("Borda rank", 2.0), ("USD each", 0.00012), ("x", 0.5))] == [
        "1,235", "2", "0.0001", "0.500",
    ]  # fmt: skip


def test_markdown_has_a_table_for_each_section_and_what_is_not_ranked() -> None:
    assert board_markdown(BOARD).split("\n") == [
        "# A \\*title\\*", "", "About &lt;it&gt;.", "", "## first", "",
        "| rank | model | score | 90% CI | n | x | USD each |", "| --- | --- | --- | --- | --- | --- | --- |",
        "| 1-2 | =a\\|b | 0.123 | \\[0.100, 12,345.7\\] | 1,234 | 0.500 | - |",
        "| 3 | c | -1.000 | unknown | - | - | 0.0001 |", "",
        "Not ranked, because results are missing:", "", "- d: quiz, maths", "",
        "| rank | model | points | 90% CI |", "| --- | --- | --- | --- |", "", "- a remark\\_", "",
    ]  # fmt: skip


def test_a_score_or_part_that_is_0_is_shown_as_0() -> None:
    parts = ({"n": 0.0, "acc": 0.0}, {"USD each": 0.0, "acc": NAN}, {"Borda rank": 0.0, "f1": 1.0})
    ends = ((0.0, 0.0), (-0.5, 0.0), (0.0, NAN))
    lines = tuple(
        BoardLine(name, n, 3, 0.0, *pair, part)
        for n, (name, part, pair) in enumerate(zip("abc", parts, ends, strict=True))
    )
    board = MadeBoard(BoardSpec("own"), (BoardSection("", "score", lines),), (), 0.95)
    assert board_markdown(board).split("\n") == [
        "# own", "", "| rank | model | score | 95% CI | n | acc | USD each | Borda rank | f1 |", f"|{' --- |' * 9}",
        "| 0-3 | a | 0.000 | \\[0.000, 0.000\\] | 0 | 0.000 | - | - | - |",
        "| 1-3 | b | 0.000 | \\[-0.500, 0.000\\] | - | - | 0.0000 | - | - |",
        "| 2-3 | c | 0.000 | \\[0.000, -\\] | - | - | - | 0 | 1.000 |", "",
    ]  # fmt: skip
    cells = [re.sub(r"(\s*<[^>]*>\s*)+", "|", row).split("|") for row in board_html(board).split("<tr>")[2:]]
    assert [row[1:10] for row in cells] == [
        ["0-3", "a", "0.000", "[0.000, 0.000]", "0", "0.000", "–", "–", "–"],
        ["1-3", "b", "0.000", "[-0.500, 0.000]", "–", "-", "0.0000", "–", "–"],
        ["2-3", "c", "0.000", "[0.000, -]", "–", "–", "–", "0", "1.000"],
    ]
    rows = list(csv.reader(io.StringIO(board_csv(board))))[1:]
    assert [row[:8] for row in rows] == [
        ["", "a", "0", "3", "(score)", "0", "0", "0"], ["", "b", "1", "3", "(score)", "0", "'-0.5", "0"],
        ["", "c", "2", "3", "(score)", "0", "0", ""],
    ]  # fmt: skip


def test_csv_has_a_row_for_each_number_with_its_origin() -> None:
    rows = list(csv.reader(io.StringIO(board_csv(BOARD))))
    none = [""] * len(ORIGIN)
    assert rows == [
        ["section", "model", "rank_low", "rank_high", "column", "value", "low", "high", *ORIGIN],
        ["first", "'=a|b", "1", "2", "(score)", "0.12345", "0.1", "12345.7", *none],
        ["first", "c", "3", "3", "(score)", "'-1", "", "", *none],
        ["first", "'=a|b", "", "", "quiz", "0.12345", "", "", "p", "acc", "30", "0.01", "2025-01-02T00:00:00+00:00",
         "True", "s", "r", "c", "h"],
        ["first", "d", "", "", "other", "3", "", "", "", "", "0", "", "", "False", "", "", "", ""],
    ]  # fmt: skip


def test_every_benchmark_that_a_model_lacks_is_named_on_the_pages() -> None:
    unranked = (
        UnrankedModel("five", ("a", "b<", "c", "d_", "e"), {"q": BoardResult("five", "q", 0.25, n=4)}),
        UnrankedModel("two", ("e", "a")),
        UnrankedModel("one", ("c",), {"r": BoardResult("one", "r", 12.5), "s": BoardResult("one", "s", 1.0)}),
    )
    board = MadeBoard(BoardSpec("own"), (BoardSection("t", "score", (), unranked), BoardSection("u", "n", ())), (), 0.9)
    assert board_markdown(board).split("\n")[6:] == [
        "", "Not ranked, because results are missing:", "", "- five: a, b&lt;, c, d\\_, e", "- two: e, a", "- one: c", "",
        "## u", "", "| rank | model | n | 90% CI |", "| --- | --- | --- | --- |", "",
    ]  # fmt: skip
    text = board_html(board)
    listed = text.split("results are missing (nothing is put in their place):</p>")[1].split("</ul>")[0]
    assert [re.sub(r"(\s*<[^>]*>\s*)+", "|", each) for each in listed.split("<li>")[1:]] == [
        "|five|lacks a, b&lt;, c, d_, e|1 numbers|q|: 0.250|n|4|verified|False|",
        "|two|lacks e, a|0 numbers|",
        "|one|lacks c|2 numbers|r|: 12.5|verified|False|s|: 1.000|verified|False|",
    ]
    assert text.count("Not ranked") == 1


def test_results_of_one_benchmark_in_two_columns_are_kept_under_their_columns() -> None:
    exact, loose = BoardResult("m", "quiz", 0.25, metric="exact"), BoardResult("m", "quiz", 0.75, metric="loose")
    cells = {"quiz (loose)": loose, "quiz (exact)": exact}
    results = {"quiz (loose)": loose.to_json(), "quiz (exact)": exact.to_json()}
    unranked = UnrankedModel("m", ("z", "a"), cells).to_json()
    assert unranked == {"model": "m", "missing": ["z", "a"], "results": results}
    assert list(unranked["results"]) == ["quiz (loose)", "quiz (exact)"]
    assert UnrankedModel("n", ()).to_json() == {"model": "n", "missing": [], "results": {}}
    assert BoardLine("m", 2, 3, 0.5, -math.inf, 0.75, {"p": 1.0}, cells).to_json() == {
        "model": "m", "rank": [2, 3], "score": 0.5, "interval": [None, 0.75], "parts": {"p": 1.0}, "results": results,
    }  # fmt: skip


def test_json_and_html_hold_the_same_and_other_suffixes_are_refused(tmp_path: Path) -> None:
    write_board(BOARD, tmp_path / "b.json")
    body = json.loads((tmp_path / "b.json").read_text())
    assert body == json.loads(json.dumps(BOARD.to_json())) and list(body) == [
        "board", "title", "about", "rule", "confidence", "sections", "remarks",
    ]  # fmt: skip
    assert body["confidence"] == 0.9 and body["remarks"] == ["a remark_"] and body["rule"] == "each"
    line, other = body["sections"][0]["lines"]
    assert line["rank"] == [1, 2] and line["interval"] == [0.1, 12345.678] and other["interval"] == [None, None]
    assert line["results"]["quiz"] == RESULT.to_json() and line["parts"] == {"n": 1234.0, "x": 0.5}
    assert body["sections"][0]["unranked"] == [
        {"model": "d", "missing": ["quiz", "maths"], "results": {"other": BoardResult("d", "other", 3.0).to_json()}}
    ]
    text = board_html(BOARD)
    for told in (
        "<title>A *title*",
        "About &lt;it&gt;.",
        "90%",
        "1-2",
        "[0.100, 12,345.7]",
        "a remark_",
        "quiz, maths",
        "–",
    ):
        assert told in text, told
    for suffix, begins in ((".md", "# A "), (".csv", "section,"), (".html", "<!doctype html>")):
        write_board(BOARD, tmp_path / f"b{suffix}")
        assert (tmp_path / f"b{suffix}").read_text().startswith(begins)
    with pytest.raises(ConfigError, match=r"ends in nothing: a board is written as \.html, \.md, \.json, \.csv"):
        write_board(BOARD, tmp_path / "b")
    with pytest.raises(ConfigError, match="cannot be written: Is a directory"):
        (tmp_path / "d.md").mkdir()
        write_board(BOARD, tmp_path / "d.md")


def test_a_name_that_is_no_text_is_written_as_an_escape(tmp_path: Path) -> None:
    odd = MadeBoard(BoardSpec("own", "odd \udcff é"), (), ())
    for suffix in (".md", ".html", ".json"):
        write_board(odd, tmp_path / f"odd{suffix}")
        text = (tmp_path / f"odd{suffix}").read_text(encoding="utf-8")
        assert "udcff" in text and "é" in text


# -- the climb --


def lines(*given: tuple[str, float, str], lower: bool = False) -> tuple[BoardLine, ...]:
    return tuple(
        BoardLine(
            name, 1, 1, score, NAN, NAN, {}, {"q": BoardResult(name, "q", score, when=when, lower_is_better=lower)}
        )
        for name, score, when in given
    )


def when(day: int) -> str:
    return f"2025-01-{day:02}T00:00:00+00:00"


def test_a_climb_has_each_model_that_beat_all_before_it() -> None:
    given = lines(("c", 0.75, when(3)), ("a", 0.25, when(1)), ("b", 0.5, when(1)), ("d", 0.75, when(9)), ("e", 0.7, ""))
    section = BoardSection("", "acc", given)
    [climb] = climbs(MadeBoard(BoardSpec(), (section, BoardSection("empty", "x", lines(("z", 1, "")))), ()))
    assert climb == Climb(
        "acc",
        (ClimbStep(when(1), "b", 0.5, 0.5), ClimbStep(when(3), "c", 0.75, 0.25)),
        ((when(1), "b", 0.5), (when(1), "a", 0.25), (when(3), "c", 0.75), (when(9), "d", 0.75)),
        1,
    )
    falls = BoardSection("t", "ece", lines(("c", 0.5, when(3)), ("a", 0.25, when(1)), ("b", 0.1, when(4)), lower=True))
    [down] = climbs(MadeBoard(BoardSpec(), (falls,), ()))
    assert [(step.model, step.score, step.gain) for step in down.steps] == [("a", 0.25, 0.25), ("b", 0.1, 0.1 - 0.25)]
    two = BoardLine("m", 1, 1, 0.5, NAN, NAN, {}, {f"q{n}": BoardResult("m", "q", 0.5, when=when(n)) for n in (5, 2)})
    [latest] = climbs(MadeBoard(BoardSpec(), (BoardSection("t", "s", (two,)),), ()))
    assert latest.steps[0].when == when(5)
    with pytest.raises(ConfigError, match="no result of the board board has a date"):
        climbs(MadeBoard(BoardSpec(), (BoardSection("empty", "x", lines(("z", 1, ""))),), ()))


def test_the_plot_of_a_climb_place_by_place() -> None:
    # x from 60 to 704; scores from .25 - .04 to .75 + .04, so y of s is 24 + (.79 - s) / .58 * 296
    climb = Climb("a<b", (ClimbStep(when(1), "b", 0.5, 0.5), ClimbStep(when(3), "c", 0.75, 0.25)),
                  ((when(1), "a", 0.25), (when(1), "b", 0.5), (when(3), "c", 0.75), (when(5), "d\x07", 0.3)), 0)  # fmt: skip
    text = climb_svg(climb)
    y = {score: f"{24 + (0.79 - score) / 0.58 * 296:.1f}" for score in (0.25, 0.3, 0.5, 0.75)}
    assert f'<path d="M60.0 {y[0.5]}H382.0V{y[0.75]}H704"' in text
    assert [part.split('"')[0] for part in text.split('<circle cx="')[1:]] == ["60.0", "60.0", "382.0", "704.0"]
    assert f'cx="60.0" cy="{y[0.5]}" r="4" fill="#0b62a4"><title>b: 0.5, 2025-01-01' in text
    assert f'cx="704.0" cy="{y[0.3]}" r="4" fill="#999"><title>d\\u0007: 0.3, 2025-01-05' in text
    ticks = [part.split('fill="#333">')[1].split("<")[0] for part in text.split('text-anchor="end"')[1:]]
    assert ticks == ["0.21", "0.355", "0.5", "0.645", "0.79", "2025-01-05"] and "a&lt;b: best score by date" in text
    assert 'y1="24.0" y2="24.0"' in text and 'y1="320.0" y2="320.0"' in text and '<text x="54" y="28.0"' in text
    assert '<text x="60" y="346" text-anchor="start" fill="#333">2025-01-01</text>' in text
    assert '<text x="704" y="346" text-anchor="end"' in text
    flat = climb_svg(Climb("t", (ClimbStep(when(1), "a", 2.0, 2.0),), ((when(1), "a", 2.0),), 0))
    assert '<path d="M382.0 172.0H704"' in flat and ">1.8<" in flat and ">2.2<" in flat
    assert ">0.01<" in climb_svg(Climb("t", (ClimbStep(when(1), "a", 0.0, 0.0),), ((when(1), "a", 0.0),), 0))


# -- the definition --


def test_a_definition_is_read_with_every_key(tmp_path: Path) -> None:
    (tmp_path / "r.csv").touch()
    path = tmp_path / "mine.toml"
    path.write_text(
        'title = "T"\nabout = "A"\nrule = "weighted"\nresults = ["r.csv", "run-1", "*.csv"]\nmissing = "common"\n'
        'reported = "together"\nfresh_days = 30\n[categories]\nx = 2\n[benchmarks]\n'
        '"b*" = { category = "x", weight = 0, chance = 0.5, scale = 10, lower_is_better = true }\n"b1" = {}\n"q/f1" = {}\n'
    )
    spec = load_board(str(path))
    wide = BenchmarkEntry("x", 0, 0.5, scale=10, lower_is_better=True)
    assert spec == BoardSpec(
        "mine", "T", "A", "weighted", {"b*": wide, "b1": BenchmarkEntry(), "q/f1": BenchmarkEntry()}, {"x": 2},
        (str(tmp_path / "r.csv"), "run-1", "*.csv"), "common", "together", 30,
    )  # fmt: skip
    assert spec.entry("b1") == ("b1", BenchmarkEntry()) and spec.entry("b2", "m") == ("b*", wide)
    assert spec.entry("q") is None and spec.entry("q", "f1") == ("q/f1", BenchmarkEntry()) and spec.entry("z") is None
    assert BoardSpec().entry("any") == ("any", BenchmarkEntry())
    assert is_board("helm_classic.toml") and not is_board("nothing") and not is_board("../definitions/open_llm")
    with pytest.raises(UnknownName):
        load_board("nothing")
    with pytest.raises(ConfigError, match="give the TOML file that defines the board"):
        load_board(str(tmp_path / "no.toml"))
    path.write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="cannot be read as TOML"):
        load_board(str(path))


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"titel": 1}, "has the key 'titel', which no board has; did you mean 'title'?"),
        (
            {"zzzzzzzzz": 1},
            "which no board has: it knows about, benchmarks, categories, fresh_days, missing, name, reported",
        ),
        ({"benchmarks": 3}, r"benchmarks is 3: write a table, \[benchmarks\]"),
        ({"categories": []}, r"categories is \(\): write a table, \[categories\]"),
        ({"benchmarks": {"b": 1}}, "benchmark 'b' is 1: write a table such as"),
        ({"benchmarks": {"b": {"wieght": 1}}}, "benchmark 'b' has the key 'wieght'; did you mean 'weight'?"),
        ({"benchmarks": {"b": {"weight": -0.1}}}, "benchmark 'b': weight is -0.1: give 0 or more"),
        ({"benchmarks": {"b": {"chance": 1}}}, "benchmark 'b': chance is 1: give the score of guessing"),
        ({"benchmarks": {"b": {"chance": -0.1}}}, "chance is -0.1"),
        ({"benchmarks": {"b": {"scale": 0}}}, "scale is 0: give the score of a perfect model"),
        ({"benchmarks": {"b": {"weight": "x"}}}, "m.toml: benchmark 'b': '<=' not supported"),
        ({"rule": "best"}, "m.toml: rule is 'best': give each, weighted, win-rate, borda"),
        ({"missing": "x"}, "missing is unranked or common"),
        ({"reported": "x"}, "reported is apart or together"),
        ({"fresh_days": -1}, "fresh_days is -1: give a number of days"),
        ({"categories": {"x": -1}}, "the weight of category 'x' is -1: give 0 or more"),
        ({"categories": {"x": 1}, "benchmarks": {"b": {"category": "y"}}}, "the category 'y' has no weight"),
        ({"fresh_days": "x"}, "m.toml does not define a board"),
    ],
)
def test_a_wrong_definition_names_its_key(body: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        board_from(body, Path("m.toml"))
