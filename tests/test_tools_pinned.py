"""Tools against second computations: inet_aton for addresses, Fractions for arithmetic, line numbers, encodings, pages."""

from __future__ import annotations

import ast
import math
import operator
import re
import socket
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firsthand.errors import ConfigError, ToolError
from firsthand.retrieval.tools.search import PASSAGE_CHARS, SearchIndex, split
from firsthand.tools.calculator import evaluate, show
from firsthand.tools.databases.sql_process import cell, fetched
from firsthand.tools.fetch import Page
from firsthand.tools.files import MAX_CHARS, Files
from firsthand.tools.folders.rooted import Rooted
from firsthand.tools.python import shortened, unfenced
from firsthand.tools.sql import SqlFile, _table
from firsthand.tools.web.addresses import read_host
from firsthand.tools.web.html import to_text
from firsthand.tools.web_search import SERVICES, _request, _shown

# -- addresses --

EDGES = [0, 1, 7, 8, 127, 255, 256, 257, 65535, 65536, 2**24 - 1, 2**24, 2**32 - 1, 2**32, 2**32 + 1]


@pytest.mark.parametrize("parts", range(1, 6))
@pytest.mark.parametrize("last", EDGES)
@pytest.mark.parametrize("write", [str, hex, lambda number: f"0{number:o}"], ids=["decimal", "hex", "octal"])
def test_old_spellings_are_read_as_inet_aton_reads_them(parts: int, last: int, write: Callable[[int], str]) -> None:
    for first in (0, 10, 255, 256):
        spelled = ".".join([*[write(first)] * (parts - 1), write(last)])
        try:
            expected = socket.inet_ntoa(socket.inet_aton(spelled))
        except OSError:
            with pytest.raises(ToolError, match="is no host name and no address"):
                read_host(spelled)
        else:
            assert str(read_host(spelled)) == expected, spelled


# -- pages --


@pytest.mark.parametrize(
    ("header", "meta", "used"),
    [
        ("", "", "utf-8"),
        ("latin-1", "", "cp1252"),
        ("", "latin-1", "cp1252"),
        ("utf-8", "latin-1", "utf-8"),
        ("latin-1", "utf-8", "cp1252"),
        ("nonsense", "latin-1", "utf-8"),
        ("punycode", "", "utf-8"),
        ("", "zlib", "utf-8"),
        ("WINDOWS-1252", "", "cp1252"),
        ("'utf-16'", "", "utf-16"),
        ("gb2312", "", "gb18030"),
        ("", "utf-16", "utf-8"),
    ],
)
def test_the_header_says_the_encoding_and_the_page_only_where_it_does_not(header: str, meta: str, used: str) -> None:
    kind = "text/html" + (f"; charset={header}" if header else "")
    body = b"<p>" + (f'<meta charset="{meta}">'.encode() if meta else b"")
    assert Page("http://a/", 200, kind, body, False).charset() == used
    late = Page("http://a/", 200, "text/html", b" " * 2048 + b'<meta charset="latin-1">', False)
    assert late.charset() == "utf-8"


@pytest.mark.parametrize(
    ("status", "is_error"),
    [(200, False), (204, False), (304, False), (399, False), (400, True), (404, True), (500, True)],
)
def test_a_status_from_400_on_is_an_error(status: int, is_error: bool) -> None:
    page = Page("http://a/", status, "text/plain", b"words", status == 204)
    if is_error:
        with pytest.raises(ToolError, match=f"answers with status {status}"):
            page.readable()
    else:
        cut = "\n[only the first 5 bytes were read]" if status == 204 else ""
        assert page.readable() == f"http://a/\n\nwords{cut}"


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ('<a href="/x">go</a> on', "go (http://h/x) on"),
        ('<a href="y?a=1&amp;b=2">go</a>', "go (http://h/d/y?a=1&b=2)"),
        ('<a href="#top">go</a>', "go"),
        ('<a href="">go</a>', "go"),
        ('<a href="mailto:a@b">go</a>', "go"),
        ('<a href="http://o/p">one</a><a href="/q">two</a>', "one (http://o/p)two (http://h/q)"),
        ("<ul><li>a<li>b</ul>", "- a\n- b"),
        ("<h2>T</h2>x", "## T\nx"),
        ("<tr><td>a</td><td>b</td></tr>", "a | b |"),
        ("a <script>b</script>c<!-- d -->e", "a ce"),
        ("<pre>a  b\n c</pre>  d   e", "a  b\n c\nd e"),
        ("1 < 2 &lt; 3", "1 < 2 < 3"),
        ("<head><title>T</title><style>s</style></head><body>b", "T\n\nb"),
        (f'<a href="/{"x" * 600}">long</a>', "long"),
    ],
)
def test_a_page_reads_as_it_is_seen(html: str, text: str) -> None:
    assert to_text(html, "http://h/d/e") == text


