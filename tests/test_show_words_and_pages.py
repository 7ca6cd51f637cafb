"""Numbers in words at their limits, wrapped words, expected answers, and pages from templates."""

from __future__ import annotations

import base64
import hashlib
import math
from pathlib import Path
from typing import Any

import pytest

import firsthand.show
from firsthand.show.board_words import amount, figure_text, money, p_text, seconds, span, value_text
from firsthand.show.curves import number
from firsthand.show.expected import expected_answer
from firsthand.show.feature_page import measure_rows
from firsthand.show.html_page import page_html, visible
from firsthand.show.word_wrap import WordWrap
from firsthand.stats.figure_stats import NO_INTERVAL
from firsthand.stats.score_statistics import Interval
from firsthand.task import Task

FOLDER = Path(firsthand.show.__file__).parent


def test_numbers_change_their_unit_where_the_next_would_be_rounded_up_to() -> None:
    told = {
        0: "0", 0.04: "0.0", 7.0: "7", 7.5: "7.5", 9.94: "9.9", 9.95: "10", 340.4: "340", 999.4: "999", 999.5: "1.0k",
        1234: "1.2k", 99_400: "99.4k", 99_500: "100k", 999_400: "999k", 999_500: "1.0M", 3_400_000: "3.4M",
        99_500_000: "100M",
    }  # fmt: skip
    assert {value: amount(value) for value in told} == told
    times = {0.0: "0 ms", 0.0124: "12 ms", 0.9994: "999 ms", 0.9995: "1.0 s", 1.44: "1.4 s", 99.9: "99.9 s",
             100.0: "1.7 min", 186.0: "3.1 min"}  # fmt: skip
    assert {value: seconds(value) for value in times} == times
    prices = {0: "-", 0.0123: "$0.012", 0.099: "$0.099", 0.1: "$0.10", 12.345: "$12.35", 0.0000123: "$1.2e-05"}
    assert {value: money(value) for value in prices} == prices
    chances = {0.0: "p<0.001", 0.00099: "p<0.001", 0.001: "p=0.001", 0.0494: "p=0.049", 0.0496: "p=0.049600",
               0.05: "p=0.050000", 0.0504: "p=0.050400", 0.0506: "p=0.051", 1.0: "p=1.000"}  # fmt: skip
    assert {value: p_text(value) for value in chances} == chances
    assert [span(-0.004, 0.125), span(-0.0, 0.5, signed=True)] == ["[-0.00, 0.12]", "[+0.00, +0.50]"]
    assert span(math.nan, 1) == span(0, math.inf) == span(0, math.nan, signed=True) == "unknown"
    assert [value_text(value) for value in (math.nan, math.inf, 0.005, 1)] == ["-", "-", "0.01", "1.00"]
    assert figure_text("F1", Interval(0.5, 0.25, 0.75, 9)) == "F1 0.50 [0.25, 0.75]"
    assert figure_text("F1", Interval(0.5, 0.25, 0.75, 9, method=NO_INTERVAL)) == "F1 0.50"
    assert [number(value) for value in (math.nan, -math.inf, 12345.6, 0.00012345)] == [
        "nan",
        "-inf",
        "1.235e+04",
        "0.0001234",
    ]


def test_words_are_wrapped_when_they_are_whole_and_code_keeps_its_lines() -> None:
    def wrapped(width: int, *pieces: str) -> str:
        wrap = WordWrap(width)
        return "".join(map(wrap.feed, pieces)) + wrap.flush()

    assert wrapped(10, "aaa bbb cc", "c ddd") == "aaa bbb\nccc ddd"
    assert wrapped(11, "aaa bbb cc", "c ddd") == "aaa bbb ccc\nddd"
    wrap = WordWrap(10)
    assert (wrap.feed("on"), wrap.feed("e t"), wrap.flush(), wrap.flush()) == ("", "one", " t", "")
    assert WordWrap(0).width == 1 and WordWrap(-3).width == 1
    long = "x = 'a line that is longer than ten characters'"
    assert wrapped(10, "```py\n", long, "\n```\naaa bbb ccc") == f"```py\n{long}\n```\naaa bbb\nccc"
    assert wrapped(10, "aaa\n\nbbb") == "aaa\n\nbbb" and wrapped(5, "") == ""


def test_the_expected_answer_is_the_gold_choice_or_the_first_kind_that_is_there() -> None:
    def told(choices: tuple[str, ...] = (), **secret: Any) -> str:
        return expected_answer(Task("t", "?", choices=choices, secret=secret))

    two = (" one ", "two")
    assert told(two, gold=0, answer="A") == "A: one" and told(two, gold=1) == "two" == told(two, gold=1, answer="two")
    assert told(two, gold=2, answer="C") == "C" == told(two, gold=-1, answer="C") == told(two, gold=True, answer="C")
    assert told(two, gold=1, answer=3) == "two" and told(gold=0, answer="x") == "x"
    assert told(answer="", output="o", target="t") == "" and told(output="o", target="t") == "o"
    assert (
        told(target=["é", 1]) == '["é", 1]' and told(answer=3) == "3" and told(tests="x") == "" == expected_answer(None)
    )
    assert told(answers=["é"]) == '"é"' and told(answers=["a", 2]) == '"a" or "2"' and told(answers=[]) == ""
    nine = [str(n) for n in range(9)]
    assert told(answers=nine).endswith('"7" or 1 more') and told(answers=nine[:8]).endswith('"6" or "7"')


def test_measures_are_floats_and_what_steers_is_written_out() -> None:
    facts = {"measures": {"mean_l0": 12.34567, "latents": 8, "loss recovered": 1.0, "name": "x"}}
    assert measure_rows(facts) == [("mean l0", "12.346"), ("loss recovered", "1.000")]
    assert measure_rows({}) == [] == measure_rows({"measures": [1.0]}) == measure_rows({"measures": {}})
    more = {"explained_variance_share": -0.0004, "_a__b_": 1e6, "done": True, "none": None, "left": math.nan, "c": 2.0}
    assert measure_rows({"measures": more, "other_fact": 1.0}) == [
        ("explained variance share", "-0.000"), (" a  b ", "1000000.000"), ("left", "nan"), ("c", "2.000"),
    ]  # fmt: skip
    assert visible("a\x1b[0m\n\tb\u202e\u200d\u2028é\ufeff") == "a\\u001b[0m\n\tb\\u202e\u200d\\u2028é\\ufeff"
    assert visible("\U000e0001") == "\\U000e0001" and visible("\ufdd0\ufdef\ufffe") == "\\ufdd0\\ufdef\\ufffe"
    assert visible("\u3000") == "\u3000" and visible("\ufdcf") == "\ufdcf"


def test_a_page_names_its_style_by_its_hash_and_misses_no_value() -> None:
    from jinja2 import UndefinedError

    values = dict(title="<b>\u202e", about="", confidence="95%", sections=[], remarks=["r & s"])
    page = page_html("ranking", **values)
    style = (FOLDER / "ranking.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"sha256-{digest}" in page and style in page
    assert "&lt;b&gt;\\u202e" in page and "<b>" not in page and "r &amp; s" in page
    with pytest.raises(UndefinedError):
        page_html("ranking", **{key: value for key, value in values.items() if key != "remarks"})