# -- files --


@pytest.mark.slow
@given(
    st.lists(st.sampled_from(["", "a", "needle", "x" * 70_000, "y" * 65_536, "NEEDLE " + "z" * 66_000]), max_size=6),
    st.booleans(),
)
@settings(max_examples=40, deadline=None, derandomize=True)
def test_found_lines_have_the_numbers_that_reading_gives_them(lines: list[str], ends: bool) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "f.txt").write_text("\n".join(lines) + "\n" * ends)
        found = Files(Rooted(folder)).find_files(text="needle")
        numbers = [int(number) for number in re.findall(r"f\.txt:(\d+):", found)]
        assert numbers == [number for number, line in enumerate(lines, 1) if "needle" in line.casefold()]


@pytest.mark.parametrize("count", [0, 1, 5])
@pytest.mark.parametrize("start", [1, 2, 5, 6])
@pytest.mark.parametrize("wanted", [1, 4, 5, 9])
def test_a_file_is_read_in_pages_that_miss_nothing(tmp_path: Path, count: int, start: int, wanted: int) -> None:
    lines = [f"line {number}\n" for number in range(1, count + 1)]
    (tmp_path / "f").write_text("".join(lines))
    shown = Files(Rooted(tmp_path)).read_file("f", start, wanted)
    rest = lines[start - 1 :]
    if not rest:
        assert shown == (f"(the file has {count} lines)" if count else "(the file is empty)")
        return
    more = f"[there is more: go on with start={start + wanted}]" if len(rest) > wanted else ""
    assert shown == "".join(rest[:wanted]) + more


def test_a_page_of_a_file_ends_before_the_line_that_does_not_fit(tmp_path: Path) -> None:
    for size, fit in ((MAX_CHARS // 2 - 1, 2), (MAX_CHARS // 2, 1)):
        (tmp_path / "f").write_text(f"{'x' * size}\n" * 3)
        assert Files(Rooted(tmp_path)).read_file("f").count("\n") == fit
    (tmp_path / "f").write_text("x" * (MAX_CHARS + 1) + "\nnext\n")
    assert Files(Rooted(tmp_path)).read_file("f") == "x" * (MAX_CHARS - 100) + " [the line goes on]\nnext\n"


# -- arithmetic --

_PYTHON: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}


def in_python(node: ast.expr) -> Fraction:
    """The value of an expression with Python's precedence and Fractions."""
    match node:
        case ast.BinOp(left=left, op=op, right=right):
            return Fraction(_PYTHON[type(op)](in_python(left), in_python(right)))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -in_python(operand)
        case ast.Constant(value=value):
            return Fraction(str(value))
    raise AssertionError(ast.dump(node))


numbers = st.one_of(st.integers(0, 20).map(str), st.sampled_from(["0.5", "1.25", "2.0"]))
expressions = st.recursive(
    numbers,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["+", "-", "*", "/", "//", "%"]), inner).map(" ".join),
        inner.map("({})".format),
        inner.map("-{}".format),
        st.tuples(numbers, st.sampled_from("0123")).map("**".join),
    ),
    max_leaves=6,
)


@pytest.mark.slow
@given(expressions)
@settings(max_examples=300, deadline=None, derandomize=True)
def test_arithmetic_is_pythons_in_fractions(text: str) -> None:
    if re.search(r"%\s*(-|\()", text):  # a percent sign before a sign is a percentage here
        return
    try:
        expected = in_python(ast.parse(text, mode="eval").body)
    except ZeroDivisionError:
        with pytest.raises(ToolError, match="divides by zero"):
            evaluate(text)
    else:
        assert evaluate(text) == expected, text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("7 // -2", "-4"),
        ("-7 // 2", "-4"),
        ("-7 % 3", "2"),
        ("2 ** 3 ** 2", "512"),
        ("-2 ** 2", "-4"),
        ("2 ** -1", "0.5"),
        ("10%", "0.1"),
        ("50% of 8", "4"),
        ("10 % 4", "2"),
        ("1,234 + 1", "1235"),
        ("max(1,234)", "234"),
        ("12,34", None),
        ("0.1 + 0.2", "0.3"),
        ("1/3", "0.333333333333"),
        ("-1/2", "-0.5"),
        ("0.000000000001", "0.000000000001"),
        ("3 x 4", "12"),
        ("round(2.5)", "2"),
        ("round(3.14159, 2)", "3.14"),
        ("round(1234, -2)", "1200"),
        ("floor(-1.5)", "-2"),
        ("ceil(-1.5)", "-1"),
        ("sqrt(9/4)", "1.5"),
        ("log(8, 2)", "3"),
        ("exp(0)", "1"),
        ("min(3, 1, 2)", "1"),
        ("abs(-3)", "3"),
        ("sqrt(-1)", None),
        ("0 ** 0", "1"),
        ("0 ** -1", None),
        ("1 +", None),
        ("", None),
        ("2 ** 2000", None),
        ("1e200", "1" + "0" * 200),
        ("1e201", None),
    ],
)
def test_the_calculator_reads_what_people_write(text: str, shown: str | None) -> None:
    if shown is None:
        with pytest.raises(ToolError):
            show(evaluate(text))
    else:
        assert show(evaluate(text)) == shown
    assert math.isclose(float(evaluate("pi * e")), math.pi * math.e)


# -- search --


def test_a_title_weighs_more_than_a_text_and_the_document_of_that_title_is_first(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Otters swim. Otters eat.")
    (tmp_path / "otters.txt").write_text("These swim. They eat fish.")
    (tmp_path / "z.txt").write_text("Nothing of note is here.")
    index = SearchIndex(tmp_path)
    assert [hit.title for hit in index.find("otters")] == ["otters", "a"]
    (tmp_path / "two").mkdir()
    for title, text in (("otters", "these swim"), ("b", "otters swim")):  # once each: in a title it counts twice
        (tmp_path / "two" / f"{title}.txt").write_text(text)
    assert [hit.title for hit in SearchIndex(tmp_path / "two").find("otters swim")] == ["otters", "b"]
    assert len(index.find("swim otters fish", 1)) == 1
    for k in (0, 21):
        with pytest.raises(ToolError, match="give 1 to 20"):
            index.find("otters", k)
    assert index.lookup("otters", "a").startswith("(result 1 of 2") and "Otters eat" in index.lookup("OTTERS", "a", 1)
    assert index.lookup("otters", "a", 2).startswith("(no more results: 2 sentences")
    assert "They eat fish." in index.lookup("fish", "otters")


@given(st.lists(st.integers(1, 2_000), min_size=1, max_size=8))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_passages_hold_all_words_in_order_and_are_as_long_as_fits(sizes: list[int]) -> None:
    sentences = [f"{chr(97 + place % 26) * size}." for place, size in enumerate(sizes)]
    passages = split(" ".join(sentences))
    assert "".join(passages).replace(" ", "") == "".join(sentences)
    assert all(len(passage) <= 2 * PASSAGE_CHARS for passage in passages)
    for one, two in pairwise(passages):  # the next piece did not fit any more
        first = two.split(" ")[0]
        assert len(one) + len(first) > PASSAGE_CHARS


# -- the web's and SQL's results --


@pytest.mark.parametrize("k", [1, 2, 5])
def test_no_more_web_results_are_shown_than_were_asked_for(k: int) -> None:
    found = [
        {"title": f"T{n}", "url": f"http://u/{n}", "description": f"<b>D{n}</b>", "content": f"C{n}"} for n in range(3)
    ]
    for name, body, words in (("brave", {"web": {"results": found}}, "D"), ("tavily", {"results": found}, "C")):
        shown = _shown(body, SERVICES[name], k)
        assert shown == "\n\n".join(f"T{n}\nhttp://u/{n}\n{words}{n}" for n in range(min(k, 3)))
        sent = _request(name, "http://s/", "KEY", "words", k)
        assert str(k) in (sent.url.params.get("count") or sent.content.decode()) and "KEY" in str(sent.headers.raw)
    assert _shown({"results": "none"}, SERVICES["tavily"], k).startswith("(nothing was found")


def test_cells_and_outputs_are_cut_beyond_their_length_and_not_at_it() -> None:
    assert cell("abc", 3) == "abc" and cell("abcd", 3) == "abc... (4 characters)" and cell(None, 3) is None
    assert cell(b"ab", 3) == "(2 bytes)" and cell(1234, 4) == "1234" and cell(12345, 4) == "1234... (5 characters)"
    assert shortened("a" * 6, 6) == "a" * 6 and shortened("aabbbcc", 4) == "aa\n[3 characters left out]\ncc"
    assert (
        unfenced("```python\nx\ny\n```") == "x\ny" and unfenced("```\nx") == "```\nx" and unfenced("x\n```") == "x\n```"
    )


@pytest.mark.parametrize(
    ("rows", "most", "chars", "kept", "more"),
    [
        (3, 3, 99, 3, False),
        (4, 3, 99, 3, True),
        (3, 9, 12, 3, False),
        (4, 9, 12, 3, True),
        (0, 0, 0, 0, False),
        (1, 0, 99, 0, True),
    ],
)
def test_as_many_rows_are_kept_as_are_wanted_and_fit(rows: int, most: int, chars: int, kept: int, more: bool) -> None:
    import sqlite3

    connection = sqlite3.connect(":memory:")
    cursor = connection.execute("SELECT value FROM json_each(?)", (f"[{','.join(['7'] * rows)}]",))
    found = fetched(cursor, {"max_rows": most, "max_chars": chars, "max_cell": 9})
    connection.close()
    assert found["rows"] == [["7"]] * kept and found["more"] is more and found["columns"] == ["value"]


@pytest.mark.parametrize("width", [1, 99, 999])
@pytest.mark.parametrize("more", [False, True])
def test_a_table_holds_as_many_rows_as_fit_and_says_how_many(width: int, more: bool) -> None:
    fit = (MAX_CHARS - len("c | d")) // (width + len(" | NULL") + 1)
    for count in (0, 1, fit, fit + 1):
        rows = [["x" * width, None]] * count
        lines = _table({"columns": ["c", "d"], "rows": rows, "more": more}).split("\n")
        shown = min(count, fit)
        note = [f"[there are more than these {shown} rows: ask for fewer, or count them]"] * (more or count > fit)
        assert lines == ["c | d", *["x" * width + " | NULL"] * shown, *(note or ["(no rows)"] * (not count))]
    assert _table({"columns": ["a|b"], "rows": [["x\ny|z"]], "more": False}) == "a\\|b\nx\\ny\\|z"


def test_a_database_is_a_file_that_says_so_or_is_empty(tmp_path: Path) -> None:
    for head, fine in (
        (b"", True),
        (b"SQLite format 3\0" + bytes(84), True),
        (b"SQLite format 4\0", False),
        (b"S", False),
    ):
        (tmp_path / "d").write_bytes(head)
        if fine:
            assert SqlFile(tmp_path / "d").path == tmp_path / "d"
        else:
            with pytest.raises(ConfigError, match="no SQLite database"):
                SqlFile(tmp_path / "d")
